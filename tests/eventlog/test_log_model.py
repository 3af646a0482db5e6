"""The log against a list: random appends, restarts, crashes with torn writes."""

import random
import tempfile
from pathlib import Path

import pytest
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
from turbod.eventlog.log import EventLog, Pruned

OFFSETS = st.sampled_from([0, 0, 0, 1, -1, HOUR // 3, HOUR, -2 * HOUR, 30 * HOUR, -(10**15)])
APPENDS = st.lists(OFFSETS, max_size=130)
CLOCK_STEPS = st.sampled_from([0, 0, HOUR // 2, HOUR, -HOUR, 7 * HOUR])
TORN = st.sampled_from([b"", b"\0" * 4096, b"\xff\xfe\n", b'{"cursor":', b"\n", b"{}\n"])
ROUND = st.tuples(CLOCK_STEPS, st.booleans(), APPENDS, st.booleans(), st.integers(0, 2))
Round = tuple[int, bool, list[int], bool, int]
LIFE = st.tuples(st.lists(ROUND, max_size=4), st.floats(0, 1), TORN)


@settings(max_examples=100, deadline=None)
@given(st.lists(LIFE, min_size=1, max_size=4), st.integers())
def test_whatever_happens_what_was_flushed_is_there_once_under_its_cursor(
    lives: list[tuple[list[Round], float, bytes]], seed: int
) -> None:
    """Rounds of appends, of which some end the hour then, and some release finished hours."""
    with tempfile.TemporaryDirectory() as folder:
        trio.run(Model(Path(folder), random.Random(seed)).live, lives)


class Model:
    """A log, and what must be true of it.

    Attributes:
        elsewhere: the records of released hours, as a sealed object has them.
        published: all records that were ever flushed.
        gaps: at which places in `published` a gap stands.
        ended: no cursor below it may be given.
    """

    def __init__(self, data: Path, draw: random.Random) -> None:
        self.data = data
        self.draw = draw
        self.clock = Clock(T0)
        self.elsewhere: Seen = []
        self.published: Seen = []
        self.gaps: list[int] = []
        self.ended = 0

    async def live(self, lives: list[tuple[list[Round], float, bytes]]) -> None:
        for rounds, torn_share, junk in lives:
            after = self.elsewhere[-1][0] if self.elsewhere else 0
            self.ended = after - after % HOUR + HOUR if after else 0
            async with running(self.data, clock=self.clock, after=after, ended=self.ended) as log:
                before = self.elsewhere + plain_scan(self.data)
                assert before == self.published, "repair leaves what was published, and no more"
                for one in rounds:
                    await self.round(log, *one)
                    await self.check_readers(log)
            _tear(self.data, torn_share, junk)

    async def round(
        self,
        log: EventLog,
        step: int,
        has_gap: object,
        offsets: list[int],
        ends: object,
        release: int,
    ) -> None:
        self.clock.now_us += step
        known = len(self.published)
        if has_gap and offsets:
            log.mark_gap("missing")
            self.gaps += [known] if known else []
        for number, offset in enumerate(offsets, start=known):
            log.append(record(number, time_us=self.clock.now_us + offset))
        await log.flush()
        self.published = self.elsewhere + plain_scan(self.data)
        assert len(self.published) == known + len(offsets), "each is in exactly one place"
        assert all(cursor >= self.ended for cursor, _ in self.published[known:])
        if ends and await log.end_hour():
            self.ended = log.head - log.head % HOUR + HOUR
            assert log.finished_hours()[-1].last == log.head
        for hour in log.finished_hours()[:release]:
            mine = [one for one in plain_scan(self.data) if 0 <= one[0] - hour.hour < HOUR]
            assert (hour.first, hour.last) == (mine[0][0], mine[-1][0])
            self.elsewhere += mine
            await log.release(hour.hour)

    async def check_readers(self, log: EventLog) -> None:
        cursors = [cursor for cursor, _ in self.published]
        assert cursors == sorted(set(cursors))
        lost = self.elsewhere[-1][0] if self.elsewhere else 0
        assert (log.head, log.lost) == (cursors[-1] if cursors else 0, lost)
        assert log.floor == (plain_scan(self.data) or [(lost + 1, b"")])[0][0] - 1
        for position in {0, lost, log.floor, *self.draw.choices(cursors or [0], k=3), log.head}:
            expected = [one for one in self.published if one[0] > position]
            gaps = [cursors[at] for at in self.gaps if cursors[at] > position]
            if log.in_memory(position):
                seen, found = await from_memory(log, position)
                assert (seen, [gap.before for gap in found]) == (expected, gaps)
                assert log.events_behind(position) == len(expected)
            assert log.retains(position) == (position >= lost)
            if log.retains(position):
                seen, found = await from_disk(log, position)
                assert (seen, [gap.before for gap in found]) == (expected, gaps)
            else:
                with pytest.raises(Pruned):
                    await log.read_chunks(position)


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
