"""A frame's lines as chunks: every line once, in order, within the bounds of a message."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.samples_archive import DIDS, T0, cursor_of, filters, kinds, line
from turbod.archive.format.hour_object import Damaged
from turbod.archive.reading.cutting import Item, cut, select, whole
from turbod.archive.reading.selection import Selection
from turbod.eventlog.chunk import MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Chunk, Gap
from turbod.filter import Filter
from turbod.record import head_of_line


def no_pause() -> None:
    pass


def joined(lines: list[bytes]) -> bytes:
    return b"".join(each + b"\n" for each in lines)


def chunks_of(lines: list[bytes], gaps: list[Gap] | None = None) -> list[Chunk]:
    return cut(joined(lines), after=T0 - 1, gaps=gaps or [], pause=no_pause)


def lines_of(items: list[Item], after: int = 0) -> list[bytes]:
    return [
        item.line(index)
        for item in items
        if isinstance(item, Chunk)
        for index in range(item.count_until(after), len(item))
    ]


def matching(lines: list[bytes], chosen: Filter) -> list[bytes]:
    return [each for each in lines if chosen.matches(head_of_line(each), len(each))]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([0, 0, 0, 3000, 200_000, 600_000]), min_size=1, max_size=250),
    st.sets(st.integers(0, 249), max_size=4),
)
def test_every_line_is_in_one_chunk_within_bounds_and_gaps_stand_before_their_records(
    paddings: list[int], gaps_at: set[int]
) -> None:
    short = [b'{"cursor":%d,"p":"%b"}' % (T0 + i, b"x" * p) for i, p in enumerate(paddings)]
    gaps = [Gap(T0 + at - 1, T0 + at, "lost") for at in sorted(gaps_at) if at < len(short)]
    chunks = chunks_of(short, gaps)
    assert lines_of([*chunks]) == short
    after = T0 - 1
    for chunk in chunks:
        assert chunk.after == after < chunk.cursor(0) <= chunk.cursor(len(chunk) - 1) == chunk.last
        assert len(chunk) <= MAX_CHUNK_RECORDS
        assert len(chunk) == 1 or len(chunk.array) <= MAX_CHUNK_BYTES
        assert json.loads(chunk.array) == [json.loads(line) for line in lines_of([chunk])]
        assert [chunk.size(i) for i in range(len(chunk))] == list(map(len, lines_of([chunk])))
        assert chunk.gap is None or chunk.gap.before == chunk.cursor(0)
        after = chunk.last
    assert [chunk.gap for chunk in chunks if chunk.gap is not None] == gaps


def test_a_chunk_is_as_big_as_it_may_be() -> None:
    assert [len(each) for each in chunks_of([line(T0 + i) for i in range(250)])] == [100, 100, 50]
    exact = MAX_CHUNK_BYTES // 4 - 1 - len(line(T0))
    lines = [line(T0 + i, padding=exact) for i in range(9)]
    assert [len(each) for each in chunks_of(lines)] == [3, 3, 3], "a byte too many for four"
    lines[3] = line(T0 + 3, padding=exact - 1)
    assert [len(each) for each in chunks_of(lines)] == [4, 3, 2]
    assert len(chunks_of(lines)[0].array) == MAX_CHUNK_BYTES


def test_a_line_that_begins_otherwise_is_found_by_its_cursor_all_the_same() -> None:
    odd = b'{"at_uri":"at://x", "cursor":%d}' % (T0 + 5)
    (chunk,) = chunks_of([odd])
    assert (chunk.last, chunk.cursor(0)) == (T0 + 5, T0 + 5)


@pytest.mark.parametrize(
    "lines",
    [
        [b"garbage"],
        [b'{"cursor":%d}' % (T0 - 1)],
        [line(T0 + 1000)] + [line(T0 + i) for i in range(101)],
        [line(T0 + i) for i in range(100)] + [b"{}"],
    ],
)
def test_lines_without_rising_cursors_are_damage(lines: list[bytes]) -> None:
    with pytest.raises(Damaged):
        chunks_of(lines)


def test_lines_that_are_checked_already_are_cut_alike() -> None:
    lines = b"".join(line(T0 + number) + b"\n" for number in range(250))
    gaps = [Gap(T0 + 119, T0 + 120, "lost")]
    one, other = (
        cut(lines, after=T0 - 1, gaps=gaps, is_checked=is_checked, pause=lambda: None)
        for is_checked in (False, True)
    )
    assert [(c.after, c.last, c.gap, c.array, c.ends) for c in one] == [
        (c.after, c.last, c.gap, c.array, c.ends) for c in other
    ]


@settings(max_examples=100, deadline=None)
@given(
    filters,
    st.lists(st.tuples(kinds, st.sampled_from(DIDS), st.sampled_from(DIDS)), min_size=1),
    st.integers(-1, 40),
    st.sets(st.integers(0, 30), max_size=3),
    st.integers(1, 5000),
)
def test_what_is_selected_is_what_the_filter_takes_and_every_gap(
    chosen: Filter,
    drawn: list[tuple[str, str, str]],
    position: int,
    gaps_at: set[int],
    max_bytes: int,
) -> None:
    lines = [
        line(T0 + i, kind=kind, did=did, about=about) for i, (kind, did, about) in enumerate(drawn)
    ]
    gaps = [Gap(T0 + at - 1, T0 + at, "lost") for at in sorted(gaps_at) if at < len(lines)]
    chunks = chunks_of(lines, gaps)
    after, items = T0 + position, []
    while after < chunks[-1].last:
        found = select(chunks, after, Selection(chosen), max_bytes=max_bytes, pause=no_pause)
        assert found.last > after
        assert found.size == sum(len(each) + 1 for each in lines_of(found.items))
        items += found.items
        after = found.last
    assert lines_of(items) == matching(lines[position + 1 :], chosen)
    assert [item for item in items if isinstance(item, Gap)] == gaps[
        sum(gap.before <= T0 + position for gap in gaps) :
    ]
    places = [item.before if isinstance(item, Gap) else item.last + 1 for item in items]
    assert places == sorted(places), "a gap stands before what comes behind it"


def test_a_candidate_that_is_no_record_is_damage() -> None:
    chunks = chunks_of([b'{"cursor":%d,"message":{}}' % T0])
    selection = Selection(Filter(operations=frozenset({"create"})))
    with pytest.raises(Damaged, match="no record"):
        select(chunks, 0, selection, max_bytes=1, pause=no_pause)


def test_everything_is_the_chunks_themselves_until_it_is_enough() -> None:
    chunks = chunks_of([line(T0 + i) for i in range(500)])
    found = whole(chunks, 0, max_bytes=1)
    assert found.items == chunks[:1]
    assert found.last == chunks[0].last
    found = whole(chunks, T0 + 150, max_bytes=len(chunks[1].array) + 1)
    assert found.items == chunks[1:3], "the first one begins below the position"
    assert lines_of(found.items, T0 + 150)[0] == line(T0 + 151)
    assert whole(chunks, chunks[-1].last, max_bytes=1).items == []
    assert [cursor_of(each) for each in lines_of([*chunks])] == [T0 + i for i in range(500)]
