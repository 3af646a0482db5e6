import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbod.envelope import Malformed
from turbod.event import (
    MAX_EVENT_BYTES,
    MAX_MENTIONS,
    _nsid,
    parse,
    split_uri,
    valid_did,
    valid_nsid,
)

ALICE = "did:plc:skgh7tzgwbtzz4zieiy6zlfz"
BOB = "did:web:example.com"
POST = f"at://{BOB}/app.bsky.feed.post/3lng7e4mr5c2z"
ROOT = f"at://{ALICE}/app.bsky.feed.post/3lng7e4mr5c2y"


def commit(record: Any = None, **changes: Any) -> dict[str, Any]:
    body = {
        "rev": "3lng7e4mr5c2z",
        "operation": "create",
        "collection": "app.bsky.feed.post",
        "rkey": "3lng7e4mr5c2z",
        "record": {"text": "hi"} if record is None else record,
        "cid": "bafyrei",
    }
    return {"did": ALICE, "time_us": 1, "kind": "commit", "commit": body | changes}


def text(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def references(record: Any, collection: str = "app.bsky.feed.post") -> Any:
    return parse(text(commit(record, collection=collection))).references


def test_time_us_is_the_envelopes_never_the_records() -> None:
    event = commit({"text": "hi", "time_us": 7}) | {"time_us": 1745342977546824}
    assert parse(text(event)).time_us == 1745342977546824


@pytest.mark.parametrize("time_us", [None, "1", 1.0, True, [], {}])
def test_an_event_without_an_integer_time_us_is_malformed(time_us: Any) -> None:
    with pytest.raises(Malformed, match="time_us"):
        parse(text(commit() | {"time_us": time_us}))


@pytest.mark.parametrize("time_us", ["-1", "9007199254740992", "9" * 400, "-" + "9" * 400])
def test_a_time_that_no_clock_can_show_is_malformed(time_us: str) -> None:
    """JSON's integers have no end: seconds made of one with 400 digits overflow a float."""
    with pytest.raises(Malformed, match="time_us"):
        parse(
            text(commit() | {"time_us": 1}).replace(
                b'"time_us":1', b'"time_us":%b' % time_us.encode()
            )
        )


def test_what_is_kept_of_deletions_is_bounded() -> None:
    """A deletion is remembered by its rev, an account's state by its time."""
    with pytest.raises(Malformed, match="shape"):
        parse(text(commit(rev="3" * 65)))
    notice = {"did": ALICE, "time": "2" * 65, "seq": 1, "active": False}
    with pytest.raises(Malformed, match="shape"):
        parse(text({"did": ALICE, "time_us": 1, "kind": "account", "account": notice}))


def test_no_name_is_remembered_that_is_too_long_to_be_one() -> None:
    before = _nsid.cache_info().currsize
    for number in range(20):
        assert not valid_nsid(f"app.bsky.x{number}" + "x" * 400)
    assert _nsid.cache_info().currsize == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"did": "did:plc:a b"}, "did"),
        ({"did": 'did:plc:"'}, "did"),
        ({"did": None}, "did"),
        ({"kind": "heartbeat"}, "kind"),
        ({"kind": ["commit"]}, "kind"),
        ({"commit": None}, "shape"),
        (commit(collection="nodots"), "collection"),
        (commit(collection='app.bsky."'), "collection"),
        (commit(rkey='a"b'), "rkey"),
        (commit(rkey=".."), "rkey"),
        (commit(rkey="a\nb"), "rkey"),
        (commit(operation="upsert"), "operation"),
        (commit(operation={}), "operation"),
        (commit(rev=None), "shape"),
        (commit(cid=5), "shape"),
        (commit(record=[]), "shape"),
        ({"kind": "account", "account": {"time": "x", "active": "yes"}}, "shape"),
        ({"kind": "identity", "identity": {}}, "shape"),
    ],
)
def test_what_is_not_an_event_is_malformed_with_its_reason(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Malformed) as caught:
        parse(text(commit() | change))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "json"),
        (b"[]", "shape"),
        (b"null", "shape"),
        (text(commit({"a": "X"})).replace(b"X", b"\xff"), "json"),
        (text(commit({"a": "X"})).replace(b"X", b"\xed\xa0\x80"), "json"),
        (text(commit({"a": "X"})).replace(b"X", b"\\ud800"), "json"),
        (text(commit({"a": "X"})).replace(b"X", b"\n"), "json"),
        (text(commit({"a": "X"})).replace(b'"X"', b"1e999"), "json"),
        (text(commit({"a": "X"})).replace(b'"X"', b"NaN"), "json"),
        (text(commit({"a": "X"})).replace(b'"X"', b"[" * 100_000 + b"]" * 100_000), "nesting"),
        (text(commit({"a": "X"})).replace(b'"X"', b"[" * 62 + b"]" * 62), "nesting"),
        (text(commit({"a": "x" * MAX_EVENT_BYTES})), "size"),
        (text(commit())[:-1], "json"),
        (text(commit()) + b"{}", "json"),
    ],
)
def test_bytes_that_would_poison_a_client_are_malformed(message: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(message)
    assert caught.value.reason == reason


def test_nesting_up_to_64_passes_and_flat_events_with_many_brackets_too() -> None:
    deepest = text(commit({"a": "X"})).replace(b'"X"', b"[" * 61 + b"]" * 61)
    assert parse(deepest)
    assert parse(text(commit({"a": [{"b": []} for _ in range(1000)]})))


def test_the_message_is_kept_byte_for_byte_line_breaks_between_tokens_apart() -> None:
    message = b' {"did":"%b",\r\n"time_us":1,\n "kind":"identity","x":"\\n",' % ALICE.encode()
    message += b'"identity":{"time":"t","did":"d", "big":12345678901234567890}} \n'
    assert parse(message).message == message.replace(b"\r\n", b"").replace(b"\n", b"").strip()


def test_unknown_fields_pass_through() -> None:
    event = commit() | {"cursor": 9, "new": {"a": [1]}}
    assert parse(text(event)).message == text(event)
    assert parse(text(event)).upstream_cursor == 9


def test_a_reply_names_parent_and_root_and_a_root_that_is_the_parent_only_once() -> None:
    reply = {"reply": {"parent": {"uri": POST, "cid": "c"}, "root": {"uri": ROOT}}}
    assert (references(reply).parent, references(reply).root) == (POST, ROOT)
    reply["reply"]["root"] = reply["reply"]["parent"]
    assert (references(reply).parent, references(reply).root) == (POST, None)


def test_quotes_are_found_beside_media_too() -> None:
    plain = {"embed": {"$type": "app.bsky.embed.record", "record": {"uri": POST}}}
    media = {
        "embed": {
            "$type": "app.bsky.embed.recordWithMedia",
            "record": {"record": {"uri": POST}},
            "media": {},
        }
    }
    assert references(plain).quote == POST
    assert references(media).quote == POST


@pytest.mark.parametrize(
    "collection",
    [
        "app.bsky.feed.generator",
        "app.bsky.graph.list",
        "app.bsky.graph.starterpack",
        "app.bsky.labeler.service",
        "com.example.thing",
    ],
)
def test_only_posts_are_quoted_posts(collection: str) -> None:
    uri = f"at://{BOB}/{collection}/self"
    assert references({"embed": {"$type": "app.bsky.embed.record", "record": {"uri": uri}}}) == (
        references({"text": "hi"})
    )


def mention(did: Any) -> dict[str, Any]:
    return {"features": [{"$type": "app.bsky.richtext.facet#mention", "did": did}]}


def test_mentions_come_once_each_in_order_of_first_appearance_web_dids_too() -> None:
    facets = [mention(BOB), mention(ALICE), mention(BOB), mention("alice.example"), mention(None)]
    assert references({"facets": facets}).mentions == (BOB, ALICE)


def test_other_features_with_a_did_are_no_mentions() -> None:
    facets = [{"features": [{"$type": "com.example#other", "did": BOB}]}]
    assert references({"facets": facets}).mentions == ()


def test_of_twelve_thousand_mentions_fifty_count() -> None:
    facets = [mention(f"did:web:m{i}") for i in range(12_000)]
    assert len(references({"facets": facets}).mentions) == MAX_MENTIONS


@pytest.mark.parametrize("collection", ["app.bsky.feed.like", "app.bsky.feed.repost"])
def test_likes_and_reposts_have_a_subject_post_possibly_none(collection: str) -> None:
    found = references({"subject": {"uri": POST, "cid": "c"}}, collection)
    assert (found.has_subject_post, found.subject_post) == (True, POST)
    feed = {"subject": {"uri": f"at://{BOB}/app.bsky.feed.generator/x"}}
    assert (references(feed, collection).has_subject_post, references(feed, collection)) == (
        True,
        references({}, collection),
    )


@pytest.mark.parametrize("collection", ["app.bsky.graph.follow", "app.bsky.graph.block"])
def test_follows_and_blocks_have_a_subject_user_possibly_none(collection: str) -> None:
    assert references({"subject": BOB}, collection).subject_user == BOB
    assert references({"subject": "bob.example"}, collection).subject_user is None
    assert references({"subject": "bob.example"}, collection).has_subject_user


def test_about_names_mentioned_parent_root_quoted_and_subject() -> None:
    record = {
        "facets": [mention("did:web:m.example")],
        "reply": {"parent": {"uri": POST}, "root": {"uri": ROOT}},
        "embed": {
            "$type": "app.bsky.embed.record",
            "record": {"uri": "at://did:web:q.example/app.bsky.feed.post/x"},
        },
    }
    assert parse(text(commit(record))).about == (
        "did:web:m.example",
        BOB,
        ALICE,
        "did:web:q.example",
    )
    follow = commit({"subject": BOB}, collection="app.bsky.graph.follow")
    assert parse(text(follow)).about == (BOB,)


garbage = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.just(POST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["reply", "parent", "root", "uri", "embed", "$type", "record", "facets", "features"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["reply", "embed", "facets", "subject", "text"]), garbage),
    st.sampled_from(["app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"]),
)
def test_null_or_garbage_in_every_optional_place_costs_only_itself(
    record: dict[str, Any], collection: str
) -> None:
    event = commit(record, collection=collection)
    assert parse(text(event)).message == text(event)


