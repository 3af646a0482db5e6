"""The log on a full disk, and under kill -9."""

import errno
import os
import random
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing
import trio

from tests.eventlog.samples import (
    HOUR,
    T0,
    from_disk,
    from_memory,
    plain_gaps,
    plain_scan,
    record,
    running,
)
from turbod.eventlog import hour_file, opening
from turbod.eventlog.appender import SyncedFile
from turbod.eventlog.log import EventLog


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.fixture
def file_limit() -> Iterator[None]:
    """Files may not grow beyond 300 kB: the next write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def until_fault(log: EventLog) -> None:
    with trio.fail_after(10):
        while log.fault is None:  # noqa: ASYNC110 - a fault wakes nobody
            await trio.sleep(0.005)


async def test_a_full_disk_is_waited_out(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    written: list[int] = []
    with structlog.testing.capture_logs() as logs:
        async with running(small_disk, written=written) as log:
            for number in range(100):
                log.append(record(number, padding=1000))
            await log.flush()
            on_disk = plain_scan(small_disk)
            ballast.write_bytes(b"x" * 1_600_000)
            log.mark_gap("lost")
            for number in range(100, 900):
                log.append(record(number, padding=1000))
            await until_fault(log)
            assert log.fault == "disk full: No space left on device"
            assert plain_scan(small_disk) == on_disk == (await from_memory(log, log.floor))[0]
            assert log.head == on_disk[-1][0]
            assert len(written) == 100
            await trio.sleep(0.2)
            ballast.unlink()
            with trio.fail_after(10):
                await log.flush()
            assert str(log.fault) == "None"
            assert written == list(range(900))
            seen, gaps = await from_disk(log, log.floor)
            assert seen == plain_scan(small_disk)
            assert [cursor for cursor, _ in seen] == [T0 + number for number in range(900)]
            assert gaps == plain_gaps(small_disk)
            assert len(gaps) == 1
    events = [entry["event"] for entry in logs if "writing" in entry["event"]]
    assert events == ["log_not_writing", "log_writing_again"]


@pytest.mark.usefixtures("file_limit")
async def test_a_file_that_may_not_grow_is_waited_out(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        for number in range(400):
            log.append(record(number, padding=1000))
        await until_fault(log)
        assert "disk full" in str(log.fault)
        assert (await from_disk(log, 0))[0] == plain_scan(tmp_path)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        with trio.fail_after(10):
            await log.flush()
        assert [cursor for cursor, _ in plain_scan(tmp_path)] == [T0 + n for n in range(400)]


async def test_a_new_hour_on_a_full_disk_begins_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    async with running(small_disk) as log:
        log.append(record(0))
        await log.flush()
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(b"x" * 3_000_000)
        log.mark_gap("lost")
        log.append(record(1, time_us=T0 + HOUR))
        await until_fault(log)
        assert log.statistics().hours == 1
        ballast.unlink()
        with trio.fail_after(10):
            await log.flush()
        assert log.statistics().hours == 2
        assert [gap.before for gap in plain_gaps(small_disk)] == [T0 + HOUR]


async def test_only_the_end_of_a_big_file_is_checked_or_all_where_that_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "REPAIR_BYTES", 50_000)
    async with running(tmp_path) as log:
        for number in range(400):
            log.append(record(number, padding=700))
        await log.flush()
        seen = plain_scan(tmp_path)
    path = tmp_path / "live" / "2026-11-20T10.jsonl"
    whole = path.read_bytes()
    checked = 0
    original = hour_file.sound_bytes

    def sound_bytes(block: bytes, *, hour: int, last: int) -> tuple[int, int]:
        nonlocal checked
        checked += len(block)
        return original(block, hour=hour, last=last)

    monkeypatch.setattr(opening, "sound_bytes", sound_bytes)
    for torn in (b"", b"\0" * 4096, b'{"cursor":17'):
        checked = 0
        path.write_bytes(whole + torn)
        async with running(tmp_path) as log:
            assert log.head == seen[-1][0]
        assert path.read_bytes() == whole
        assert checked < 60_000
    torn_line = record(1, padding=60_000).line(T0 + HOUR // 2)[:49_900]
    path.write_bytes(whole + torn_line)
    async with running(tmp_path) as log:
        assert log.head == seen[-1][0], "no sound line began in the part that was looked at"
    path.write_bytes(whole[:-100_000] + b"\0" * 100_000)
    async with running(tmp_path) as log:
        kept = plain_scan(tmp_path)
        assert kept == seen[: len(kept)]
        assert sum(len(text) + 1 for _, text in kept) > len(whole) - 102_000


def test_what_a_failed_sync_left_is_cut_before_the_next_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = SyncedFile(tmp_path / "file")
    file.append(b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                file.append(b"two\n")
    assert file.size == 4
    file.append(b"three\n")
    file.close()
    assert (tmp_path / "file").read_bytes() == b"one\nthree\n"


TOLD = re.compile(r"(\d+):(\d+)\n")
APPENDING = """
import sys, time, trio
from pathlib import Path
from tests.eventlog.samples import record
from turbod.config import LogSettings
from turbod.eventlog.log import EventLog

async def main():
    data, first = Path(sys.argv[1]), int(sys.argv[2])
    def written(intakes):
        print(*(f"{intake}:{log.head}" for intake in intakes[-1:]), flush=True)
    log = EventLog(data, LogSettings(), written=written)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        for number in range(first, first + 10**6):
            now_us = time.time_ns() // 1000
            log.append(record(number, time_us=now_us + number % 7, padding=number % 999))
            if number % 10 == 0:
                await trio.sleep(0.001)
trio.run(main)
"""


def test_kill_9_loses_nothing_that_was_published(tmp_path: Path) -> None:
    draw = random.Random(9)
    told: dict[int, int] = {}
    for life in range(4):
        first = life * 10**6
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDING, str(tmp_path), str(first)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as output:
            while not TOLD.fullmatch(text := output.readline()):
                assert process.poll() is None, text
            signal.sigtimedwait([], draw.uniform(0.05, 0.3))
            process.send_signal(signal.SIGKILL)
            lines = [text, *output]
        process.wait()
        told |= {int(each[1]): int(each[2]) for each in map(TOLD.fullmatch, lines) if each}

    async def check() -> None:
        async with running(tmp_path) as log:
            assert log.head >= max(told.values())

    trio.run(check)
    seen = plain_scan(tmp_path)
    cursors = [cursor for cursor, _ in seen]
    assert cursors == sorted(set(cursors))
    by_cursor = dict(seen)
    assert len(told) > 20
    for number, cursor in told.items():
        assert f'"rkey":"3k{number}"'.encode() in by_cursor[cursor]
    numbers = [int(text.split(b'"rkey":"3k')[1].split(b'"')[0]) for _, text in seen]
    assert numbers == sorted(set(numbers)), "each once, in order"
    for life in range(4):
        mine = [number for number in numbers if number // 10**6 == life]
        assert mine == list(range(life * 10**6, life * 10**6 + len(mine))), "none missing"
