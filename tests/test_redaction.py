"""Nothing secret gets into what is shown, whatever it stands in."""

import base64
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbod import redaction
from turbod.redaction import HIDDEN, Kept, keep_secret, redacted, without_secrets

PASSWORD = "hunter2hunter2"
TOKEN = "turbod_" + base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SIGNATURE = "fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024"
SESSION = "IQoJb3JpZ2luX2VjEGwaCXVzLWVhc3QtMSJHMEUCIQ"
SECRETS = (PASSWORD, TOKEN, KEY_ID, SIGNATURE, SESSION)

LEAKS = (
    f"https://me:{PASSWORD}@example.com/x",
    f"cannot read wss://me:{PASSWORD}@[::1]:80/subscribe: refused",
    f"https://{PASSWORD}@example.com",
    f"https://me:a@{PASSWORD}@example.com",
    f"(https://example.com/hour?X-Amz-Credential={KEY_ID}%2F20261120&X-Amz-Signature={SIGNATURE})",
    f"GET /hour?x=1&X-Amz-Security-Token={SESSION}&X-Amz-Signature={SIGNATURE} HTTP/1.1",
    f"GET https://example.com/?whatever={PASSWORD}",
    f"AWSAccessKeyId={PASSWORD}&Signature={SIGNATURE}&Expires=1",
    f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20261120, SignedHeaders=host, Signature={SIGNATURE}",
    f"Authorization: Bearer {PASSWORD}",
    f"authorization: Basic {PASSWORD}",
    f"{{'Authorization': 'Bearer {PASSWORD}'}}",
    f"[(b'authorization', b'Basic {PASSWORD}')]",
    f"Sec-WebSocket-Protocol: turbostream.v1.json, bearer.{PASSWORD}",
    f"Bearer {PASSWORD}",
    f"x-amz-security-token: {SESSION}",
    f'"X-Amz-Security-Token":"{SESSION}"',
    f"the token {TOKEN} is not known",
    f"bearer.{TOKEN}",
    KEY_ID,
    f"access_token={PASSWORD}",
    f"/login?password={PASSWORD}&user=me",
)
HARMLESS = (
    "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
    "wss://jetstream1.us-east.bsky.network/subscribe",
    "s3://bucket/prefix at example.com: cannot write 2026/x: the secret key is wrong",
    "at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/3lng7e4mr5c2z",
    "turbod_archive_oldest_waiting_seconds",
    "this needs a bearer token",
    "me@example.com",
    "/home/me/data/live/2026-11-20T08.jsonl",
)


@pytest.mark.parametrize("text", LEAKS)
def test_what_is_secret_is_not_shown(text: str) -> None:
    shown = redacted(text)
    assert HIDDEN in shown
    assert not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_not_secret_is_shown_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_what_is_around_a_secret_is_still_told() -> None:
    text = f"cannot read https://me:{PASSWORD}@example.com/hours?x={PASSWORD}: refused"
    assert redacted(text) == "cannot read https://***@example.com/hours?***: refused"


words = st.text(max_size=20)
leaks = st.sampled_from(LEAKS)
values = st.recursive(
    st.one_of(st.none(), st.integers(), st.floats(), words, st.binary(max_size=20), leaks)
    | leaks.map(str.encode)
    | leaks.map(ValueError)
    | st.builds("{} {} {}".format, words, leaks, words),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.lists(inside, max_size=4).map(tuple)
        | st.dictionaries(st.one_of(words, leaks), inside, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_nothing_secret_is_left_in_any_value(value: Any) -> None:
    shown = str(without_secrets(value))
    assert not [secret for secret in SECRETS if secret in shown]


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.lists(st.integers(), max_size=9)))
def test_what_holds_no_text_stays_what_it_is(value: Any) -> None:
    assert without_secrets(value) == value


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": PASSWORD},
        {b"cookie": PASSWORD},
        [("authorization", PASSWORD)],
        ((b"Proxy-Authorization", PASSWORD.encode()),),
    ],
)
def test_a_header_that_holds_a_secret_is_hidden_by_its_name(headers: object) -> None:
    assert PASSWORD not in str(without_secrets({"headers": headers}))


def test_a_secret_that_was_named_is_hidden_however_it_is_spelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redaction, "_kept", Kept())
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    keep_secret(secret)
    assert redacted(f"a {secret} b") == "a *** b"
    assert redacted(f"a {quote(secret, safe='')} b") == "a *** b"


def test_named_secrets_are_bounded_and_short_ones_hide_no_words() -> None:
    kept = Kept()
    kept.add("log")
    assert kept.spellings == ()
    for number in range(500):
        kept.add(f"secret-{number:04}")
    assert len(kept.spellings) == redaction.MAX_KEPT_SECRETS
    assert "secret-0499" in kept.spellings


@pytest.mark.parametrize(
    "piece", ["http://", "a:", "bearer ", "authorization: ", "x-amz-signature=", "a", "token", "_@"]
)
def test_no_text_from_outside_costs_more_than_a_moment(piece: str) -> None:
    began = time.process_time()
    redacted(piece * (redaction.MAX_CHARACTERS // len(piece)))
    redacted(piece * 150 + "?" + "." * redaction.MAX_CHARACTERS)
    assert time.process_time() - began < 2  # some 50 ms; without bounds it would be minutes


def test_of_a_text_that_is_too_long_both_ends_are_told_and_no_half_of_a_secret() -> None:
    half = redaction.MAX_CHARACTERS // 2
    secret = "Bearer " + "s" * 40
    text = "begin\n" + "x" * (half + 50_000) + secret + "y" * (half - 20) + "\nend\n"
    told = redacted(text)
    assert told.startswith("begin\n")
    assert told.endswith("\nend\n")
    assert "sssss" not in told
    assert len(told) <= redaction.MAX_CHARACTERS + 10


def test_values_are_bounded_in_depth_and_number() -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    assert len(str(without_secrets(deep))) < 500
    assert len(without_secrets(list(range(1000)))) == redaction.MAX_ITEMS + 1
    assert len(without_secrets({str(key): key for key in range(1000)})) == redaction.MAX_ITEMS + 1
