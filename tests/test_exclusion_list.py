"""The file of the exclusion list is looked at for as long as turbod runs, and never waited for."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from tests.acceptance.settling import until
from turbod import exclusion
from turbod.exclusion import Watch

ALICE, BOB = "did:plc:" + "a" * 24, "did:plc:" + "b" * 24


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusion, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(exclusion, "READ_SECONDS", 0.1)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    file = tmp_path / "list"
    file.write_text(ALICE)
    return file


@asynccontextmanager
async def running(watch: Watch) -> AsyncIterator[list[frozenset[str]]]:
    """Collect the lists that it tells of."""
    told: list[frozenset[str]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, told.append)
        yield told
        nursery.cancel_scope.cancel()


def write(file: Path, text: str) -> None:
    """Put a new file in its place."""
    file.unlink()
    file.write_text(text)


def watching(file: Path) -> Watch:
    return Watch(lambda: str(file), trio.CapacityLimiter(1))


async def test_what_changed_before_it_began_to_look_is_seen(listed: Path) -> None:
    """Repairing the log may take minutes between reading the list and looking at it again."""
    watch = watching(listed)
    write(listed, f"{ALICE}\n{BOB}")
    async with running(watch) as told:
        await until(lambda: bool(told), seconds=10, what="the list of two")
    assert told == [{ALICE, BOB}]


async def test_a_disk_that_hangs_holds_up_nobody_and_is_told_once(listed: Path) -> None:
    """A pipe that nobody writes to plays the disk; the list holds that was there before."""
    watch = watching(listed)
    pipe = listed.with_suffix(".pipe")
    os.mkfifo(pipe)
    pipe.replace(listed)
    with structlog.testing.capture_logs() as lines:
        async with running(watch) as told:
            await until(lambda: bool(lines), seconds=10, what="a line")
            await trio.sleep(0.5)
            assert told == []
            descriptor = os.open(listed, os.O_WRONLY)  # lets the thread go on
            os.write(descriptor, b"\xff")
            os.close(descriptor)
            write(listed, BOB)
            await until(lambda: bool(told), seconds=10, what="the list behind it")
    assert told == [{BOB}]
    hangs: list[Any] = [line for line in lines if "a disk hangs" in line["error"]]
    assert [line["event"] for line in hangs] == ["exclusion_unreadable"]


async def test_a_file_that_is_no_list_is_ten_lines(listed: Path) -> None:
    watch = watching(listed)
    write(listed, "no did\n" * 100_000)
    with structlog.testing.capture_logs() as lines:
        async with running(watch) as told:
            await until(lambda: bool(told), seconds=10, what="an empty list")
    assert told == [frozenset()]
    assert len(lines) == exclusion.MOST_TOLD
    assert {line["lines"] for line in lines} == {100_000}
