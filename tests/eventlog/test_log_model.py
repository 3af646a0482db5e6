"""The log against a list: random appends, restarts, crashes with torn writes."""

import random
import tempfile
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eventlog.samples import (
    HOUR,
    T0,
    Clock,
    Seen,
    from_disk,
    from_memory,
    line,
    plain_scan,
    record,
    running,
)
from turbod.eventlog.log import EventLog

OFFSETS = st.sampled_from([0, 0, 0, 1, -1, HOUR // 3, HOUR, -2 * HOUR, 30 * HOUR, -(10**15)])
APPENDS = st.lists(OFFSETS, min_size=1, max_size=130)
CLOCK_STEPS = st.sampled_from([0, 0, HOUR // 2, HOUR, -HOUR, 7 * HOUR])
TORN = st.sampled_from([b"", b"\0" * 4096, b"\xff\xfe\n", b'{"cursor":', b"\n", b"{}\n"])
LIFE = st.tuples(
    CLOCK_STEPS,
    st.lists(st.tuples(st.booleans(), APPENDS), max_size=4),
    st.floats(0, 1),
    TORN,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LIFE, min_size=1, max_size=4), st.integers())
def test_whatever_happens_what_was_flushed_is_there_once_under_its_cursor(
    lives: list[tuple[int, list[tuple[bool, list[int]]], float, bytes]], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_live, Path(folder), lives, random.Random(seed))


async def _live(
    data: Path,
    lives: list[tuple[int, list[tuple[bool, list[int]]], float, bytes]],
    draw: random.Random,
) -> None:
    published: Seen = []
    gaps = 0
    clock = Clock(T0)
    number = 0
    for step, rounds, torn_share, junk in lives:
        clock.now_us += step
        async with running(data, clock=clock) as log:
            before = plain_scan(data)
            assert before == published, "repair leaves what was published, and nothing else"
            for has_gap, offsets in rounds:
                if has_gap:
                    log.mark_gap("missing")
                    gaps += log.head > 0
                for offset in offsets:
                    number += 1
                    log.append(record(number, time_us=clock.now_us + offset))
                await log.flush()
            published = plain_scan(data)
            assert len(published) == number
            await _check_readers(log, published, gaps, draw)
        _tear(data, torn_share, junk)


async def _check_readers(log: EventLog, published: Seen, gaps: int, draw: random.Random) -> None:
    cursors = [cursor for cursor, _ in published]
    assert cursors == sorted(set(cursors))
    assert (log.head, log.floor) == ((cursors[-1], cursors[0] - 1) if cursors else (0, 0))
    for position in {log.floor, *draw.choices(cursors or [0], k=3), log.head}:
        expected = [one for one in published if one[0] > position]
        memory, disk = await from_memory(log, position), await from_disk(log, position)
        assert memory[0] == disk[0] == expected
        assert [gap.before for gap in memory[1]] == [gap.before for gap in disk[1]]
        assert log.events_behind(position) == len(expected)
        if position == log.floor:
            assert len(disk[1]) == gaps


def _tear(data: Path, share: float, junk: bytes) -> None:
    """Leave what a write that was never synced may leave: a part of a line, zeros, garbage."""
    files = sorted((data / "live").glob("*T??.jsonl"))
    if files:
        unwritten = line(T0 + 400 * HOUR) + b"\n"
        with files[-1].open("ab") as file:
            file.write(unwritten[: int(len(unwritten) * share)] + junk)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), TORN, st.booleans())
def test_a_file_cut_at_any_byte_keeps_the_whole_lines_before(
    share: float,
    junk: bytes,
    two_hours: bool,  # noqa: FBT001 - drawn
) -> None:
    async def live(data: Path) -> None:
        async with running(data) as log:
            for number in range(20):
                hour = HOUR if two_hours and number >= 10 else 0
                log.append(record(number, time_us=T0 + hour + number))
            await log.flush()
        path = max((data / "live").iterdir())
        before, content = plain_scan(data), path.read_bytes()
        cut = int(len(content) * share)
        path.write_bytes(content[:cut] + junk)
        kept = len(before) - content.count(b"\n") + content[:cut].count(b"\n")
        if content[cut : cut + 1] == b"\n" and junk.startswith(b"\n"):
            kept += 1
        async with running(data) as log:
            assert plain_scan(data) == before[:kept]
            assert log.head == (before[kept - 1][0] if kept else 0)
            log.append(record(99))
            await log.flush()
            assert len((await from_disk(log, log.floor))[0]) == kept + 1

    with tempfile.TemporaryDirectory() as folder:
        trio.run(live, Path(folder))
