"""Views cut out of AppView answers, and what they show."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from turbod.envelope import Malformed
from turbod.event import parse
from turbod.hydration.views import MAX_VIEW_BYTES, Kind, View, build_post, read_answer, read_view

ANN = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
BOB = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
CAT = "did:plc:cccccccccccccccccccccccc"


def uri(did: str, rkey: str = "3kaaaaaaaaaaa", collection: str = "app.bsky.feed.post") -> str:
    return f"at://{did}/{collection}/{rkey}"


def profile(did: str, **more: object) -> dict[str, Any]:
    return {"did": did, "handle": "a.test", **more}


def post(did: str, **more: object) -> dict[str, Any]:
    return {
        "uri": uri(did),
        "cid": "bafy",
        "author": profile(did),
        "record": {"text": "x", "author": profile(CAT)},
        "indexedAt": "2026-01-01T00:00:00Z",
        **more,
    }


def view_record(did: str, **more: object) -> dict[str, Any]:
    return {
        "$type": "app.bsky.embed.record#viewRecord",
        "uri": uri(did),
        "cid": "bafy",
        "author": profile(did),
        "value": {"text": "y", "did": CAT, "handle": "c.test"},
        **more,
    }


def answer(*raw: bytes | dict[str, Any], name: str = "profiles") -> bytes:
    items = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in raw]
    return b'{"cursor":"]}","' + name.encode() + b'": [' + b" ,\n".join(items) + b"]}"


def inside(view: dict[str, Any]) -> set[str]:
    return set(read_view(json.dumps(view).encode(), Kind.POST).inside)


def keys(body: bytes, kind: Kind = Kind.PROFILE) -> list[str]:
    return [view.key for view in read_answer(body, kind).views]


def test_a_view_keeps_its_bytes_but_for_line_breaks() -> None:
    raw = b'{ "handle":"a.test",\r\n "did":"' + ANN.encode() + b'","x":"\\u00e9\\n","n":1.0e2 }'
    (view,) = read_answer(answer(raw), Kind.PROFILE).views
    assert view == View(ANN, raw.replace(b"\r\n", b""), (ANN,))


def test_views_are_keyed_by_what_they_say_not_by_place() -> None:
    body = answer(profile(CAT), profile(ANN))
    assert keys(body) == [CAT, ANN]


def test_unknown_fields_pass_untouched() -> None:
    raw = json.dumps(profile(ANN, germ={"new": [1, {"$type": "x.y.z#w"}]})).encode()
    assert read_view(raw, Kind.PROFILE).data == raw


BAD_VIEWS = {
    "invalid UTF-8": b'{"did":"' + BOB.encode() + b'","handle":"\xff"}',
    "nests past what a decoder can": b'{"did":"'
    + BOB.encode()
    + b'","x":'
    + b"[" * 200_000
    + b"]" * 200_000
    + b"}",
    "nests deeper than 64": b'{"did":"' + BOB.encode() + b'","x":' + b"[" * 70 + b"]" * 70 + b"}",
    "mixed brackets, deep": b'{"did":"'
    + BOB.encode()
    + b'","x":'
    + b'[{"a":' * 9000
    + b"1"
    + b"}]" * 9000
    + b"}",
    "half a surrogate pair": b'{"did":"' + BOB.encode() + b'","x":"\\ud800"}',
    "control character": b'{"did":"' + BOB.encode() + b'","x":"\x01"}',
    "no number": b'{"did":"' + BOB.encode() + b'","x":NaN}',
    "larger than a view may be": b'{"did":"'
    + BOB.encode()
    + b'","x":"'
    + b"x" * MAX_VIEW_BYTES
    + b'"}',
    "no key": b'{"handle":"b.test"}',
    "a key of another type": b'{"did":7}',
    "a key of bad syntax": b'{"did":"did:plc:\\"]}"}',
    "a list": b"[[{}]]",
    "a number": b"7",
    "null": b"null",
    "an empty object": b"{}",
}


@pytest.mark.parametrize("bad", BAD_VIEWS.values(), ids=BAD_VIEWS.keys())
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_view_loses_only_itself(bad: bytes, place: int) -> None:
    good: list[bytes | dict[str, Any]] = [profile(ANN, note='"]}{['), profile(CAT, note="\\")]
    good.insert(place, bad)
    assert keys(answer(*good)) == [ANN, CAT]


def test_bad_views_are_counted() -> None:
    assert read_answer(answer(b"{}", profile(ANN), b"7"), Kind.PROFILE).malformed == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>502 Bad Gateway</body></html>",
        b"null",
        b"[]",
        b"{}",
        b'{"profiles":null}',
        b'{"profiles":{}}',
        b'{"posts":[]}',
        b'{"x":{"profiles":[]}}',
        b'{"profiles":[',
        b'{"profiles":[{"did":"' + ANN.encode(),
        b'{"profiles":[{"did":"' + ANN.encode() + b'"}',
        b'{"profiles":[{"did":"' + ANN.encode() + b'"}]',
        b'{"profiles":["' + b'\\"' * 300_000,
        b'{"profiles":[' + b'"",' * 300_000 + b'"\x01"]}',
    ],
    ids=range(15),
)
def test_an_answer_that_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_answer(body, Kind.PROFILE)


def test_every_cut_of_an_answer_is_malformed() -> None:
    """Nothing of an answer cut short is taken for the whole: the missing would seem deleted."""
    body = answer(profile(ANN, x=["}"]), b'{"x":"\\ud800"}', profile(BOB))
    for size in range(len(body)):
        with pytest.raises(Malformed):
            read_answer(body[:size], Kind.PROFILE)


def test_a_post_shows_itself_and_its_author_not_what_its_record_says() -> None:
    assert inside(post(ANN)) == {uri(ANN), ANN}


def test_the_key_comes_first_and_each_reference_once() -> None:
    raw = json.dumps(post(ANN, embed={"record": view_record(ANN)})).encode()
    assert read_view(raw, Kind.POST).inside == (uri(ANN), ANN)


def test_quotes_are_shown_at_any_depth_beside_media_too() -> None:
    inner = {"$type": "app.bsky.embed.record#view", "record": view_record(CAT)}
    middle = {
        "$type": "app.bsky.embed.recordWithMedia#view",
        "media": {"images": [{"thumb": "x"}]},
        "record": {"record": view_record(BOB, embeds=[inner])},
    }
    shown = {uri(ANN), ANN, uri(BOB), BOB, uri(CAT), CAT}
    assert inside(post(ANN, embed=middle)) == shown


@pytest.mark.parametrize("state", ["notFound", "blocked", "detached"])
def test_what_is_hidden_is_not_shown(state: str) -> None:
    hidden = {"uri": uri(BOB), state: True, "author": {"did": BOB, "handle": "b.test"}}
    assert inside(post(ANN, embed={"record": hidden})) == {uri(ANN), ANN}


@pytest.mark.parametrize(
    "collection",
    ["app.bsky.feed.generator", "app.bsky.graph.list", "app.bsky.graph.starterpack"],
)
def test_a_generator_list_or_starter_pack_shows_its_creator(collection: str) -> None:
    it = {"uri": uri(BOB, "x", collection), "cid": "bafy", "creator": profile(CAT), "record": {}}
    shown = {uri(ANN), ANN, uri(BOB, "x", collection), CAT}
    assert inside(post(ANN, embed={"record": it})) == shown


def test_labels_pins_and_verifications_show_nobody() -> None:
    raw = profile(
        ANN,
        labels=[{"src": BOB, "uri": uri(BOB), "val": "x"}],
        pinnedPost={"uri": uri(CAT), "cid": "bafy"},
        verification={"verifications": [{"issuer": BOB, "uri": uri(BOB)}]},
    )
    assert read_view(json.dumps(raw).encode(), Kind.PROFILE).inside == (ANN,)


def test_references_of_bad_syntax_are_not_shown() -> None:
    bad = {"uri": "at://x", "author": {"did": "did:plc:\n", "handle": 7}}
    assert inside(post(ANN, embed={"record": bad})) == {uri(ANN), ANN}


def created(record: dict[str, Any], cid: str | None = "bafyreia") -> bytes:
    commit = {"rev": "3k", "operation": "create", "collection": "app.bsky.feed.post"}
    commit |= {"rkey": "3kaaaaaaaaaaa", "record": record}  # type: ignore[dict-item]
    if cid:
        commit["cid"] = cid
    return json.dumps({"did": ANN, "time_us": 1, "kind": "commit", "commit": commit}).encode()


DETAILED = (
    b'{"did":"' + ANN.encode() + b'","handle":"a.test","displayName":"\\u0041","followersCount":7,'
    b'"associated":{"chat":{"allowIncoming":"all"}},"labels":[ ],"viewer":{"muted":true},'
    b'"description":"long","createdAt":"2026-01-01T00:00:00Z"}'
)


def test_a_built_post_is_a_post_view_of_the_events_own_bytes() -> None:
    message = created({}).replace(b'"record": {}', b'"record": {"text":"\\u0041\\n", "n": 1.0}')
    built = build_post(parse(message), DETAILED, "2026-02-02T02:02:02.000Z")
    assert built == (
        b'{"uri":"'
        + uri(ANN).encode()
        + b'","cid":"bafyreia","author":{"did":"'
        + ANN.encode()
        + b'","handle":"a.test","displayName":"\\u0041",'
        b'"associated":{"chat":{"allowIncoming":"all"}},"labels":[ ],'
        b'"createdAt":"2026-01-01T00:00:00Z"},"record":{"text":"\\u0041\\n", "n": 1.0},'
        b'"bookmarkCount":0,"replyCount":0,"repostCount":0,"likeCount":0,"quoteCount":0,'
        b'"indexedAt":"2026-02-02T02:02:02.000Z","labels":[]}'
    )
    view = read_view(built, Kind.POST)
    assert (view.key, view.data, view.inside) == (uri(ANN), built, (uri(ANN), ANN))


def test_a_post_without_a_cid_cannot_be_built() -> None:
    assert build_post(parse(created({}, cid=None)), DETAILED, "2026-02-02T02:02:02Z") is None


def labels_of(record: dict[str, Any]) -> list[dict[str, str]]:
    built = build_post(parse(created(record)), DETAILED, "2026-02-02T02:02:02Z")
    assert built is not None
    labels: list[dict[str, str]] = json.loads(built)["labels"]
    return labels


def test_self_labels_take_the_form_of_labels() -> None:
    labels = {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "porn"}]}
    expected = {"src": ANN, "uri": uri(ANN), "cid": "bafyreia", "val": "porn"}
    record = {"labels": labels, "createdAt": "2026-01-01T00:00:00.1Z"}
    assert labels_of(record) == [expected | {"cts": "2026-01-01T00:00:00.1Z"}]
    record = {"labels": labels, "createdAt": "yesterday"}
    assert labels_of(record) == [expected | {"cts": "2026-02-02T02:02:02Z"}]


@pytest.mark.parametrize(
    "labels",
    [None, [], {}, 7, {"values": None}, {"values": {}}, {"values": [None, {}, {"val": 7}, [], ""]},
     {"values": [{"val": "x" * 129}]}, {"values": [{"val": ""}]}],
    ids=range(9),
)  # fmt: skip
def test_garbage_for_labels_is_no_label(labels: object) -> None:
    assert labels_of({"labels": labels}) == []


def test_self_labels_are_bounded() -> None:
    assert len(labels_of({"labels": {"values": [{"val": "x"}] * 1000}})) == 10


# The captured network -----------------------------------------------------------------------


def captured(captures: Path, name: str) -> list[bytes]:
    return (captures / "network-1" / name).read_bytes().splitlines()


def plain_walk(node: Any) -> Iterator[str]:
    """Everything a view shows, written after the lexicons and not after the code under test."""
    match node:
        case list():
            for child in node:
                yield from plain_walk(child)
        case {"notFound": True} | {"blocked": True} | {"detached": True}:
            return
        case dict():
            if {"did", "handle"} <= node.keys():
                yield node["did"]
            if "uri" in node and (node.keys() & {"author", "creator"}):
                yield node["uri"]
            for name, child in node.items():
                if name not in {"record", "value"} or "cid" not in node:
                    yield from plain_walk(child)


@pytest.mark.parametrize(
    ("file", "kind"), [("posts.jsonl", Kind.POST), ("profiles.jsonl", Kind.PROFILE)]
)
def test_captured_views_survive_byte_for_byte(captures: Path, file: str, kind: Kind) -> None:
    lines = captured(captures, file)
    for start in range(0, len(lines), 25):
        chunk = lines[start : start + 25]
        body = b'{"' + kind.array.encode() + b'":[' + b",".join(chunk) + b"]}"
        views = read_answer(body, kind).views
        assert [view.data for view in views] == chunk
        for view, line in zip(views, chunk, strict=True):
            shown = set(plain_walk(json.loads(line)))
            assert set(view.inside) == shown
            assert view.inside[0] == view.key == json.loads(line)[kind.key]


def test_captured_posts_cut_by_brackets_alone_are_the_same(captures: Path) -> None:
    """One bad view among 25 sends an answer through the second way of cutting."""
    lines = captured(captures, "posts.jsonl")
    poisoned = b'{"posts":[' + b",".join([*lines[:200], b'{"x":"\\ud800"}']) + b"]}"
    found = read_answer(poisoned, Kind.POST)
    assert [view.data for view in found.views] == lines[:200]
    assert found.malformed == 1


def test_a_post_built_from_a_captured_event_says_what_the_appview_said(captures: Path) -> None:
    """Same key, CID and author keys, and the same record, as the view that came later."""
    views = {
        json.loads(line)["uri"]: json.loads(line) for line in captured(captures, "posts.jsonl")
    }
    profiles = {json.loads(line)["did"]: line for line in captured(captures, "profiles.jsonl")}
    compared = 0
    for line in captured(captures, "events.jsonl"):
        event = parse(line)
        view = views.get(event.at_uri)
        if event.operation != "create" or view is None or event.cid != view["cid"]:
            continue
        built = build_post(event, profiles[event.did], view["indexedAt"])
        assert built is not None
        theirs = {name: value for name, value in view.items() if name in msgspec.json.decode(built)}
        ours = json.loads(built)
        assert ours["record"] == theirs["record"]
        assert ours["author"]["displayName"] == theirs["author"]["displayName"]
        assert list(ours) == [name for name in view if name != "embed"]
        compared += 1
    assert compared > 800