@given(
    st.dictionaries(st.sampled_from(["reply", "embed", "facets", "subject", "langs"]), garbage),
    st.sampled_from(["app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"]),
    st.sampled_from([None, 1, 1.0, True, "1", [1]]),
)
def test_a_field_that_nobody_knows_changes_nothing_in_how_the_others_are_read(
    record: dict[str, Any], collection: str, cursor: Any
) -> None:
    """It has another decoder, and so have fields of other types than they should be."""
    event = commit(record, collection=collection) | {"cursor": cursor}
    unknown = commit(record | {"new": 1}, collection=collection) | {"cursor": cursor}
    message = text(event)
    assert msgspec.structs.replace(parse(text(unknown)), message=message) == parse(message)
    assert parse(message).upstream_cursor == (1 if cursor == 1 and type(cursor) is int else 0)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_malformed(message: bytes) -> None:
    with pytest.raises(Malformed):
        parse(message)


def test_two_copies_are_known_by_identity_and_several_operations_of_one_commit_are_not() -> None:
    one = parse(text(commit()))
    assert one.identity == parse(text(commit() | {"time_us": 99, "cursor": 5})).identity
    assert one.identity != parse(text(commit(rkey="other"))).identity
    assert one.identity != parse(text(commit(operation="delete"))).identity
    notice = {"did": ALICE, "time_us": 1, "kind": "identity", "identity": {"time": "t", "seq": 1}}
    other_relay = notice | {"identity": {"time": "t", "seq": 2}}
    assert parse(text(notice)).identity == parse(text(other_relay)).identity


