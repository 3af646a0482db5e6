"""The newest chunks in memory."""

import random
from array import array

import pytest

from tests.eventlog.samples import T0, above, chunk, line
from turbod.eventlog.chunk import MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Chunk, Gap
from turbod.eventlog.cutter import Cutter
from turbod.eventlog.tail import Tail
from turbod.eventlog.texts import SharedTexts, TextBudget

MEGABYTE = 1024 * 1024


def walk(tail: Tail, position: int) -> list[Chunk]:
    chunks = []
    while each := tail.next_chunk(position):
        chunks.append(each)
        position = each.last
    return chunks


def filled(sizes: list[int], *, gaps: frozenset[int] = frozenset(), memory: int = 64) -> Tail:
    tail = Tail(memory_bytes=memory * MEGABYTE, start=T0)
    cursor = T0
    for number, size in enumerate(sizes):
        cursors = [cursor + 2 * (i + 1) for i in range(size)]
        gap = Gap(cursor, cursors[0], "missing") if number in gaps else None
        each = chunk(cursors, after=cursor, gap=gap)
        each.ordinal = tail.published
        tail.publish(each)
        cursor = cursors[-1]
    return tail


def test_every_position_reads_the_same_whether_small_chunks_were_merged_or_not() -> None:
    draw = random.Random(1)
    sizes = [draw.choice([1, 1, 2, 3, 40, 100]) for _ in range(120)]
    gaps = frozenset(draw.sample(range(120), 5))
    tail = filled(sizes, gaps=gaps)
    head, total = tail.head, sum(sizes)
    assert len(walk(tail, T0)) < len(sizes) / 2
    for position in range(T0, head, 131):
        seen, found = above(walk(tail, position), position)
        expected = [cursor for cursor in range(T0 + 2, head + 1, 2) if cursor > position]
        assert [cursor for cursor, _ in seen] == expected
        assert all(text == line(cursor) for cursor, text in seen)
        assert tail.count_after(position) == len(expected)
        if position == T0:
            assert len(found) == len(gaps)
    assert tail.records == tail.published == total
    assert tail.count_after(head) == 0


def test_merged_chunks_keep_the_bounds_of_a_message_and_gaps_begin_them() -> None:
    tail = filled([1] * 450, gaps=frozenset({130}))
    sizes = [len(each) for each in walk(tail, T0)]
    assert sizes[:3] == [100, 30, 100]
    assert max(sizes) == MAX_CHUNK_RECORDS
    assert [bool(each.gap) for each in walk(tail, T0)][:3] == [False, False, True]


def test_the_newest_chunks_are_left_as_they_were_published() -> None:
    """Whoever keeps up shares one frame a chunk, unless it is replaced under them."""
    tail = filled([1] * 100)
    newest = tail.next_chunk(tail.head - 1)
    for number in range(90):
        tail.publish(chunk([tail.head + 1], after=tail.head))
        assert tail.next_chunk(T0 + 199) is newest, number


def test_memory_is_bounded_and_the_start_says_from_where() -> None:
    tail = filled([50] * 200, memory=1)
    assert tail.bytes <= MEGABYTE
    assert tail.start > T0
    assert walk(tail, tail.start)[0].after == tail.start
    assert tail.records == sum(len(each) for each in walk(tail, tail.start))
    with pytest.raises(AssertionError):
        tail.next_chunk(tail.start - 1)


def test_one_chunk_stays_however_small_the_bound() -> None:
    tail = Tail(memory_bytes=1000, start=T0)
    tail.publish(chunk(range(T0 + 1, T0 + 50), after=T0))
    assert tail.next_chunk(T0) is not None


def test_a_chunk_that_is_not_the_next_one_stops_us() -> None:
    tail = filled([3])
    with pytest.raises(AssertionError):
        tail.publish(chunk([tail.head + 5], after=tail.head + 4))


def test_shared_texts_are_bounded_over_all_chunks_oldest_first() -> None:
    budget = TextBudget(100)
    holders = [SharedTexts(budget) for _ in range(5)]
    for holder in holders:
        holder["text"] = b"x" * 40
        assert budget.bytes <= 100
    assert [len(holder) for holder in holders] == [0, 0, 0, 1, 1]
    holders[4]["text"] = b"y"
    assert budget.bytes == 41
    budget.forget(holders[3])
    assert budget.bytes == 1
    holders[0]["too big"] = b"x" * 101
    assert budget.bytes == 0


def test_texts_go_with_their_chunks() -> None:
    tail = filled([50] * 3, memory=1)
    for each in walk(tail, tail.start):
        each.texts["text"] = b"x"
    for _ in range(200):
        tail.publish(chunk(range(tail.head + 1, tail.head + 51), after=tail.head))
    assert tail.texts.bytes == 0


def test_a_chunk_holds_at_most_512_kib_of_array_or_one_longer_record() -> None:
    cutter = Cutter(after=T0)
    sizes = [1000, MAX_CHUNK_BYTES - 1003, 10, MAX_CHUNK_BYTES, 5, 5]
    for number, size in enumerate(sizes):
        cutter.add((b"x" * size, b""), T0 + number + 1)
    cutter.close()
    assert [len(each) for each in cutter.chunks] == [2, 1, 1, 2]
    assert len(cutter.chunks[0].array) == MAX_CHUNK_BYTES
    assert [each.after for each in cutter.chunks[1:]] == [each.last for each in cutter.chunks[:-1]]
    assert cutter.chunks[0].size(1) == MAX_CHUNK_BYTES - 1003


def test_positions_inside_a_chunk_are_counted() -> None:
    each = chunk([T0 + 2, T0 + 4, T0 + 6], after=T0)
    counts = array("i", (each.count_until(T0 + offset) for offset in range(8)))
    assert list(counts) == [0, 0, 1, 1, 2, 2, 3, 3]
