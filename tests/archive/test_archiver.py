"""The archiver over a folder: oldest first, read back before it counts, for ever."""

from itertools import pairwise
from pathlib import Path

import pytest
import structlog.testing
import trio

from tests.archive.archivers import Machine, folder_machine, retry_quickly, until
from turbod.archive.stores.store import NeedsMending, StoreFault
from turbod.archive.upload import archiver as archiver_module


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return folder_machine(tmp_path)


def puts(machine: Machine) -> list[str]:
    return [each for each in machine.moods.asked if each.startswith("put")]


async def test_what_waits_is_stored_oldest_first_and_then_lies_in_verified(
    machine: Machine, tmp_path: Path
) -> None:
    names = sorted(machine.seal(hour) for hour in (3, 1, 2))
    async with machine.running() as archiver:
        assert archiver.statistics().oldest_waiting == names[0].first
        await until(lambda: archiver.statistics().uploaded == 3)
    assert puts(machine) == [f"put {name.key}" for name in names]
    assert machine.files("sealed") == []
    assert machine.files("verified") == [name.file for name in names]
    for name in names:
        stored = (tmp_path / "archive" / name.key).read_bytes()
        assert stored == (machine.data / "verified" / name.file).read_bytes()
        held = machine.catalogue.after(name.first - 1)
        assert held is not None
        assert held.is_stored
        assert held.path == machine.data / "verified" / name.file


async def test_an_object_counts_only_once_it_was_read_back(machine: Machine) -> None:
    name = machine.seal(1)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded)
    assert machine.moods.asked[-1] == f"sha256 {name.key}"


async def test_an_hour_sealed_while_all_is_well_is_stored_at_once(machine: Machine) -> None:
    async with machine.running() as archiver:
        for hour in range(1, 4):
            await trio.testing.wait_all_tasks_blocked(0.02)
            machine.sealed(archiver, hour)
            await until(lambda hour=hour: archiver.statistics().uploaded == hour)  # type: ignore[misc]


async def test_what_is_in_the_store_already_is_not_stored_again(
    machine: Machine, tmp_path: Path
) -> None:
    name = machine.seal(1)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded)
    # A crash after the upload and before the rename leaves this.
    (machine.data / "verified" / name.file).rename(machine.data / "sealed" / name.file)
    before = (tmp_path / "archive" / name.key).stat()
    async with machine.running() as archiver:
        await until(lambda: machine.files("verified") == [name.file])
    assert (tmp_path / "archive" / name.key).stat().st_ino == before.st_ino
    assert len(puts(machine)) == 1


async def test_a_store_that_is_away_is_waited_for_and_the_log_says_so_once(
    machine: Machine,
) -> None:
    machine.seal(1)
    with structlog.testing.capture_logs() as logs:
        async with machine.running() as archiver:
            await until(lambda: archiver.statistics().uploaded == 1)
            machine.moods.fault = "the cable is out"
            machine.sealed(archiver, 2)
            asked = len(machine.moods.asked)
            await until(lambda: len(machine.moods.asked) > asked + 5)
            statistics = archiver.statistics()
            assert (statistics.state, statistics.fault) == ("failing", "the cable is out")
            assert (statistics.hours_waiting, statistics.uploaded) == (1, 1)
            assert statistics.waiting_bytes > 0
            machine.moods.fault = None
            await until(lambda: archiver.statistics().uploaded == 2)
            assert archiver.statistics().state == "ok"
            assert archiver.statistics().fault is None
            assert archiver._backoff.next_seconds() <= 0.02, "the next fault is retried soon again"
    events = [each["event"] for each in logs if each["event"].startswith("archive_")]
    assert events == ["archive_failing", "archive_ok"]


