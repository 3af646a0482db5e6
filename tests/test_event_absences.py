"""What may be absent, null or of bad syntax in a record, place by place."""

import json
from typing import Any

import pytest

from turbod.event import parse

AUTHOR, OTHER = "did:plc:skgh7tzgwbtzz4zieiy6zlfz", "did:web:other.example"
GOOD = {"uri": f"at://{OTHER}/app.bsky.feed.post/3lng7e4mr5c2z", "cid": "bafy"}
MENTION = {"features": [{"$type": "app.bsky.richtext.facet#mention", "did": OTHER}]}
REPLY = {"parent": GOOD, "root": GOOD}


def event_of(record: dict[str, Any]) -> Any:
    commit = {
        "rev": "3m",
        "operation": "create",
        "collection": "app.bsky.feed.post",
        "rkey": "3lng7e4mr5c2y",
        "record": record,
        "cid": "bafy",
    }
    event = {"did": AUTHOR, "time_us": 1745342977546824, "kind": "commit", "commit": commit}
    return parse(json.dumps(event).encode())


@pytest.mark.parametrize(
    "embed",
    [
        None,
        {"$type": None},
        {"$type": "app.bsky.embed.record", "record": None},
        {"$type": "app.bsky.embed.record", "record": {"uri": None}},
        {"$type": "app.bsky.embed.recordWithMedia", "record": None},
        {"$type": "app.bsky.embed.recordWithMedia", "record": {"record": None}},
    ],
)
def test_an_explicit_null_on_the_way_to_a_quote_is_no_quote_and_spoils_nothing_else(
    embed: object,
) -> None:
    references = event_of({"reply": REPLY, "embed": embed, "facets": [MENTION]}).references
    assert references.quote is None
    assert references.parent == GOOD["uri"]
    assert references.mentions == (OTHER,)


@pytest.mark.parametrize("reply", [None, {}, {"parent": None, "root": None}, {"parent": {}}])
def test_an_explicit_null_in_a_reply_spoils_nothing_else(reply: object) -> None:
    embed = {"$type": "app.bsky.embed.record", "record": GOOD}
    references = event_of({"reply": reply, "embed": embed, "facets": [MENTION]}).references
    assert (references.parent, references.root) == (None, None)
    assert references.quote == GOOD["uri"]
    assert references.mentions == (OTHER,)


@pytest.mark.parametrize(
    "facets",
    [None, [None], [{"features": None}], [{"features": [None]}], [{"features": [{"did": None}]}]],
)
def test_an_explicit_null_among_facets_spoils_nothing_else(facets: object) -> None:
    references = event_of({"reply": REPLY, "facets": facets}).references
    assert references.mentions == ()
    assert references.parent == GOOD["uri"]


@pytest.mark.parametrize(
    "uri",
    [
        "at://other.example/app.bsky.feed.post/3lng7e4mr5c2z",
        f"at://{OTHER}/app.bsky.feed.post/two words",
        f"at://{OTHER}/app.bsky.feed.post/x/y",
        "at://did:plc:/app.bsky.feed.post/x",
        "",
    ],
)
def test_a_reference_of_bad_syntax_is_never_asked_for(uri: str) -> None:
    bad = {"uri": uri, "cid": "bafy"}
    embed = {"$type": "app.bsky.embed.record", "record": bad}
    references = event_of({"reply": {"parent": bad, "root": GOOD}, "embed": embed}).references
    assert (references.parent, references.root) == (None, GOOD["uri"])
    assert references.quote is None


def test_a_mention_of_bad_syntax_is_never_asked_for() -> None:
    bad = {"features": [{"$type": "app.bsky.richtext.facet#mention", "did": "did:plc:a b"}]}
    assert event_of({"facets": [bad, MENTION]}).references.mentions == (OTHER,)


def test_whom_one_answers_or_quotes_is_not_mentioned() -> None:
    embed = {"$type": "app.bsky.embed.record", "record": GOOD}
    assert event_of({"reply": REPLY, "embed": embed}).references.mentions == ()


def test_the_longest_identifiers_pass() -> None:
    did = "did:web:" + "a" * 2000 + ".example"
    uri = f"at://{did}/app.bsky.feed.post/{'k' * 512}"
    reply = {"parent": {"uri": uri}, "root": {"uri": uri}}
    assert event_of({"reply": reply}).references.parent == uri