@pytest.mark.parametrize(
    ("did", "valid"),
    [
        (ALICE, True),
        (BOB, True),
        ("did:plc:short", True),
        ("did:web:a%3A80", True),
        ("did:plc:a:", False),
        ("did::a", False),
        ("DID:plc:a", False),
        ("did:plc:é", False),
        ("did:plc:a\n", False),
        ("did:web:" + "a" * 2040, True),
        ("did:web:" + "a" * 2041, False),
        (5, False),
    ],
)
def test_dids_by_atprotos_syntax(did: object, *, valid: bool) -> None:
    assert valid_did(did) is valid


@pytest.mark.parametrize(
    ("nsid", "valid"),
    [
        ("app.bsky.feed.post", True),
        ("a.b.c", True),
        ("app.bsky", False),
        ("app.bsky.3d", False),
        ("app..post", False),
        ("app.bsky.feed.po-st", False),
        ("app.bsky.feed.*", False),
        ("a" * 64 + ".b.c", False),
    ],
)
def test_nsids_by_atprotos_syntax(nsid: object, *, valid: bool) -> None:
    assert valid_nsid(nsid) is valid


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "",
        f"at://{BOB}",
        f"at://{BOB}/app.bsky.feed.post",
        "at://bob.example/app.bsky.feed.post/x",
        f"at://{BOB}/app.bsky.feed.post/x/",
        f"at://{BOB}/app.bsky.feed.post/x?a",
        f"at://{BOB}/app.bsky.feed.post/x#/a",
        f"at://{BOB}/app.bsky.feed.post/{'x' * 513}",
        f"https://{BOB}/app.bsky.feed.post/x",
    ],
)
def test_what_is_not_the_uri_of_a_record_by_did_is_never_a_reference(uri: object) -> None:
    assert split_uri(uri) is None


def test_every_captured_event_passes_and_keeps_its_bytes(captured_events: list[bytes]) -> None:
    assert all(parse(line).message == line for line in captured_events)
