"""Cursors as the writer gives them, and what one write holds."""

import json
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from tests.eventlog.samples import HOUR, T0, record
from turbod.cursor import following
from turbod.eventlog.batch import MAX_BATCH_RECORDS, next_batch
from turbod.eventlog.chunk import Gap
from turbod.record import Record

NOW = T0 + 10_000_000


def queue_of(*items: Record | str) -> deque[Record | str]:
    return deque(items)


@given(
    st.lists(st.integers(-2 * HOUR, 2 * HOUR)),
    st.integers(T0 - HOUR, T0 + HOUR),
    st.sampled_from([0, T0 - HOUR, T0, T0 + HOUR]),
)
def test_cursors_rise_and_each_record_lies_in_its_hour(
    offsets: list[int], last: int, sealed_end: int
) -> None:
    queue = queue_of(*(record(i, time_us=T0 + offset) for i, offset in enumerate(offsets)))
    parts, newest = next_batch(queue, last=last, ordinal=0, now_us=NOW, sealed_end=sealed_end)
    expected: list[int] = []
    for offset in offsets:
        before = expected[-1] if expected else last
        cursor = following(before, time_us=T0 + offset, now_us=NOW, sealed_end=sealed_end)
        expected.append(cursor)
    given_ = [
        (json.loads(text)["cursor"], part.hour) for part in parts for text in part.data.splitlines()
    ]
    assert [cursor for cursor, _ in given_] == expected
    assert all(hour <= cursor < hour + HOUR for cursor, hour in given_)
    assert not expected or expected[0] >= sealed_end
    assert newest == (expected[-1] if expected else last)
    assert [each for part in parts for each in part.intakes] == list(range(len(offsets)))


def test_chunks_follow_one_another_across_hours() -> None:
    times = [T0 + 1, T0 + HOUR + 1, T0 + HOUR + 2, T0 + 5 * HOUR]
    queue = queue_of(*(record(i, time_us=time) for i, time in enumerate(times)))
    parts, _ = next_batch(queue, last=T0, ordinal=7, now_us=T0 + 24 * HOUR)
    chunks = [each for part in parts for each in part.chunks]
    assert [part.hour for part in parts] == [T0, T0 + HOUR, T0 + 5 * HOUR]
    assert [each.after for each in chunks] == [T0, times[0], times[2]]
    assert [each.ordinal for each in chunks] == [7, 8, 10]


def test_a_gap_stands_before_its_record_and_begins_a_chunk() -> None:
    queue = queue_of(record(1), "lost", record(2), record(3))
    (part,), _ = next_batch(queue, last=T0, ordinal=0, now_us=NOW)
    assert part.gaps == [Gap(T0 + 1, T0 + 2, "lost")]
    assert [(each.gap, len(each)) for each in part.chunks] == [(None, 1), (part.gaps[0], 2)]


def test_in_an_empty_log_a_gap_means_nothing() -> None:
    (part,), _ = next_batch(queue_of("lost", record(2)), last=0, ordinal=0, now_us=NOW)
    assert part.gaps == []
    assert part.chunks[0].gap is None


def test_a_batch_is_bounded_and_leaves_no_gap_behind() -> None:
    records = [record(i) for i in range(MAX_BATCH_RECORDS + 1)]
    queue = queue_of(*records[:-1], "lost", records[-1])
    first, last = next_batch(queue, last=T0, ordinal=0, now_us=NOW)
    assert list(queue) == ["lost", records[-1]]
    assert sum(part.bodies for part in first) == sum(len(each.body) for each in records[:-1])
    second, _ = next_batch(queue, last=last, ordinal=MAX_BATCH_RECORDS, now_us=NOW)
    assert second[0].gaps[0].after == last
    big = queue_of(*(record(i, padding=900_000) for i in range(9)))
    assert (
        sum(len(part.intakes) for part in next_batch(big, last=T0, ordinal=0, now_us=NOW)[0]) == 5
    )
