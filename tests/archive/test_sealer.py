"""Finished hours become objects and leave the log."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from tests.archive.sealing_log import UPSTREAMS, lines_in, objects, opened, sealing_hours
from tests.eventlog.samples import HOUR, T0, Clock, from_disk, from_memory, plain_scan, record
from turbod.archive import sealer as sealer_module
from turbod.archive import sealing
from turbod.archive.format.names import Name
from turbod.archive.format.object_writer import ObjectWriter
from turbod.archive.sealing import check
from turbod.eventlog.appender import DiskFull
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hours import PlainHour
from turbod.eventlog.log import EventLog


async def append(log: EventLog, numbers: range, *, time_us: int = T0, padding: int = 0) -> None:
    for number in numbers:
        log.append(record(number, time_us=time_us + number, padding=padding))
    await log.flush()


def events(logs: list[structlog.types.EventDict] | object) -> list[str]:
    assert isinstance(logs, list)
    return [entry["event"] for entry in logs if entry["event"].startswith(("hour_", "sealing_"))]


async def until_fault(sealer: sealer_module.Sealer) -> None:
    with trio.fail_after(10):
        while sealer.statistics().fault is None:  # noqa: ASYNC110 - a fault wakes nobody
            await trio.sleep(0.002)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealer_module, "FIRST_RETRY_SECONDS", 0.01)


async def test_each_finished_hour_becomes_one_object_and_leaves_the_log(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with sealing_hours(tmp_path) as running:
            log = running.log
            await append(log, range(1, 301))
            log.mark_gap("the upstream had lost it")
            for hour in range(1, 4):
                await append(log, range(1, 11), time_us=T0 + hour * HOUR)
            await running.sealed(3)
            last = T0 + 2 * HOUR + 10
            found = objects(tmp_path)
            names = [
                Name(T0 + 1, T0 + 300),
                Name(T0 + HOUR + 1, T0 + HOUR + 10),
                Name(T0 + 2 * HOUR + 1, last),
            ]
            assert running.told == [name for name, _ in found] == names
            assert [held.path for held in running.catalogue] == [path for _, path in found]
            assert (running.catalogue.last, log.lost) == (last, last)
            records = [one for _, path in found for one in lines_in(path)] + plain_scan(tmp_path)
            assert records == (await from_memory(log, 0))[0]
            assert len(records) == 330
            assert len(list((tmp_path / "live").iterdir())) == 1
            statistics = running.sealer.statistics()
            assert (statistics.sealed, statistics.waiting, statistics.fault) == (3, 0, None)
            assert statistics.sealed_bytes == sum(path.stat().st_size for _, path in found)
            assert statistics.last_seconds > 0
    first, second, third = [check(path, name) for name, path in found]
    assert [first.previous, second.previous, third.previous] == [0, first.last, second.last]
    assert (first.instance, first.upstreams) == ("here", UPSTREAMS)
    assert second.gaps == [Gap(first.last, second.first, "the upstream had lost it")]
    assert events(logs) == ["hour_sealed"] * 3


async def test_a_restart_goes_on_after_the_newest_object(tmp_path: Path) -> None:
    async with sealing_hours(tmp_path) as running:
        await append(running.log, range(1, 4))
        assert await running.log.end_hour()
        await running.sealed(1)
    async with sealing_hours(tmp_path) as running:
        log = running.log
        assert (log.head, log.floor, log.lost) == (T0 + 3, T0 + 3, T0 + 3)
        await append(log, range(5, 7))
        assert [cursor for cursor, _ in plain_scan(tmp_path)] == [T0 + HOUR, T0 + HOUR + 1]
        assert await log.end_hour()
        await running.sealed(1)
    (_, before), (name, path) = objects(tmp_path)
    assert check(path, name).previous == T0 + 3
    assert before.name == Name(T0 + 1, T0 + 3).file


async def test_a_quiet_hour_is_ended_after_a_grace_while_the_upstream_is_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "CHECK_SECONDS", 0.01)
    clock = Clock(T0 + HOUR + 59_000_000)
    async with sealing_hours(tmp_path, clock=clock) as running:
        await append(running.log, range(3))
        await trio.sleep(0.05)
        assert running.told == [], "the grace"
        running.state = "catching_up"
        clock.now_us += 1_000_000
        await trio.sleep(0.05)
        assert running.told == [], "silence while behind is not quiet"
        running.state = "live"
        await running.sealed(1)
        assert plain_scan(tmp_path) == []
        await append(running.log, range(9, 10))
        assert running.log.head == T0 + HOUR


async def test_a_full_disk_is_waited_out_and_told_once_while_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(_writer: ObjectWriter, **_: object) -> Name:
        raise OSError(errno.ENOSPC, "No space left on device")

    with structlog.testing.capture_logs() as logs:
        async with sealing_hours(tmp_path) as running:
            await append(running.log, range(3))
            with monkeypatch.context() as patch:
                patch.setattr(ObjectWriter, "finish", finish)
                await append(running.log, range(3), time_us=T0 + HOUR)
                await until_fault(running.sealer)
                assert "disk full" in str(running.sealer.statistics().fault)
                assert running.sealer.statistics().waiting == 1
                await trio.sleep(0.1)
                assert list((tmp_path / "sealed").iterdir()) == []
            await running.sealed(1)
            await append(running.log, range(5, 6), time_us=T0 + HOUR)
            assert running.sealer.statistics().fault is None
            assert (await from_disk(running.log, T0 + 2))[0] == plain_scan(tmp_path)
    assert events(logs) == ["hour_not_sealed", "sealing_again", "hour_sealed"]


async def test_an_object_that_has_no_room_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take what room the log has, and live delivery would wait."""
    usage = shutil.disk_usage(tmp_path)
    async with sealing_hours(tmp_path) as running:
        await append(running.log, range(50), padding=1000)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=10_000))
            await append(running.log, range(1), time_us=T0 + HOUR)
            await until_fault(running.sealer)
            assert "10000 bytes are free" in str(running.sealer.statistics().fault)
        await running.sealed(1)


