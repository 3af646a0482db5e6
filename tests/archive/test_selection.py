"""What the index and a line's head rule out is nothing that the filter itself would select."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.samples_archive import (
    COLLECTIONS,
    DIDS,
    FOLLOW,
    LIKE,
    OTHER,
    POST,
    T0,
    dids,
    filters,
    kinds,
    line,
    operations,
)
from turbod.archive.format import did_filter
from turbod.archive.format.index import Frame, Index, collection_of
from turbod.archive.reading.selection import Selection
from turbod.filter import EVERYTHING, Filter, shard_number
from turbod.record import head_of_line

lines = st.builds(
    line,
    st.integers(T0, T0 + 1000),
    did=dids,
    kind=kinds,
    operation=operations,
    about=dids,
    padding=st.sampled_from([0, 400]),
    is_escaped=st.booleans(),
)


def frame(held: list[bytes], *, first: int = T0, last: int = T0 + 1) -> Frame:
    heads = [head_of_line(each) for each in held]
    named = {did for head in heads for did in (head.did, *head.about)}
    return Frame(
        offset=0,
        size=1,
        sha256="",
        raw_bytes=1,
        records=len(heads),
        first=first,
        last=last,
        collections=sorted({collection_of(head) for head in heads}),
        dids=did_filter.build(named),
    )


def index(frames: list[Frame]) -> Index:
    return Index(
        format=1,
        instance="here",
        hour="2026-11-20T10",
        first=T0,
        last=T0 + 1,
        previous=0,
        records=1,
        raw_bytes=1,
        sha256="",
        collections={name: 1 for each in frames for name in each.collections},
        frames=frames,
        gaps=[],
        upstreams=[],
        turbod="",
    )


def passes(chosen: Filter, text: bytes) -> bool:
    around = b"[" + text + b"," + text + b"]"
    selection = Selection(chosen)
    passed = selection.may_match(around, 1, 1 + len(text))
    assert passed == selection.may_match(around, len(text) + 2, len(around) - 1)
    return passed


def frames(chosen: Filter, held: Index, *, after: int = 0) -> list[int]:
    found = []
    while (number := Selection(chosen).next_frame(held, after)) is not None:
        found.append(number)
        after = held.frames[number].last
    return found


@settings(max_examples=500, deadline=None)
@given(filters, st.lists(lines, min_size=1, max_size=5))
def test_nothing_that_the_filter_selects_is_ruled_out(chosen: Filter, held: list[bytes]) -> None:
    selection = Selection(chosen)
    for each in held:
        if chosen.matches(head_of_line(each), len(each)):
            assert passes(chosen, each)
            assert selection.wants(frame(held))
            assert selection.next_frame(index([frame(held)]), 0) == 0


@pytest.mark.parametrize(
    ("chosen", "kind", "expected"),
    [
        (Filter(collections=frozenset({POST})), POST, True),
        (Filter(collections=frozenset({POST})), LIKE, False),
        (Filter(collections=frozenset({POST})), "identity", True),
        (Filter(collections=frozenset({POST}), kinds=frozenset({"commit"})), "account", False),
        (Filter(prefixes=("app.bsky.graph.",)), FOLLOW, True),
        (Filter(prefixes=("app.bsky.graph.",)), POST, False),
        (Filter(kinds=frozenset({"identity", "account"})), POST, False),
        (Filter(dids=frozenset({DIDS[0]})), POST, True),
        (Filter(dids=frozenset({DIDS[1]})), POST, False),
        (Filter(dids=frozenset({DIDS[1]})), "identity", False),
        (Filter(about=frozenset({DIDS[1]})), POST, True),
        (Filter(about=frozenset({DIDS[1]})), OTHER, False),
        (Filter(about=frozenset(DIDS)), OTHER, True),  # the author's is among all that it names
        (Filter(dids=frozenset({DIDS[0]}), about=frozenset({DIDS[5]})), OTHER, True),
        (Filter(max_size_bytes=100), POST, False),
        (Filter(shard=(shard_number(DIDS[0]) % 7, 7)), POST, True),
        (Filter(shard=((shard_number(DIDS[0]) + 1) % 7, 7)), POST, False),
    ],
)
def test_a_line_is_judged_by_its_head(chosen: Filter, kind: str, *, expected: bool) -> None:
    assert passes(chosen, line(T0, kind=kind)) == expected


@pytest.mark.parametrize("others", [0, 20])
def test_a_did_that_is_written_in_escapes_is_not_overlooked(others: int) -> None:
    chosen = Filter(about=frozenset([DIDS[1], *(f"did:web:x{i}" for i in range(others))]))
    for is_escaped in (False, True):
        text = line(T0, kind=FOLLOW, about=DIDS[1], is_escaped=is_escaped)
        assert chosen.matches(head_of_line(text), len(text))
        assert passes(chosen, text)
    assert not passes(chosen, line(T0, kind=FOLLOW, about=DIDS[2]))


@pytest.mark.parametrize(
    "text",
    [
        b'{"cursor":1795168800000000, "at_uri":"at://did:plc:x/a.b.c/d"}',
        b'{"at_uri":"at://did:plc:x/a.b.c/d","cursor":1795168800000000}',
        b'{"cursor":1795168800000000,"at_uri":"at://did\\u003aplc:x/a.b.c/d"}',
        b"{}",
        b"",
    ],
)
def test_a_line_that_looks_otherwise_passes(text: bytes) -> None:
    assert passes(Filter(dids=frozenset({DIDS[0]}), collections=frozenset({POST})), text)


def test_frames_are_chosen_by_cursor_collection_and_did() -> None:
    posts = frame([line(T0, did=DIDS[0])], first=T0, last=T0 + 10)
    likes = frame([line(T0, did=DIDS[1], kind=LIKE, about=DIDS[2])], first=T0 + 11, last=T0 + 20)
    held = index([posts, likes])
    assert frames(EVERYTHING, held) == [0, 1]
    assert frames(EVERYTHING, held, after=T0 + 10) == [1]
    assert frames(EVERYTHING, held, after=T0 + 20) == []
    assert frames(Filter(collections=frozenset({LIKE})), held) == [1]
    assert frames(Filter(dids=frozenset({DIDS[0]})), held) == [0]
    assert frames(Filter(about=frozenset({DIDS[2]})), held) == [1]
    assert frames(Filter(collections=frozenset({FOLLOW})), held) == []
    assert frames(Filter(kinds=frozenset({"identity"})), held) == []


def test_verdicts_on_collections_are_bounded() -> None:
    selection = Selection(Filter(collections=frozenset({POST})))
    for number in range(10_000):
        assert not selection.may_match(line(T0, kind=f"com.example.t{number}"), 0, 10**6)
    assert len(selection._verdicts) <= 4096
    assert all(selection.may_match(line(T0, kind=name), 0, 10**6) for name in COLLECTIONS[:1])
