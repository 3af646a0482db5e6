"""One log from the oldest object to memory: no seam, whatever moves on under a reader."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import structlog.testing
import trio
import trio.testing
from trio.testing import MockClock

from tests.archive.samples_archive import (
    Archive,
    gaps_above,
    lines_above,
    matching,
)
from tests.eventlog.samples import DIDS, HOUR, T0, Clock, record
from turbod.archive.reading.history import History
from turbod.archive.reading.whole_log import WholeLog
from turbod.archive.sealing import seal
from turbod.config import LogSettings
from turbod.eventlog.chunk import Chunk, Gap
from turbod.eventlog.log import EventLog
from turbod.eventlog.reader import HistoryUnavailable, Pruned
from turbod.filter import EVERYTHING, Filter
from turbod.record import read_line
from turbod.server.source import Log

BY_ONE = Filter(dids=frozenset({DIDS[3]}))
FILTERS = (EVERYTHING, BY_ONE, Filter(shard=(1, 2)))


class Life:
    """A log, its objects, and what turbod does with them, one step at a time."""

    def __init__(self, data: Path, log: EventLog, archive: Archive, history: History) -> None:
        self.log = log
        self.archive = archive
        self.history = history
        self.whole = WholeLog(log, history)
        self.lines: dict[int, bytes] = {}
        self._data = data
        self._number = 0
        self._previous = 0

    async def append(self, hour: int, count: int, *, padding: int = 0) -> None:
        """Log records with time stamps spread over the hour of this number."""
        for _ in range(count):
            self._number += 1
            time_us = T0 + hour * HOUR + self._number * 1000
            self.log.append(record(self._number, time_us=time_us, padding=padding))
        await self.log.flush()
        after = max(self.lines, default=0)
        while chunks := await self.log.read_chunks(max(after, self.log.lost)):
            for chunk in chunks:
                for index in range(len(chunk)):
                    self.lines[chunk.cursor(index)] = chunk.line(index)
            after = chunks[-1].last

    async def seal(self) -> bool:
        """Make an object of the oldest finished hour and let the log forget it."""
        finished = self.log.finished_hours()
        if not finished:
            return False
        sealed = self._data / "sealed"
        sealed.mkdir(exist_ok=True)
        name = seal(
            finished[0],
            folder=sealed,
            previous=self._previous,
            instance="here",
            upstreams=[],
            cancelled=lambda: False,
            frame_bytes=8192,
        )
        assert name is not None
        self._previous = name.last
        path = sealed / name.file
        self.archive.catalogue.add_local(name, path.stat().st_size, path)
        await self.log.release(finished[0].hour)
        return True

    def upload(self) -> bool:
        """Bring the oldest object that is not in the store there."""
        waiting = [held for held in self.archive.catalogue.local() if not held.is_stored]
        if not waiting:
            return False
        held = waiting[0]
        assert held.path is not None
        target = self.archive.path(held.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(held.path.read_bytes())
        verified = self._data / "verified"
        verified.mkdir(exist_ok=True)
        moved = held.path.rename(verified / held.name.file)
        self.archive.catalogue.add_stored(held.name, held.size)
        self.archive.catalogue.add_local(held.name, held.size, moved)
        return True

    def prune(self) -> bool:
        """Delete the oldest file that is in the store."""
        verified = [held for held in self.archive.catalogue.local() if held.is_stored]
        if not verified:
            return False
        assert verified[0].path is not None
        verified[0].path.unlink()
        self.archive.catalogue.remove_local(verified[0].name)
        return True

    def plain(self, chosen: Filter = EVERYTHING, *, above: int = 0) -> list[bytes]:
        """Return what a plain scan of everything that was ever logged selects."""
        return matching(list(self.lines.values()), chosen, above=above)


@asynccontextmanager
async def living(
    tmp_path: Path, *, memory_bytes: int = 100_000, is_listed: bool = True
) -> AsyncIterator[Life]:
    clock = Clock(T0 + 100 * HOUR)
    settings = LogSettings(memory_bytes=memory_bytes)
    log = EventLog(tmp_path, settings, written=lambda _: None, now_us=clock)
    archive = Archive(tmp_path / "archive")
    if is_listed:
        archive.catalogue.listed([])
    async with archive.opened() as history, trio.open_nursery() as nursery:
        await nursery.start(log.run)
        yield Life(tmp_path, log, archive, history)
        nursery.cancel_scope.cancel()


async def follow(
    log: Log, position: int, chosen: Filter, *, until: int | None = None
) -> tuple[list[bytes], list[Gap]]:
    """Read on as a subscriber does, up to the head, or to a cursor."""
    lines: list[bytes] = []
    gaps: list[Gap] = []
    position = position or log.floor
    while position < (log.head if until is None else until):
        if log.in_memory(position):
            chunk = log.next_chunk(position)
            assert chunk is not None
            items: list[Chunk | Gap] = [chunk]
            last = chunk.last
            await trio.lowlevel.checkpoint()
        else:
            stretch = await log.read(position, chosen)
            items, last = stretch.items, stretch.last
            assert last > position or log.in_memory(position)
        lines += matching(lines_above(items, position), chosen)
        gaps += gaps_above(items, position)
        position = max(position, last)
    return lines, gaps


async def grown(life: Life) -> None:
    """Fill it so that every place has something: store, disk, sealed, files, memory."""
    for hour in range(6):
        await life.append(hour, 40, padding=300)
    for _ in range(4):
        assert await life.seal()
    for _ in range(3):
        assert life.upload()
    assert life.prune()
    assert life.prune()
    await life.append(6, 300, padding=300)


async def test_every_position_is_gone_on_from_as_a_plain_scan_would(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        await grown(life)
        places = [
            life.whole.is_archived(cursor) + 2 * life.whole.in_memory(cursor)
            for cursor in life.lines
        ]
        assert set(places) == {0, 1, 2}, "objects, files and memory"
        cursors = list(life.lines)
        for number in (0, 39, 40, 80, 119, 155, 159, 160, 260, 539):
            for position in (cursors[number] - 1, cursors[number]):
                for chosen in FILTERS:
                    assert await follow(life.whole, position, chosen) == (
                        life.plain(chosen, above=position),
                        [],
                    )


async def test_the_oldest_is_where_zero_and_the_floor_begin(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        assert life.whole.floor == life.whole.head == 0
        await grown(life)
        first, *_ = life.lines
        assert life.whole.floor == first - 1
        stretch = await life.whole.read(0, EVERYTHING)
        assert lines_above(stretch.items, 0)[0] == life.lines[first]
        with pytest.raises(Pruned, match=str(first - 1)):
            await life.whole.read(first - 2, EVERYTHING)
        oldest = next(iter(life.archive.catalogue)).name
        life.archive.path(oldest).unlink()
        life.archive.catalogue.remove_stored(oldest)
        assert life.whole.floor >= oldest.last
        with pytest.raises(Pruned):
            await life.whole.read(first + 5, EVERYTHING)
        lines, gaps = await follow(life.whole, 0, EVERYTHING)
        assert (lines, gaps) == (life.plain(above=oldest.last), [])


async def test_what_memory_has_of_a_released_hour_comes_from_there(tmp_path: Path) -> None:
    async with living(tmp_path, memory_bytes=10**7) as life:
        await life.append(0, 50)
        await life.append(1, 50)
        assert await life.seal()
        cursors = list(life.lines)
        assert life.whole.in_memory(cursors[10])
        assert life.whole.is_archived(cursors[10])
        assert not life.whole.is_archived(cursors[50])
        assert life.whole.events_behind(cursors[10]) == 89
        for held in life.archive.catalogue.local():
            assert held.path is not None
            held.path.unlink()
        assert await follow(life.whole, cursors[10], EVERYTHING) == (
            life.plain(above=cursors[10]),
            [],
        )


@pytest.mark.parametrize("seed", range(6))
async def test_nobody_notices_what_moves_on_under_them(tmp_path: Path, seed: int) -> None:
    draw = Random(seed)
    results: list[tuple[int, Filter, list[bytes], list[Gap]]] = []
    async with living(tmp_path) as life:
        await life.append(0, 60, padding=300)
        await life.append(1, 60, padding=300)
        cursors = list(life.lines)
        is_over = False

        async def subscribe(position: int, chosen: Filter) -> None:
            lines: list[bytes] = []
            gaps: list[Gap] = []
            at = position
            while not is_over or at < life.whole.head:
                head = life.whole.head
                found, told = await follow(life.whole, at, chosen, until=head)
                lines += found
                gaps += told
                at = max(at, head, *map(cursor_of_line, found[-1:]))  # it may have moved meanwhile
                await trio.sleep(draw.choice([0, 0.001]))
            results.append((position, chosen, lines, gaps))

        async with trio.open_nursery() as nursery:
            for chosen in FILTERS:
                for _ in range(3):
                    nursery.start_soon(subscribe, draw.choice(cursors), chosen)
            for hour in range(2, 9):
                await life.append(hour, draw.randrange(1, 80), padding=300)
                for step in draw.choices(["seal", "upload", "prune"], k=4):
                    if step == "seal":
                        await life.seal()
                    elif step == "upload":
                        life.upload()
                    else:
                        life.prune()
                    await trio.sleep(draw.choice([0, 0.002]))
            is_over = True
        assert len(results) == 9
        for position, chosen, lines, gaps in results:
            unique = list(dict.fromkeys(lines))
            assert lines == unique
            assert lines == life.plain(chosen, above=position)
            assert gaps == []


async def test_an_hour_that_is_released_while_it_is_read_is_read_on_from_its_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path) as life:
        await grown(life)
        position = list(life.lines)[165]
        assert not life.whole.is_archived(position)
        read_chunks = life.log.read_chunks

        async def release_and_read(after: int) -> list[Chunk]:
            await life.seal()
            return await read_chunks(after)

        monkeypatch.setattr(life.log, "read_chunks", release_and_read)
        stretch = await life.whole.read(position, EVERYTHING)
        assert life.whole.is_archived(position)
        assert stretch.last > position
        assert lines_above(stretch.items, position)[0] == life.plain(above=position)[0]


async def test_what_the_log_has_as_files_is_never_read_from_anothers_object(
    tmp_path: Path,
) -> None:
    """Another turbod may have written objects of hours that this one's log still has."""
    async with living(tmp_path) as life:
        await grown(life)
        life.archive.add_hours([4, 5, 6], 20)
        await life.archive.relist()
        assert await follow(life.whole, 0, EVERYTHING) == (life.plain(), [])
        position = list(life.lines)[170]
        assert not life.whole.is_archived(position)
        assert await follow(life.whole, position, EVERYTHING) == (life.plain(above=position), [])


