"""Hours that are finished, ended and released while the log is written and read."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from tests.eventlog.samples import (
    HOUR,
    T0,
    Clock,
    from_disk,
    from_memory,
    plain_gaps,
    plain_scan,
    record,
    running,
)
from turbod.config import LogSettings
from turbod.eventlog import appender, reader
from turbod.eventlog import log as log_module
from turbod.eventlog.appender import Appender, DiskFull
from turbod.eventlog.batch import Part
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hour_file import records_name
from turbod.eventlog.log import EventLog, Pruned

MEGABYTE = 1024 * 1024
SMALL = LogSettings(memory_bytes=MEGABYTE)


async def append(log: EventLog, numbers: range, *, time_us: int = T0, padding: int = 0) -> None:
    for number in numbers:
        log.append(record(number, time_us=time_us + number, padding=padding))
    await log.flush()


def open_files() -> list[str]:
    descriptors = Path("/proc/self/fd").iterdir()
    return [str(each.readlink()) for each in descriptors if each.is_symlink()]


def finished(log: EventLog) -> list[int]:
    return [hour.hour for hour in log.finished_hours()]


async def test_all_hours_but_the_newest_are_finished(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        assert finished(log) == []
        await append(log, range(1, 4))
        assert finished(log) == []
        with trio.move_on_after(0.02) as scope:
            await log.wait_finished()
        assert scope.cancelled_caught
        log.mark_gap("lost")
        await append(log, range(5, 7))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.wait_finished)
            await trio.testing.wait_all_tasks_blocked()
            await append(log, range(1), time_us=T0 + HOUR)
        assert finished(log) == [T0]
        (hour,) = log.finished_hours()
        assert hour.size == hour.path.stat().st_size
        assert (hour.first, hour.last) == (T0 + 1, T0 + 6)
        assert hour.gaps == [Gap(T0 + 3, T0 + 5, "lost")]
        await append(log, range(1), time_us=T0 + 5 * HOUR)
        assert finished(log) == [T0, T0 + HOUR]
    async with running(tmp_path) as log:
        assert log.finished_hours()[0] == hour, "as it is learnt from the disk"
        assert log.finished_hours()[1].last == T0 + HOUR


async def test_a_released_hour_leaves_the_disk_and_the_log_not_the_memory(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        log.append(record(0))
        log.mark_gap("in an hour that goes")
        for hour in range(4):
            await append(log, range(1, 41), time_us=T0 + hour * HOUR)
        everything = plain_scan(tmp_path)
        for one in log.finished_hours()[:2]:
            await log.release(one.hour)
        assert [path.name for path in sorted((tmp_path / "live").iterdir())] == [
            "2026-11-20T12.jsonl",
            "2026-11-20T13.jsonl",
        ]
        assert log.lost == T0 + HOUR + 40
        assert log.floor == T0 + 2 * HOUR
        assert log.statistics().disk_bytes == sum(len(text) + 1 for _, text in everything[81:])
        assert (log.statistics().gaps, log.statistics().hours) == (0, 2)
        assert (await from_memory(log, 0))[0] == everything
        assert log.in_memory(0)
        assert not log.retains(log.lost - 1)
        with pytest.raises(Pruned, match="no longer retained"):
            await log.read_chunks(log.lost - 1)
        assert log.retains(log.lost)
        for position in (log.lost, log.floor):
            assert (await from_disk(log, position))[0] == everything[81:]


@pytest.mark.parametrize("newer", [0, 1, 40])
async def test_a_restart_keeps_what_is_recent_before_the_log_in_memory(
    tmp_path: Path, newer: int
) -> None:
    """Those who resume after a restart stand in the hour that became an object a moment ago."""
    async with running(tmp_path) as log:
        await append(log, range(1, 41))
        recent = await log.read_chunks(T0)
        await append(log, range(newer), time_us=T0 + HOUR + 1000)
        everything = plain_scan(tmp_path)
        await log.release(T0) if newer else (tmp_path / "live" / "2026-11-20T10.jsonl").unlink()
    log = EventLog(tmp_path, SMALL, written=lambda _: None, now_us=Clock(), after=T0 + 40)
    log.recent = recent
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        assert log.in_memory(T0)
        assert log.events_behind(T0) == len(everything)
        await append(log, range(90, 95), time_us=T0 + HOUR + 2000)
        everything += plain_scan(tmp_path)[newer:]
        for position in (T0, T0 + 7, T0 + 39, T0 + 40, T0 + HOUR):
            expected = [each for each in everything if each[0] > position]
            assert await from_memory(log, position) == (expected, [])
        nursery.cancel_scope.cancel()


async def test_only_the_oldest_finished_hour_is_released(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        for hour in range(3):
            await append(log, range(1), time_us=T0 + hour * HOUR)
        with pytest.raises(AssertionError, match="oldest"):
            await log.release(T0 + HOUR)
        with pytest.raises(AssertionError, match="growing"):
            await log.release(T0 + 2 * HOUR)


async def test_an_hour_is_ended_once_the_clock_is_behind_it(tmp_path: Path) -> None:
    clock = Clock(T0 + HOUR - 1)
    async with running(tmp_path, clock=clock) as log:
        assert not await log.end_hour(), "an empty log has none"
        await append(log, range(1, 4))
        assert not await log.end_hour()
        clock.now_us += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.wait_finished)
            await trio.testing.wait_all_tasks_blocked()
            assert await log.end_hour()
        assert not await log.end_hour(), "it is ended already"
        assert finished(log) == [T0]
        await append(log, range(10, 13))
        clock.now_us -= HOUR // 2
        await append(log, range(13, 15))
        assert [cursor for cursor, _ in plain_scan(tmp_path)] == [
            *range(T0 + 1, T0 + 4),
            *range(T0 + HOUR, T0 + HOUR + 5),
        ]
        assert finished(log) == [T0]
        seen, gaps = await from_disk(log, log.floor)
        assert (seen, gaps) == (plain_scan(tmp_path), [])


async def test_what_waits_while_its_hour_is_ended_lies_in_the_next_and_what_is_stored_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as log:
        await append(log, range(1))
        original = Appender.store
        may_store = trio.Event()

        def store(self: Appender, part: Part, size: int) -> int:
            trio.from_thread.run(may_store.wait)
            return original(self, part, size)

        monkeypatch.setattr(Appender, "store", store)
        log.append(record(1))
        await trio.sleep(0.05)  # it has its cursor, and waits for the disk
        log.append(record(2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.end_hour)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert finished(log) == [], "a record of it is on its way"
            log.append(record(3))
            may_store.set()
        assert finished(log) == [T0]
        await log.flush()
        assert [cursor for cursor, _ in plain_scan(tmp_path)] == [
            *(T0, T0 + 1),
            *(T0 + HOUR, T0 + HOUR + 1),
        ]


async def test_on_a_full_disk_ending_an_hour_gives_up_and_the_hour_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "END_HOUR_SECONDS", 0.05)
    async with running(tmp_path) as log:
        await append(log, range(1))

        def full(_self: Appender, _part: Part, _size: int) -> int:
            raise DiskFull("disk full: no")

        with monkeypatch.context() as patch:
            patch.setattr(Appender, "store", full)
            log.append(record(1))
            await trio.sleep(0.05)
            for _ in range(2):
                assert not await log.end_hour()
            assert finished(log) == []
        with trio.fail_after(10):
            await log.wait_finished()
        assert finished(log) == [T0]
        assert log.finished_hours()[0].last == T0 + 1


async def test_the_newest_hour_is_released_too_and_its_room_is_free(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        await append(log, range(1, 4))
        assert await log.end_hour()
        await log.release(T0)
        assert list((tmp_path / "live").iterdir()) == []
        assert not any("2026-11-20T10" in each for each in open_files()), "its room is still taken"
        assert (log.head, log.floor, log.lost) == (T0 + 3, T0 + 3, T0 + 3)
        assert log.statistics().disk_bytes == 0
        assert await log.read_chunks(log.head) == []
        assert finished(log) == []
        assert not await log.end_hour()
        await append(log, range(4, 6))
        assert log.floor == T0 + HOUR - 1
        assert (await from_disk(log, T0 + 3))[0] == plain_scan(tmp_path)
        assert len((await from_memory(log, 0))[0]) == 5


async def test_an_empty_log_begins_after_what_lies_elsewhere(tmp_path: Path) -> None:
    """As on a fresh machine with the same bucket, or where every hour was released."""
    after = T0 + 77
    async with running(tmp_path, after=after, ended=T0 + HOUR) as log:
        assert (log.head, log.floor, log.lost) == (after, after, after)
        assert log.in_memory(after)
        assert not log.in_memory(after - 1)
        assert log.events_behind(after) == 0
        assert await log.read_chunks(after) == []
        with pytest.raises(Pruned):
            await log.read_chunks(after - 1)
        assert finished(log) == []
        assert not await log.end_hour()
        log.mark_gap("the upstream began later")
        await append(log, range(80, 83))
        cursors = [T0 + HOUR, T0 + HOUR + 1, T0 + HOUR + 2]
        assert [cursor for cursor, _ in plain_scan(tmp_path)] == cursors
        gap = Gap(after, T0 + HOUR, "the upstream began later")
        for read in (from_memory, from_disk):
            assert await read(log, after) == (plain_scan(tmp_path), [gap])
        assert plain_gaps(tmp_path) == [gap]
    async with running(tmp_path, after=after, ended=T0 + HOUR) as log:
        assert (log.floor, log.lost, log.head) == (T0 + HOUR - 1, after, T0 + HOUR + 2)
        assert (await from_disk(log, after))[1] == [gap]


async def test_a_gap_whose_record_was_not_written_is_kept_where_all_hours_were_released(
    tmp_path: Path,
) -> None:
    live = tmp_path / "live"
    live.mkdir()
    gap = b'{"after":%d,"before":%d,"message":"lost"}\n'
    (live / "2026-11-20T12.gaps.jsonl").write_bytes(gap % (T0 + 1, T0 + 2 * HOUR + 9))
    (live / "2026-11-20T09.gaps.jsonl").write_bytes(gap % (T0 - HOUR, T0 - HOUR + 5))
    async with running(tmp_path, after=T0 + 1, ended=T0 + HOUR) as log:
        assert [path.name for path in live.iterdir()] == ["2026-11-20T12.gaps.jsonl"]
        await append(log, range(1), time_us=T0 + 3 * HOUR)
        assert (await from_memory(log, T0 + 1))[1] == [Gap(T0 + 1, T0 + 3 * HOUR, "lost")]


async def test_hours_that_lie_elsewhere_may_not_be_in_the_log(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        await append(log, range(3))
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        async with running(tmp_path, after=T0 + 1, ended=T0 + HOUR):
            pass


@pytest.mark.parametrize("zeros", [range(2, 4), range(1), range(3, 9), range(9)])
async def test_a_damaged_hour_is_finished_and_released_like_another(
    tmp_path: Path, zeros: range
) -> None:
    async with running(tmp_path) as log:
        for hour in range(2):
            await append(log, range(1, 10), time_us=T0 + hour * HOUR, padding=900_000)
    path = tmp_path / "live" / "2026-11-20T10.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = [b"\0" * len(text) if i in zeros else text for i, text in enumerate(lines)]
    path.write_bytes(b"".join(damaged))
    async with running(tmp_path) as log:
        (hour_,) = log.finished_hours()
        sound = [T0 + i + 1 for i in range(9) if i not in zeros]
        assert hour_.first == (T0 if 0 in zeros else T0 + 1)
        assert hour_.last == (sound[-1] if sound else T0)
        assert hour_.size == path.stat().st_size
        await log.release(T0)
        assert log.lost == hour_.last
        assert len((await from_disk(log, log.lost))[0]) == 9


async def test_a_reader_under_whom_hours_are_released_reads_on_or_is_told(tmp_path: Path) -> None:
    async with running(tmp_path, settings=SMALL) as log:
        outcomes: list[str] = []
        expected = [T0 + hour * HOUR + number for hour in range(21) for number in range(1, 41)]

        async def follow(*, falls_behind: bool) -> None:
            position, cursors = 0, []
            try:
                while position < expected[-1]:
                    for chunk in await log.read_chunks(position):
                        cursors += [chunk.cursor(i) for i in range(len(chunk))]
                        assert chunk.gap is None
                        position = chunk.last
                    await trio.lowlevel.checkpoint()
                    while falls_behind and log.lost <= position:  # noqa: ASYNC110 - wakes nobody
                        await trio.sleep(0.001)
                assert cursors == expected
                outcomes.append("whole")
            except Pruned:
                assert cursors == expected[: len(cursors)]
                outcomes.append("pruned")

        async with trio.open_nursery() as nursery:
            for falls_behind in (False, True, False):
                nursery.start_soon(partial(follow, falls_behind=falls_behind))
            for hour in range(21):
                await append(log, range(1, 41), time_us=T0 + hour * HOUR, padding=50_000)
                await trio.sleep(0.01)
                for one in log.finished_hours()[:-2]:
                    await log.release(one.hour)
        assert sorted(outcomes) == ["pruned", "whole", "whole"]


async def test_a_crash_between_the_two_files_of_a_released_hour_leaves_none_behind(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as log:
        await append(log, range(1))
        log.mark_gap("lost")
        for hour in range(1, 3):
            await append(log, range(1, 3), time_us=T0 + hour * HOUR)
        for one in log.finished_hours():
            before = plain_gaps(tmp_path)
            await log.release(one.hour)
    (tmp_path / "live" / "2026-11-20T11.gaps.jsonl").write_bytes(
        b'{"after":%d,"before":%d,"message":"lost"}\n' % (before[0].after, before[0].before)
    )
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, after=T0 + HOUR + 2, ended=T0 + 2 * HOUR) as log:
            assert log.statistics().gaps == 0
    assert [path.name for path in (tmp_path / "live").iterdir()] == ["2026-11-20T12.jsonl"]
    assert [entry["event"] for entry in logs] == ["log_open"]


async def test_a_read_of_a_file_that_is_being_deleted_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A big file is cut down piece by piece: what is missing then is not damage."""
    read = reader._read

    def read_while_deleted(*given: Any) -> Any:
        trio.from_thread.run_sync(log._hours.release, T0)
        os.truncate(tmp_path / "live" / records_name(T0), 300)
        return read(*given)

    async with running(tmp_path, settings=SMALL) as log:
        await append(log, range(1, 40))
        await append(log, range(1), time_us=T0 + HOUR)
        monkeypatch.setattr(reader, "_read", read_while_deleted)
        with structlog.testing.capture_logs() as told, pytest.raises(Pruned):
            await log.read_chunks(T0 + 1)
        assert told == []


def test_a_deleted_hour_goes_by_the_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "DELETED_BYTES", 10)
    path = tmp_path / records_name(T0)
    path.write_bytes(b"x" * 35)
    left: list[int] = []
    with path.open("rb") as file:
        monkeypatch.setattr(time, "sleep", lambda _: left.append(os.fstat(file.fileno()).st_size))
        appender.delete_hour(tmp_path, T0)
    assert left == [25, 15, 5, 0]
    assert not list(tmp_path.iterdir())
    appender.delete_hour(tmp_path, T0)


def test_what_has_another_name_keeps_its_bytes_when_an_hour_is_deleted(tmp_path: Path) -> None:
    """As a backup made of hard links has."""
    path, copy = tmp_path / records_name(T0), tmp_path / "copy"
    path.write_bytes(b"x" * 35)
    copy.hardlink_to(path)
    appender.delete_hour(tmp_path, T0)
    assert list(tmp_path.iterdir()) == [copy]
    assert copy.read_bytes() == b"x" * 35
