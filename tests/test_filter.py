import hashlib
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbod.filter import (
    EVERYTHING,
    RECORDS_PARAMETERS,
    STREAM_PARAMETERS,
    Filter,
    InvalidRequest,
    Options,
    read_options_update,
    read_query,
    shard_number,
)
from turbod.record import Head

SERVED = ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.*")
DID = "did:plc:skgh7tzgwbtzz4zieiy6zlfz"
OTHER = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
WEB = "did:web:example.com"


def read(query: str) -> Options:
    return read_query(query, known=STREAM_PARAMETERS, served=SERVED)


def update(payload: object, **more: object) -> Filter:
    message = json.dumps({"type": "options_update", "payload": payload, **more}).encode()
    return read_options_update(message, served=SERVED, shard=(1, 2))


def head(**fields: Any) -> Head:
    given: dict[str, Any] = {
        "cursor": 1,
        "did": DID,
        "kind": "commit",
        "operation": "create",
        "collection": "app.bsky.feed.post",
        "about": (),
    }
    return Head(**given | fields)


def test_no_parameters_leave_nothing_out() -> None:
    assert read("") == Options()
    assert read("").filter == EVERYTHING


def test_every_parameter_is_read() -> None:
    query = urlencode(
        [
            ("cursor", "-15m"),
            ("wantedCollections", "app.bsky.feed.post"),
            ("wantedCollections", "app.bsky.graph.*"),
            ("wantedDids", DID),
            ("wantedDids", WEB),
            ("aboutDids", OTHER),
            ("kinds", "commit"),
            ("operations", "create"),
            ("operations", "delete"),
            ("maxMessageSizeBytes", "1000"),
            ("batch", "7"),
            ("shard", "3/8"),
            ("compress", "zstd"),
            ("metadata", "false"),
            ("requireHello", "true"),
        ]
    )
    assert read(query) == Options(
        filter=Filter(
            collections=frozenset({"app.bsky.feed.post"}),
            prefixes=("app.bsky.graph.",),
            dids=frozenset({DID, WEB}),
            about=frozenset({OTHER}),
            kinds=frozenset({"commit"}),
            operations=frozenset({"create", "delete"}),
            max_size_bytes=1000,
            shard=(3, 8),
        ),
        cursor="-15m",
        batch=7,
        compress=True,
        metadata=False,
        require_hello=True,
    )


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("wanted=1", "wanted"),
        ("limit=1", "limit"),
        ("Cursor=0", "Cursor"),
        ("cursor=0&cursor=0", "cursor"),
        ("batch=0", "batch"),
        ("batch=101", "batch"),
        ("batch=", "batch"),
        ("batch=+5", "batch"),
        ("batch=%D9%A3", "batch"),
        ("batch=1&batch=2", "batch"),
        ("maxMessageSizeBytes=-1", "maxMessageSizeBytes"),
        ("maxMessageSizeBytes=1e3", "maxMessageSizeBytes"),
        ("maxMessageSizeBytes=99999999999999999999", "maxMessageSizeBytes"),
        ("compress=true", "compress"),
        ("compress=gzip", "compress"),
        ("metadata=0", "metadata"),
        ("metadata=True", "metadata"),
        ("requireHello=yes", "requireHello"),
        ("requireHello", "requireHello"),
        ("kinds=commits", "kinds"),
        ("kinds=", "kinds"),
        ("kinds=commit,identity", "kinds"),
        ("operations=insert", "operations"),
        ("wantedDids=bob.example", "wantedDids"),
        ("wantedDids=", "wantedDids"),
        ("aboutDids=did:plc:", "aboutDids"),
        ("wantedCollections=*", "wantedCollections"),
        ("wantedCollections=.*", "wantedCollections"),
        ("wantedCollections=app.bsky.feed.po*", "wantedCollections"),
        ("wantedCollections=app.bsky", "wantedCollections"),
        ("wantedCollections=app.bsky.feed.repost", "wantedCollections"),
        ("wantedCollections=app.bsky.actor.*", "wantedCollections"),
        ("wantedCollections=app.bsky.feed.post.*", "wantedCollections"),
        ("shard=8/8", "shard"),
        ("shard=0/0", "shard"),
        ("shard=0/1025", "shard"),
        ("shard=00/2", "shard"),
        ("shard=-1/2", "shard"),
        ("shard=1", "shard"),
        ("cursor=%FF", "query"),
    ],
)
def test_what_cannot_be_is_refused_by_name(query: str, parameter: str) -> None:
    with pytest.raises(InvalidRequest, match=parameter):
        read(query)