# ---- What is not there


async def test_hours_that_no_object_has_are_a_gap_up_to_what_the_log_has(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        await grown(life)
        newest = list(life.archive.catalogue)[-1].name
        assert newest.last == life.log.lost
        life.archive.catalogue.remove_local(newest)
        cursors = list(life.lines)
        with structlog.testing.capture_logs() as logged:
            for position in (cursors[100], cursors[130]):
                lines, gaps = await follow(life.whole, position, EVERYTHING)
                before = max(position, list(life.archive.catalogue)[-1].name.last)
                assert [(gap.after, gap.before) for gap in gaps] == [(before, cursors[160])]
                assert lines == [
                    line
                    for line in life.plain(above=position)
                    if not newest.first <= cursor_of_line(line) <= newest.last
                ]
        assert [each["event"] for each in logged] == ["archive_hole"]


def cursor_of_line(line: bytes) -> int:
    return read_line(line)[0]


async def test_a_gap_ends_where_memory_begins_inside_the_lost_hours(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        await life.append(0, 40, padding=300)
        for _ in range(5):
            await life.append(1, 20, padding=300)
        await life.append(2, 10, padding=300)
        cursors = list(life.lines)
        for _ in range(2):
            assert await life.seal()
        for held in life.archive.catalogue.local():
            assert held.path is not None
            held.path.write_bytes(bytes(held.size))
        begin = next(cursor for cursor in cursors if life.whole.in_memory(cursor - 1))
        assert cursors[40] < begin < cursors[140], "in the second hour"
        lines, gaps = await follow(life.whole, cursors[3], EVERYTHING)
        assert [(gap.after, gap.before) for gap in gaps] == [
            (cursors[3], cursors[40]),
            (cursors[39], begin),
        ]
        assert lines == life.plain(above=begin - 1)


async def test_while_the_store_was_not_listed_what_may_be_in_it_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.1
    async with living(tmp_path, is_listed=False) as life:
        assert life.whole.floor == 0
        await life.append(0, 10)
        assert life.whole.floor == min(life.lines) - 1, "nothing was ever sealed"
        await grown(life)
        assert life.whole.floor == 0
        forgotten = next(iter(life.archive.catalogue)).name
        life.archive.catalogue.remove_stored(forgotten)
        with pytest.raises(HistoryUnavailable, match="listed"):
            await life.whole.read(0, EVERYTHING)
        assert life.whole.is_archived(0)
        position = list(life.lines)[-350]
        assert await follow(life.whole, position, EVERYTHING) == (life.plain(above=position), [])
        await life.archive.relist()
        assert await follow(life.whole, 0, EVERYTHING) == (life.plain(), [])


async def test_what_nobody_knows_of_is_no_gap_before_the_store_was_listed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.1
    async with living(tmp_path, is_listed=False, memory_bytes=1000) as life:
        await life.append(0, 10)
        await life.append(1, 10)
        assert await life.seal()
        assert life.upload()
        assert life.prune()
        life.archive.catalogue.listed([])
        life.archive.catalogue.is_listed = False
        with pytest.raises(HistoryUnavailable, match="listed"):
            await life.whole.read(min(life.lines), EVERYTHING)
        await life.archive.relist()
        assert await follow(life.whole, 0, EVERYTHING) == (life.plain(), [])


async def test_older_objects_that_are_learnt_of_late_are_read(tmp_path: Path) -> None:
    """A log that was begun while the bucket was away, and the bucket has hours before it."""
    async with living(tmp_path, is_listed=False) as life:
        older = life.archive.add_hours([-3, -2], 20)
        await life.append(0, 30)
        floor = life.whole.floor
        assert life.whole.in_memory(floor - 5)
        await life.archive.relist()
        assert life.whole.floor < floor
        assert not life.whole.in_memory(life.whole.floor)
        lines, gaps = await follow(life.whole, 0, EVERYTHING)
        assert (lines, gaps) == ([*older, *life.plain()], [])


async def test_older_objects_are_read_too_once_an_hour_in_memory_was_released(
    tmp_path: Path,
) -> None:
    """Memory that began with the log has nothing of the older objects, released or not."""
    async with living(tmp_path, is_listed=False) as life:
        older = life.archive.add_hours([-3, -2], 20)
        await life.append(0, 30)
        await life.append(1, 5)
        assert await life.seal()
        await life.archive.relist()
        assert life.log.in_memory(0)
        assert await follow(life.whole, 0, EVERYTHING) == ([*older, *life.plain()], [])
        first = min(life.lines)
        position = first + 5
        assert life.whole.in_memory(first), "what memory has is not read from its object"
        assert await follow(life.whole, position, EVERYTHING) == (life.plain(above=position), [])


async def test_an_older_object_that_is_damaged_is_a_gap_though_memory_goes_back_as_far(
    tmp_path: Path,
) -> None:
    """Memory that began with the log has not got what the damaged object held."""
    async with living(tmp_path, is_listed=False) as life:
        older = life.archive.add_hours([-3, -2], 20)
        newest = life.archive.names()[-1]
        life.archive.path(newest).write_bytes(b"no object")
        await life.append(0, 30)
        await life.archive.relist()
        with trio.fail_after(20):
            lines, gaps = await follow(life.whole, 0, EVERYTHING)
        assert lines == [*older[:20], *life.plain()]
        assert [gap.after for gap in gaps] == [cursor_of_line(older[19])]
        assert gaps[0].before == min(life.lines)


# ---- Identities


def identities(lines: Sequence[bytes]) -> list[int]:
    return [read_line(line)[1].identity for line in lines]


async def test_identities_are_those_of_a_plain_scan(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        await grown(life)
        cursors = list(life.lines)
        for after, until in ((0, 5), (0, 50), (38, 121), (150, 400), (200, 201), (459, 539)):
            found = await life.whole.read_identities(after=cursors[after], until=cursors[until])
            assert list(found) == identities(
                [line for at, line in life.lines.items() if cursors[after] < at <= cursors[until]]
            )
        with pytest.raises(Pruned):
            await life.whole.read_identities(after=cursors[0] - 2, until=cursors[5])


async def test_identities_in_a_store_that_is_away_are_left_out_after_a_minute(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.1
    async with living(tmp_path, is_listed=False) as life:
        await grown(life)
        cursors = list(life.lines)
        oldest = next(iter(life.archive.catalogue)).name
        life.archive.catalogue.remove_stored(oldest)
        with structlog.testing.capture_logs() as logged:
            began = trio.current_time()
            assert not await life.whole.read_identities(after=cursors[0], until=cursors[9])
            assert 59 < trio.current_time() - began < 70
            began = trio.current_time()
            assert not await life.whole.read_identities(after=cursors[10], until=cursors[19])
            assert trio.current_time() - began < 1, "one minute for all of them"
        assert {each["event"] for each in logged} == {"identities_not_read"}
        found = await life.whole.read_identities(after=cursors[200], until=cursors[210])
        assert len(found) == 10, "what this disk has is read all the same"
