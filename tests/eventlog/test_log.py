"""The log as its users see it, on a real disk."""

import errno
import json
import os
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.lowlevel
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
from turbod.eventlog import appender, reader, writer
from turbod.eventlog.appender import Appender, SyncedFile
from turbod.eventlog.batch import Part
from turbod.eventlog.chunk import Gap
from turbod.eventlog.log import EventLog
from turbod.record import Record, read_line

MEGABYTE = 1024 * 1024
SMALL = LogSettings(memory_bytes=MEGABYTE)


async def append(log: EventLog, numbers: range, *, time_us: int = T0, padding: int = 0) -> None:
    for number in numbers:
        log.append(record(number, time_us=time_us + number, padding=padding))
    await log.flush()


async def test_an_empty_log_stands_at_zero(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        assert (log.head, log.floor, log.events_behind(0)) == (0, 0, 0)
        assert log.in_memory(0)
        assert log.next_chunk(0) is None
        assert await log.read_chunks(0) == []
        assert log.fault is None
        await log.flush()
    assert list((tmp_path / "live").iterdir()) == []


def test_before_it_is_repaired_the_log_looks_empty(tmp_path: Path) -> None:
    log = EventLog(tmp_path, SMALL, written=lambda _: None)
    assert (log.head, log.floor, log.events_behind(0)) == (0, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_before_it_is_repaired_the_log_has_nothing_of_what_lies_elsewhere(tmp_path: Path) -> None:
    """So whoever reads then looks for it where it is."""
    log = EventLog(tmp_path, SMALL, written=lambda _: None)
    log.after = 5
    assert (log.floor, log.lost) == (5, 5)
    assert not log.retains(4)
    assert log.retains(5)


async def test_whoever_waited_at_an_empty_log_gets_its_first_record(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        await append(log, range(1))
        assert log.floor == T0 - 1
        assert log.retains(0)
        assert log.in_memory(0)
        for read in (from_memory, from_disk):
            assert (await read(log, 0))[0] == plain_scan(tmp_path)


async def test_what_was_published_is_on_disk_and_told_in_order(tmp_path: Path) -> None:
    written: list[int] = []
    async with running(tmp_path, written=written) as log:
        await append(log, range(250))
        assert written == list(range(250))
        assert log.head == T0 + 249
        seen = plain_scan(tmp_path)
        assert [read_line(text)[1].rkey for _, text in seen] == [f"3k{n}" for n in range(250)]
        for read in (from_memory, from_disk):
            assert (await read(log, log.floor))[0] == seen
        assert log.events_behind(T0 + 99) == 150


async def test_nothing_is_published_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as log:
        synced = []

        def fdatasync(descriptor: int) -> None:
            synced.append((log.head, os.fstat(descriptor).st_size))
            os.fsync(descriptor)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        await append(log, range(3))
        await append(log, range(3, 5))
    assert [head for head, _ in synced] == [0, T0 + 2]
    assert synced[-1][1] == sum(len(text) + 1 for _, text in plain_scan(tmp_path))


async def test_a_new_files_name_is_synced_before_its_records_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as log:
        synced: list[tuple[int, set[str]]] = []

        def sync_folder(folder: Path) -> None:
            synced.append((log.head, {path.name for path in folder.iterdir()}))

        monkeypatch.setattr(appender, "sync_folder", sync_folder)
        await append(log, range(1))
        log.mark_gap("lost")
        await append(log, range(1), time_us=T0 + HOUR)
    first, second = "2026-11-20T10.jsonl", "2026-11-20T11.jsonl"
    assert synced == [
        (0, {first}),
        (T0, {first, second}),
        (T0, {first, second, "2026-11-20T11.gaps.jsonl"}),
    ]


async def test_a_record_waits_for_company_at_most_20_ms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Appender, "store", lambda _self, part, size: size + len(part.data))
    async with running(tmp_path) as log:
        watch = log.watch(None)
        for number in range(3):
            log.append(record(number))
        began = trio.current_time()
        await watch.wait()
        assert 0.005 < trio.current_time() - began < 2
        chunk = log.next_chunk(log.floor)
        assert chunk is not None
        assert len(chunk) == 3
    assert writer.COMPANY_SECONDS <= 0.02


async def test_a_full_batch_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "COMPANY_SECONDS", 3600)
    async with running(tmp_path) as log:
        watch = log.watch(None)
        with trio.fail_after(10):
            for number in range(1000):
                log.append(record(number))
            await watch.wait()
            for number in range(1000, 1007):
                log.append(record(number, padding=600_000))
            await watch.wait()
            log.append(record(1007))
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert log.head == T0 + 1006, "one alone waits, whatever came before"
            await log.flush()
        assert log.statistics().stores == 3


async def test_records_are_taken_in_while_the_thread_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several chunks that queue meanwhile are one write."""
    async with running(tmp_path) as log:
        stores: list[int] = []
        original = Appender.store

        def store(self: Appender, part: Part, size: int) -> int:
            stores.append(len(part.intakes))
            trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
            return original(self, part, size)

        monkeypatch.setattr(Appender, "store", store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(append, log, range(100))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(append, log, range(100, 450))
        assert len(stores) <= 3
        assert sum(stores) == 450


async def test_cursors_rise_across_restarts_and_clock_steps(tmp_path: Path) -> None:
    clock = Clock(T0)
    for hours in (0, -5, 3, -1, 0):
        clock.now_us = T0 + hours * HOUR
        async with running(tmp_path, clock=clock) as log:
            for number, offset in enumerate((0, -HOUR, 0, HOUR, 40 * HOUR, -(10**15))):
                log.append(record(number, time_us=clock.now_us + offset))
            await log.flush()
    cursors = [cursor for cursor, _ in plain_scan(tmp_path)]
    assert cursors == sorted(set(cursors))
    assert len(cursors) == 30
    assert cursors[-1] <= T0 + 3 * HOUR + 5_000_000 + 30


async def test_each_record_lies_in_the_file_of_its_cursors_hour(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        for number, offset in enumerate((1, HOUR - 1, HOUR, HOUR + 1, 0, 3 * HOUR)):
            log.append(record(number, time_us=T0 + offset))
        await log.flush()
        assert (await from_disk(log, T0))[0] == plain_scan(tmp_path)
        counts = {
            path.name: len(path.read_bytes().splitlines()) for path in (tmp_path / "live").iterdir()
        }
    assert counts == {
        "2026-11-20T10.jsonl": 2,
        "2026-11-20T11.jsonl": 3,
        "2026-11-20T13.jsonl": 1,
    }


async def test_every_position_reads_the_same_from_memory_and_disk(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        for number in range(700):
            if number % 150 == 70:
                log.mark_gap(f"gap {number}")
            log.append(record(number, time_us=T0 + number * 10_000_000))
            if number % 7 == 0:
                await log.flush()
        await log.flush()
        seen, gaps = plain_scan(tmp_path), plain_gaps(tmp_path)
        assert len(gaps) == 5
        for position in (*range(log.floor, log.head, 333_333_337), log.head - 1, log.head):
            expected = (
                [one for one in seen if one[0] > position],
                [gap for gap in gaps if gap.before > position],
            )
            assert await from_memory(log, position) == expected
            disk_seen, disk_gaps = await from_disk(log, position)
            assert disk_seen == expected[0]
            assert [gap.before for gap in disk_gaps] == [gap.before for gap in expected[1]]
            assert log.events_behind(position) == len(expected[0])


async def test_a_restart_serves_the_newest_from_memory_and_the_rest_from_disk(
    tmp_path: Path,
) -> None:
    settings = LogSettings(memory_bytes=2 * MEGABYTE)
    async with running(tmp_path, settings=settings) as log:
        await append(log, range(1500), time_us=T0 + HOUR - 700, padding=2000)
        assert not log.in_memory(log.floor)
    async with running(tmp_path, settings=settings) as log:
        seen = plain_scan(tmp_path)
        assert (log.floor, log.head) == (seen[0][0] - 1, seen[-1][0])
        assert not log.in_memory(log.floor)
        assert log.events_behind(log.floor) is None
        assert log.in_memory(log.head - 200)
        assert log.events_behind(log.head - 200) == 200
        assert (await from_memory(log, log.head - 200))[0] == seen[-200:]
        assert (await from_disk(log, log.floor))[0] == seen
        await append(log, range(1500, 1600), time_us=T0 + HOUR)
        seen = plain_scan(tmp_path)
        assert (await from_memory(log, seen[-201][0]))[0] == seen[-200:]


async def test_a_reader_sees_no_byte_that_is_not_published(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        await append(log, range(3))
        with (tmp_path / "live" / "2026-11-20T10.jsonl").open("ab") as file:
            file.write(record(9).line(T0 + 9) + b"\n")
        assert (await from_disk(log, 0))[0] == plain_scan(tmp_path)[:3]


async def test_somebody_else_writing_to_the_log_stops_us(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        await append(log, range(3))
    (tmp_path / "live" / "2026-11-20T11.jsonl").touch()
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        async with running(tmp_path) as log:
            (tmp_path / "live" / "2026-11-20T12.jsonl").write_bytes(b"foreign")
            await append(log, range(1), time_us=T0 + 2 * HOUR)


async def test_an_hour_released_while_it_is_looked_for_is_no_gap_where_nothing_was_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as log:
        for hour in range(3):
            await append(log, range(1, 4), time_us=T0 + hour * HOUR)
        original = os.open

        def delete_first(path: Path, flags: int) -> int:
            monkeypatch.undo()
            log._hours.release(T0)
            path.unlink()
            return original(path, flags)

        monkeypatch.setattr(os, "open", delete_first)
        seen, gaps = await from_disk(log, T0 + 3)
        assert (len(seen), gaps) == (6, [])


async def test_a_gap_survives_a_restart_before_its_record(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        await append(log, range(2))
        log.mark_gap("first")
        log.mark_gap("second")
        log.mark_gap("first")
        await append(log, range(2, 4))
    gap = Gap(T0 + 1, T0 + 2, "first; second")
    assert plain_gaps(tmp_path) == [gap]
    async with running(tmp_path) as log:
        for read in (from_memory, from_disk):
            assert (await read(log, log.floor))[1] == [gap]
            assert (await read(log, T0 + 1))[1] == [gap]
            assert (await read(log, T0 + 2))[1] == []
    assert all(set(json.loads(text)) > {"cursor", "did"} for _, text in plain_scan(tmp_path))


async def test_a_gap_whose_record_was_not_written_stands_before_the_next(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        await append(log, range(2))
    gaps = tmp_path / "live" / "2026-11-20T10.gaps.jsonl"
    gaps.write_bytes(b'{"after":%d,"before":%d,"message":"lost"}\n{"aft' % (T0 + 1, T0 + 9))
    for _ in range(2):
        async with running(tmp_path) as log:
            assert (await from_disk(log, log.floor))[1] == []
    async with running(tmp_path) as log:
        await append(log, range(5, 12))
        for read in (from_memory, from_disk):
            assert (await read(log, log.floor))[1] == [Gap(T0 + 1, T0 + 5, "lost")]
    async with running(tmp_path) as log:
        found = (await from_disk(log, log.floor))[1]
        assert found[0] == Gap(T0 + 1, T0 + 5, "lost")


async def test_damage_in_an_old_hour_is_a_gap_not_an_end(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        for hour in range(3):
            await append(log, range(1, 101), time_us=T0 + hour * HOUR)
    path = tmp_path / "live" / "2026-11-20T10.jsonl"
    data = bytearray(path.read_bytes())
    lines = data.split(b"\n")
    start = len(b"\n".join(lines[:40])) + 1
    data[start : start + 2 * len(lines[40])] = bytes(2 * len(lines[40]))
    path.write_bytes(data)
    (tmp_path / "live" / "2026-11-20T11.jsonl").write_bytes(b"\0" * 3 * MEGABYTE)
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path) as log:
            seen, gaps = await from_disk(log, log.floor)
            await from_disk(log, log.floor)
    assert [cursor for cursor, _ in seen] == [
        *range(T0 + 1, T0 + 41),
        *range(T0 + 43, T0 + 101),
        *range(T0 + 2 * HOUR + 1, T0 + 2 * HOUR + 101),
    ]
    assert [(gap.after, gap.before) for gap in gaps] == [
        (T0 + 40, T0 + 43),
        (T0 + 100, T0 + 2 * HOUR + 1),
    ]
    assert [entry["file"] for entry in logs if entry["event"] == "log_damaged"] == [
        "2026-11-20T10.jsonl",
        "2026-11-20T11.jsonl",
    ]


@pytest.mark.parametrize("digit", [0, 1, 5])
@pytest.mark.parametrize("bit", [1, 2, 4, 8])
async def test_a_flipped_bit_in_an_old_hours_first_cursor_is_a_gap_not_an_end(
    tmp_path: Path, digit: int, bit: int
) -> None:
    """The hour's place among the others is its name's, whatever its first line says."""
    async with running(tmp_path) as log:
        for hour in range(3):
            await append(log, range(1, 11), time_us=T0 + hour * HOUR)
    path = tmp_path / "live" / "2026-11-20T11.jsonl"
    data = bytearray(path.read_bytes())
    data[len(b'{"cursor":') + digit] ^= bit
    path.write_bytes(data)
    async with running(tmp_path) as log:
        assert log.floor == T0
        assert [hour.first for hour in log.finished_hours()] == [T0 + 1, T0 + HOUR]
        seen, gaps = await from_disk(log, log.floor)
    everything = [T0 + hour * HOUR + number for hour in range(3) for number in range(1, 11)]
    assert [cursor for cursor, _ in seen] == [each for each in everything if each != T0 + HOUR + 1]
    assert [(gap.after, gap.before) for gap in gaps] == [(T0 + 10, T0 + HOUR + 2)]


async def test_an_hour_that_somebody_took_away_is_a_gap(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        for hour in range(3):
            await append(log, range(1, 4), time_us=T0 + hour * HOUR)
        (tmp_path / "live" / "2026-11-20T11.jsonl").unlink()
        seen, gaps = await from_disk(log, log.floor)
    assert len(seen) == 6
    assert [(gap.after, gap.before) for gap in gaps] == [(T0 + 3, T0 + 2 * HOUR + 1)]


async def test_where_the_current_file_was_taken_away_memory_goes_on_behind_a_gap(
    tmp_path: Path,
) -> None:
    """Whoever reads history gets there, and does not ask for ever."""
    async with running(tmp_path, settings=SMALL) as log:
        for first in range(1, 400, 20):
            await append(log, range(first, first + 20), padding=10_000)
        start = log._tail.start
        assert log.floor < start
        (tmp_path / "live" / "2026-11-20T10.jsonl").unlink()
        seen, gaps = await from_disk(log, log.floor)
        in_memory, _ = await from_memory(log, start)
        assert seen
        assert in_memory[: len(seen)] == seen
        assert [(gap.after, gap.before) for gap in gaps] == [(log.floor, seen[0][0])]
        position = seen[-1][0]
        assert log.in_memory(position)
        assert (await from_memory(log, position))[0] == in_memory[len(seen) :]


async def test_big_files_are_searched_not_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_SCAN_BYTES", 20_000)
    monkeypatch.setattr(reader, "_PROBE_BYTES", 1000)
    async with running(tmp_path) as log:
        for number in range(1500):
            padding = 30_000 if number % 97 == 0 else number % 211
            log.append(record(number, time_us=T0 + 2 * number, padding=padding))
        await log.flush()
        seen = plain_scan(tmp_path)
        read_bytes, original = 0, os.pread

        def pread(descriptor: int, size: int, offset: int) -> bytes:
            nonlocal read_bytes
            read_bytes += size
            return original(descriptor, size, offset)

        monkeypatch.setattr(os, "pread", pread)
        for position in range(log.floor, log.head, 67):
            read_bytes = 0
            chunks = await log.read_chunks(position)
            assert chunks[0].cursor(0) == next(one for one, _ in seen if one > position)
            rest = sum(len(text) + 1 for one, text in seen if one > position)
            assert read_bytes < rest + 250_000


async def test_identities_are_those_of_the_events(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        records = [record(n, time_us=T0 + n * 1_000_000, padding=900) for n in range(5000)]
        for one in records:
            log.append(one)
        await log.flush()
        for first, last in ((-1, 4999), (0, 0), (10, 4321), (4999, 4999), (4000, 9999)):
            found = await log.read_identities(
                after=T0 + first * 1_000_000, until=T0 + last * 1_000_000
            )
            assert list(found) == [one.event.identity for one in records[first + 1 : last + 1]]


async def test_lines_of_more_than_a_mebibyte_pass(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        for number in range(6):
            one = record(number, padding=MEGABYTE - 700 if number % 2 else 0)
            views = b'{"user":"%b"}}' % (b"x" * (MEGABYTE // 2 if number % 3 else 2))
            log.append(Record(one.event, one.body.removesuffix(b"{}}") + views, number))
        await log.flush()
        seen = plain_scan(tmp_path)
        assert len(seen) == 6
        for read in (from_memory, from_disk):
            assert (await read(log, log.floor))[0] == seen
    async with running(tmp_path) as log:
        assert log.head == seen[-1][0]


async def test_room_is_bounded_in_bytes(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        number = 0
        while log.has_room:
            log.append(record(number, padding=500_000))
            number += 1
        assert 16 * MEGABYTE <= log.statistics().queued_bytes < 17 * MEGABYTE
        with trio.fail_after(10):
            await log.room()
        await log.flush()
        statistics = log.statistics()
        assert (statistics.queued_records, statistics.queued_bytes) == (0, 0)
        sizes = [path.stat().st_size for path in (tmp_path / "live").iterdir()]
        assert statistics.disk_bytes == sum(sizes)
        with trio.testing.assert_checkpoints():
            await log.room()


async def test_unknown_files_are_left_alone_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    folder.mkdir()
    for name in ("notes.txt", "2026-11-20T10.jsonl.bak"):
        (folder / name).write_text("mine")
    (folder / "2026-11-20T09.jsonl").touch()
    (folder / "2026-11-20T07.gaps.jsonl").touch()
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path) as log:
            assert (log.floor, log.head) == (0, 0)
    warnings = [entry for entry in logs if entry["event"] == "log_unknown_files"]
    assert warnings[0]["files"] == ["2026-11-20T10.jsonl.bak", "notes.txt"]
    assert sorted(path.name for path in folder.iterdir()) == warnings[0]["files"]


async def test_a_failing_disk_stops_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def append_(_file: SyncedFile, _data: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(SyncedFile, "append", append_)
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with running(tmp_path) as log:
            await append(log, range(1))


async def test_cancelling_leaves_no_half_batch(tmp_path: Path) -> None:
    """What the thread began is finished, synced and published before the log ends."""
    for number in range(10):
        written: list[int] = []
        before = len(plain_scan(tmp_path)) if number else 0
        async with running(tmp_path, written=written) as log:
            for each in range(1000):
                log.append(record(each, padding=200))
            await trio.sleep(number * 0.001)
        assert len(plain_scan(tmp_path)) == before + len(written)
        assert log.head == (plain_scan(tmp_path) or [(0, b"")])[-1][0]