def test_each_list_has_its_limit() -> None:
    dids = [f"did:web:n{n}.example" for n in range(10_001)]
    for name in ("wantedDids", "aboutDids"):
        assert read(urlencode([(name, did) for did in dids[:10_000]])).filter.did_count == 10_000
        with pytest.raises(InvalidRequest, match=f"{name} has 10001"):
            read(urlencode([(name, did) for did in dids]))
    names = [("wantedCollections", "app.bsky.feed.post")] * 101
    assert read(urlencode(names[:100])).filter.collections == {"app.bsky.feed.post"}
    with pytest.raises(InvalidRequest, match="wantedCollections was given 101"):
        read(urlencode(names))


def test_pages_know_a_limit_and_no_batch() -> None:
    known = RECORDS_PARAMETERS
    assert read_query("limit=1000", known=known, served=SERVED).limit == 1000
    for query in ("limit=0", "limit=1001", "batch=1", "metadata=false", "requireHello=true"):
        with pytest.raises(InvalidRequest):
            read_query(query, known=known, served=SERVED)


@pytest.mark.parametrize(
    ("wanted", "served", "is_possible"),
    [
        ("app.bsky.feed.post", "app.bsky.feed.post", True),
        ("app.bsky.feed.post", "app.bsky.feed.*", True),
        ("app.bsky.feed.*", "app.bsky.feed.post", True),
        ("app.bsky.*", "app.bsky.feed.*", True),
        ("app.bsky.feed.*", "app.bsky.*", True),
        ("app.bsky.feed.*", "app.bsky.feeds.post", False),
        ("app.bsky.feed.post", "app.bsky.feed.like", False),
        ("app.bsky.feed.post", "app.bsky.fee.*", False),
    ],
)
def test_a_collection_must_be_able_to_match(
    wanted: str,
    served: str,
    is_possible: bool,  # noqa: FBT001 - a row of the table
) -> None:
    query = f"wantedCollections={wanted}"
    if is_possible:
        read_query(query, known=STREAM_PARAMETERS, served=(served,))
    else:
        with pytest.raises(InvalidRequest, match="matches nothing"):
            read_query(query, known=STREAM_PARAMETERS, served=(served,))


@pytest.mark.parametrize(("did", "of_8", "of_1024"), [(DID, 5, 685), (WEB, 5, 861)])
def test_shards_are_those_of_the_protocol(did: str, of_8: int, of_1024: int) -> None:
    assert shard_number(did) % 8 == of_8
    assert Filter(shard=(of_1024, 1024)).matches(head(did=did), 1)
    assert not Filter(shard=(of_1024 - 1, 1024)).matches(head(did=did), 1)


def test_an_update_replaces_all_but_the_shard() -> None:
    chosen = update({"wantedDids": [DID], "kinds": ["commit"], "maxMessageSizeBytes": 5})
    assert chosen == Filter(
        dids=frozenset({DID}), kinds=frozenset({"commit"}), max_size_bytes=5, shard=(1, 2)
    )
    assert update({}) == Filter(shard=(1, 2))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"{}",
        b"[" * 100_000,
        b'{"type":"options_update"}',
        b'{"type":"options_update","payload":[]}',
        b'{"type":"options_update","payload":null}',
        b'{"type":"options","payload":{}}',
        b'{"type":"options_update","payload":{},"more":1}',
        b'{"type":"options_update","payload":{"cursor":0}}',
        b'{"type":"options_update","payload":{"wantedDids":"did:web:a.example"}}',
        b'{"type":"options_update","payload":{"wantedDids":null}}',
        b'{"type":"options_update","payload":{"wantedDids":[1]}}',
        b'{"type":"options_update","payload":{"wantedDids":["bob"]}}',
        b'{"type":"options_update","payload":{"wantedCollections":["app.bsky.actor.profile"]}}',
        b'{"type":"options_update","payload":{"maxMessageSizeBytes":"5"}}',
        b'{"type":"options_update","payload":{"maxMessageSizeBytes":true}}',
        b'{"type":"options_update","payload":{"maxMessageSizeBytes":-1}}',
        b'{"type":"options_update","payload":{"maxMessageSizeBytes":1e99}}',
    ],
)
def test_what_is_no_options_update_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_options_update(message, served=SERVED, shard=None)