async def test_what_fails_is_tried_again_with_growing_waits(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.rate == 0
    monkeypatch.setattr(archiver_module, "FIRST_RETRY_SECONDS", 1.0)
    monkeypatch.setattr(archiver_module, "LONGEST_RETRY_SECONDS", 300.0)
    times: list[float] = []

    async def refuse(after: str = "") -> list[object]:
        times.append(trio.current_time())
        raise StoreFault(f"not now {after}")

    monkeypatch.setattr(machine.store, "list", refuse)
    monkeypatch.setattr(machine.store, "check", refuse)
    async with trio.open_nursery() as nursery:
        archiver = await machine.start(open_seconds=0)
        await nursery.start(archiver.run)
        await trio.sleep(3600)
        nursery.cancel_scope.cancel()
    waits = sorted({round(b - a, 3) for a, b in pairwise(times)} - {0.0})
    assert 0.5 <= waits[0] <= 1
    assert 150 <= waits[-1] <= 300
    assert len(times) < 2 * 40


async def test_the_end_waits_for_what_is_quick_and_for_nothing_that_fails(
    machine: Machine,
) -> None:
    async with machine.running() as archiver:
        machine.sealed(archiver, 1)
        await archiver.finish(10)
        assert archiver.statistics().uploaded == 1
        machine.moods.fault = "away"
        machine.sealed(archiver, 2)
        with trio.fail_after(5):
            await archiver.finish(60)
        await until(lambda: archiver.statistics().state == "failing")
        machine.moods.fault, machine.moods.hangs = None, True
        with trio.fail_after(5):
            await archiver.finish(60)
            await archiver.finish(0.05)


async def test_a_store_that_does_not_answer_holds_the_start_no_longer_than_allowed(
    machine: Machine,
) -> None:
    name = machine.seal(1)
    machine.moods.hangs = True
    with trio.fail_after(10):
        archiver = await machine.start(open_seconds=0.1)
    assert archiver.statistics().state == "failing"
    assert "did not answer within 0.1 s" in str(archiver.statistics().fault)
    assert archiver.instance
    assert not machine.catalogue.is_listed
    machine.moods.hangs = False
    async with trio.open_nursery() as nursery:
        await nursery.start(archiver.run)
        await until(lambda: machine.files("verified") == [name.file])
        nursery.cancel_scope.cancel()


async def test_what_an_operator_must_mend_does_not_hold_the_start(machine: Machine) -> None:
    """Waiting cannot help. It is mended while turbod runs, and the hour gets there."""
    name = machine.seal(1)
    machine.moods.fault, machine.moods.kind = "no such bucket", NeedsMending
    with trio.fail_after(10):
        archiver = await machine.start(open_seconds=60)
    assert (archiver.statistics().state, archiver.statistics().fault) == (
        "failing",
        "no such bucket",
    )
    machine.moods.fault = None
    async with trio.open_nursery() as nursery:
        await nursery.start(archiver.run)
        await until(lambda: machine.files("verified") == [name.file])
        nursery.cancel_scope.cancel()


async def test_what_may_pass_holds_the_start_as_long_as_allowed(machine: Machine) -> None:
    machine.moods.fault = "the server failed"
    with trio.move_on_after(0.5) as scope:
        await machine.start(open_seconds=60)
    assert scope.cancelled_caught


async def test_a_hanging_upload_ends_with_the_process(machine: Machine) -> None:
    async with machine.running() as archiver:
        machine.moods.hangs = True
        machine.sealed(archiver, 1)
        await trio.sleep(0.05)
        with trio.fail_after(10):
            await archiver.finish(0.1)
    assert len(machine.files("sealed")) == 1


async def test_a_file_that_is_gone_or_unreadable_does_not_hold_the_next_ones_up(
    machine: Machine,
) -> None:
    gone, unreadable, good = (machine.seal(hour) for hour in (1, 2, 3))
    archiver = await machine.start()
    (machine.data / "sealed" / gone.file).unlink()
    (machine.data / "sealed" / unreadable.file).unlink()
    (machine.data / "sealed" / unreadable.file).mkdir()
    async with trio.open_nursery() as nursery:
        await nursery.start(archiver.run)
        await until(lambda: machine.files("verified") == [good.file])
        await until(lambda: archiver.statistics().hours_waiting == 1)
        assert archiver.statistics().state == "conflict"
        text = f"{unreadable.file} cannot be read"
        await until(lambda: text in str(archiver.statistics().fault))
        nursery.cancel_scope.cancel()