async def test_what_does_not_read_back_never_takes_the_place_of_the_plain_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ObjectWriter.finish

    def finish(writer: ObjectWriter, **given: Any) -> Name:
        name = original(writer, **given)
        writer._file.seek(0)
        writer._file.write(b"flip")
        return name

    async with sealing_hours(tmp_path) as running:
        await append(running.log, range(50))
        with monkeypatch.context() as patch:
            patch.setattr(ObjectWriter, "finish", finish)
            await append(running.log, range(1), time_us=T0 + HOUR)
            await until_fault(running.sealer)
        assert len(plain_scan(tmp_path)) == 51
        await running.sealed(1)
    assert len(lines_in(objects(tmp_path)[0][1])) == 50


async def test_shutdown_stops_the_thread_at_once_and_leaves_nothing_half_made(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as running:
        await append(running.log, range(6000), padding=500)
        await append(running.log, range(1), time_us=T0 + HOUR)
        with trio.move_on_after(0.05) as scope:
            await running.sealer.run()
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline < 5
        assert list((tmp_path / "sealed").iterdir()) == []
        assert len(plain_scan(tmp_path)) == 6001
    async with sealing_hours(tmp_path) as running:
        await running.sealed(1)
    assert len(lines_in(objects(tmp_path)[0][1])) == 6000


async def test_hours_that_are_damaged_missing_or_unreadable_do_not_stop_the_next(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as running:
        for hour in range(5):
            await append(running.log, range(1, 6), time_us=T0 + hour * HOUR)
    live = tmp_path / "live"
    damaged, unreadable, missing = (live / f"2026-11-20T{hour}.jsonl" for hour in (10, 11, 12))
    lines = damaged.read_bytes().splitlines(keepends=True)
    damaged.write_bytes(b"".join([lines[0], b"\0" * 99, lines[2], *lines[3:]]))
    unreadable.write_bytes(b"\0" * 5000)
    with structlog.testing.capture_logs() as logs:
        async with opened(tmp_path) as running, trio.open_nursery() as nursery:
            missing.unlink()
            await nursery.start(running.sealer.run)
            await running.sealed(2)
            nursery.cancel_scope.cancel()
    assert sorted(path.name for path in live.iterdir()) == [
        "2026-11-20T10.jsonl.damaged",
        "2026-11-20T11.jsonl.damaged",
        "2026-11-20T14.jsonl",
    ]
    kept = (live / "2026-11-20T10.jsonl.damaged").read_bytes()
    assert kept == b"".join([lines[0], b"\0" * 99, lines[2], *lines[3:]])
    (first, path), (second, second_path) = objects(tmp_path)
    assert [cursor for cursor, _ in lines_in(path)] == [T0 + 1, T0 + 4, T0 + 5]
    assert second.first == T0 + 3 * HOUR + 1
    assert check(second_path, second).previous == T0 + 2 * HOUR + 5, "the hole shows"
    assert check(path, first).gaps[0].before == T0 + 4
    assert events(logs) == [
        *("hour_damaged", "hour_sealed"),
        *("hour_damaged", "hour_unreadable"),
        *("hour_missing", "hour_sealed"),
    ]


async def test_what_the_archive_has_passed_over_is_sealed_before_the_log_is_opened(
    tmp_path: Path,
) -> None:
    """A restored snapshot: its live hours are those of the past, the newest one is torn."""
    async with opened(tmp_path) as running:
        for hour in range(3):
            await append(running.log, range(1, 6), time_us=T0 + hour * HOUR)
    newest = tmp_path / "live" / "2026-11-20T12.jsonl"
    with newest.open("ab") as file:
        file.write(b'{"cursor":17')
    async with opened(tmp_path) as running:
        assert running.told == []
        assert objects(tmp_path) == [], "without a newer object there is nothing to pass over"

    with newest.open("ab") as file:
        file.write(b'{"cursor":17')
    later = Name(T0 + 2 * HOUR + 1, T0 + 2 * HOUR + 9)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            running.catalogue.add_stored(later, 1000)
            await running.open(nursery)
            log = running.log
            assert (log.head, log.floor) == (later.last, later.last)
            assert list((tmp_path / "live").iterdir()) == []
            await append(log, range(1))
            assert log.head == T0 + 3 * HOUR
            nursery.cancel_scope.cancel()
    found = objects(tmp_path)
    assert [len(lines_in(path)) for _, path in found] == [5, 5, 5]
    assert [check(path, name).previous for name, path in found] == [
        *(0, T0 + 5, T0 + HOUR + 5),
    ]
    assert len(running.catalogue.conflicts) == 1
    assert events(logs) == ["hour_left_behind"] * 3


async def test_a_crash_before_the_hour_left_the_log_does_not_seal_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    async def release(_log: EventLog, _hour: int) -> None:
        raise Crash

    monkeypatch.setattr(EventLog, "release", release)
    with pytest.RaisesGroup(Crash, flatten_subgroups=True):
        async with sealing_hours(tmp_path) as running:
            await append(running.log, range(5))
            await append(running.log, range(1), time_us=T0 + HOUR)
            await trio.sleep(10)
    monkeypatch.undo()
    ((name, path),) = objects(tmp_path)
    made = path.stat()
    assert len(plain_scan(tmp_path)) == 6
    async with sealing_hours(tmp_path) as running:
        assert plain_scan(tmp_path) == (await from_disk(running.log, name.last))[0]
        assert len(plain_scan(tmp_path)) == 1
        assert running.told == []
    assert [(one.st_ino, one.st_mtime_ns) for one in (path.stat(),)] == [
        (made.st_ino, made.st_mtime_ns)
    ]


async def test_the_object_is_known_before_the_plain_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads history finds a record in one of the two at any time."""
    async with sealing_hours(tmp_path) as running:
        known: list[bool] = []
        original = EventLog.release

        async def release(log: EventLog, hour: int) -> None:
            known.append(running.catalogue.after(hour) is not None)
            known.append(os.path.exists(tmp_path / "live" / "2026-11-20T10.jsonl"))  # noqa: ASYNC240, PTH110 - one look
            await original(log, hour)

        monkeypatch.setattr(EventLog, "release", release)
        await append(running.log, range(5))
        await append(running.log, range(1), time_us=T0 + HOUR)
        await running.sealed(1)
        assert known == [True, True]


async def test_the_hours_of_a_backlog_are_sealed_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as running:
        for hour in range(4):
            await append(running.log, range(2), time_us=T0 + hour * HOUR)
        order: list[int] = []

        def seal(hour: PlainHour, **given: object) -> Name | None:
            order.append(hour.hour)
            if len(order) < 3:
                raise DiskFull("disk full")
            return sealing.seal(hour, **given)  # type: ignore[arg-type]

        monkeypatch.setattr(sealer_module, "seal", seal)
        async with trio.open_nursery() as nursery:
            await nursery.start(running.sealer.run)
            await running.sealed(3)
            nursery.cancel_scope.cancel()
    assert order == [T0, T0, T0, T0 + HOUR, T0 + 2 * HOUR]