def test_a_refusal_shows_little_and_only_ascii_of_what_was_sent() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(urlencode([("kinds", "\r\né" + "x" * 10_000)]))
    assert str(refused.value).isascii()
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


def test_equal_filters_are_equal_however_they_were_written() -> None:
    one = read("kinds=commit&kinds=identity&kinds=account&wantedDids=" + DID).filter
    other = read(f"wantedDids={DID}&wantedDids={DID}").filter
    assert one == other
    assert hash(one) == hash(other)


DIDS = [DID, OTHER, WEB]
COLLECTIONS = ["app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"]
HEADS = st.builds(
    head,
    did=st.sampled_from(DIDS),
    kind=st.sampled_from(["commit", "identity", "account"]),
    operation=st.sampled_from(["create", "update", "delete"]),
    collection=st.sampled_from(COLLECTIONS),
    about=st.lists(st.sampled_from(DIDS), unique=True).map(tuple),
).map(
    lambda one: (
        one
        if one.kind == "commit"
        else head(did=one.did, kind=one.kind, operation="", collection="")
    )
)


def some(*values: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), unique=True)


PAYLOADS = st.fixed_dictionaries(
    {
        "wantedCollections": some("app.bsky.feed.post", "app.bsky.feed.*", "app.bsky.graph.*"),
        "wantedDids": some(*DIDS),
        "aboutDids": some(*DIDS),
        "kinds": some("commit", "identity", "account"),
        "operations": some("create", "update", "delete"),
        "maxMessageSizeBytes": st.sampled_from([0, 10, 20]),
    }
)


def by_the_words(payload: dict[str, Any], one: Head, size: int, shard: tuple[int, int]) -> bool:
    """The protocol's table, row by row, without a thought for speed."""
    collections, dids, about = (
        payload[name] for name in ("wantedCollections", "wantedDids", "aboutDids")
    )
    rows = []
    if one.kind == "commit":
        rows.append(
            not collections
            or any(
                one.collection.startswith(name[:-1])
                if name.endswith("*")
                else one.collection == name
                for name in collections
            )
        )
        rows.append(not payload["operations"] or one.operation in payload["operations"])
    if dids or about:
        rows.append(one.did in dids or any(did in about for did in one.about))
    rows.append(not payload["kinds"] or one.kind in payload["kinds"])
    rows.append(not payload["maxMessageSizeBytes"] or size <= payload["maxMessageSizeBytes"])
    digest = hashlib.sha256(one.did.encode()).hexdigest()
    rows.append(int(digest[:16], 16) % shard[1] == shard[0])
    return all(rows)


@given(
    payload=PAYLOADS, one=HEADS, size=st.integers(1, 30), shard=st.sampled_from([(0, 1), (1, 2)])
)
def test_a_filter_matches_what_the_protocol_says(
    payload: dict[str, Any], one: Head, size: int, shard: tuple[int, int]
) -> None:
    message = json.dumps({"type": "options_update", "payload": payload}).encode()
    chosen = read_options_update(message, served=SERVED, shard=shard)
    assert chosen.matches(one, size) == by_the_words(payload, one, size, shard)
    query = [
        (name, value)
        for name, values in payload.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    same = read(urlencode([*query, ("shard", f"{shard[0]}/{shard[1]}")]))
    assert same.filter == chosen
    if chosen.matches(one, size) and chosen.all_dids is not None:
        assert not chosen.all_dids.isdisjoint({one.did, *one.about})
