"""The watchdog of a real process: fed while something is away, full or slow; not while one hangs.

What is late after a minute is so after two seconds here, and every wait is as long as ever.
"""

import resource
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.acceptance.process import Turbod
from tests.acceptance.service_manager import Manager
from tests.acceptance.settling import until
from tests.archive.samples_archive import plain_lines
from tests.archive.scripted_s3 import HANG, scripted_s3
from turbod.simulation.world import Simulation, simulated

SILENT_SECONDS = 2.0
QUIET_SECONDS = 4 * SILENT_SECONDS
WATCHDOG_SECONDS = 2.0
# `turbod` in haste, of which syncs hang while one file is there, and the event loop while another.
HASTY = f"""
import os, pathlib, sys, time
from turbod import cli, heartbeat
hang, spin = (pathlib.Path(sys.argv.pop(1)) for _ in range(2))
heartbeat.TICK_SECONDS, heartbeat.SILENT_SECONDS = 0.1, {SILENT_SECONDS}
sync, tick = os.fdatasync, heartbeat.Heartbeats.tick
def sync_or_hang(descriptor):
    while hang.exists():
        time.sleep(0.01)
    sync(descriptor)
def tick_or_spin(heartbeats):
    while spin.exists():
        pass
    tick(heartbeats)
os.fdatasync, heartbeat.Heartbeats.tick = sync_or_hang, tick_or_spin
cli.main()
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.close()


@asynccontextmanager
async def watched(
    folder: Path,
    manager: Manager,
    simulation: Simulation | None = None,
    *,
    options: Sequence[str] = (),
) -> AsyncIterator[Turbod]:
    """Run turbod under a watchdog; without a simulation, without anything that it could reach."""
    turbod = Turbod(
        folder / "data",
        upstreams=[host.url for host in simulation.jetstreams]
        if simulation
        else ["ws://127.0.0.1:9/subscribe"],
        appview=simulation.appview.url if simulation else "http://127.0.0.1:9",
        options=options,
        program=("-c", HASTY, str(folder / "hang"), str(folder / "spin")),
    )
    turbod.command[:0] = [
        *("env", f"NOTIFY_SOCKET={manager.address}"),
        f"WATCHDOG_USEC={round(WATCHDOG_SECONDS * 1_000_000)}",
    ]
    try:
        await turbod.start()
        await until(lambda: "READY=1" in manager.heard, seconds=20, what="READY=1")
        yield turbod
    finally:
        await turbod.clean_up()


def feeds(manager: Manager) -> int:
    return manager.heard.count("WATCHDOG=1")


async def is_fed(turbod: Turbod, manager: Manager, *, seconds: float = QUIET_SECONDS) -> None:
    """Watch for so long, and fail where the watchdog would have bitten."""
    for _ in range(int(seconds / WATCHDOG_SECONDS)):
        before = feeds(manager)
        await trio.sleep(WATCHDOG_SECONDS)
        assert feeds(manager) > before, turbod.output[-3000:]
    assert "task_hangs" not in turbod.output, turbod.output[-3000:]


async def test_with_nothing_to_reach(tmp_path: Path, manager: Manager) -> None:
    async with watched(tmp_path, manager) as turbod:
        await is_fed(turbod, manager)
        assert await turbod.stop() == 0


async def test_with_hosts_that_say_nothing_and_an_appview_that_hangs(
    tmp_path: Path, manager: Manager
) -> None:
    async with (
        simulated(seed=21, rate=20) as simulation,
        watched(tmp_path, manager, simulation) as turbod,
    ):
        simulation.appview.latency_seconds = 1e6
        await is_fed(turbod, manager)
        for host in simulation.jetstreams:
            host.faults.mute_handshake = True
            host.drop_connections()
        await is_fed(turbod, manager)
        for host in simulation.jetstreams:
            host.faults.mute_handshake, host.faults.silent = False, True
            host.drop_connections()
        await is_fed(turbod, manager)


async def test_with_a_full_disk(tmp_path: Path, manager: Manager) -> None:
    """Full for the log, for the cache, and for what the archive would seal."""
    async with (
        simulated(seed=22, rate=50) as simulation,
        watched(tmp_path, manager, simulation) as turbod,
    ):
        resource.prlimit(turbod.process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
        await until(lambda: "log_not_writing" in turbod.output, seconds=20, what="the disk full")
        await is_fed(turbod, manager)


async def test_with_a_bucket_that_never_answers(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    hour(tmp_path / "data", records=100)
    (tmp_path / "data" / "instance").write_text("nobody")  # or the start waits a minute
    async with scripted_s3(lambda _: HANG) as s3:
        options = ["--archive", "s3://bucket/turbod", "--s3-endpoint", s3.endpoint]
        async with watched(tmp_path, manager, options=options) as turbod:
            await is_fed(turbod, manager)
            assert s3.requests


async def test_with_a_budget_that_lets_the_network_run_ahead(
    tmp_path: Path, manager: Manager
) -> None:
    """The sessions are held back, hang up, and wait for room."""
    async with simulated(seed=23, accounts=20_000, rate=400) as simulation:
        options = [
            *("--hydration-calls-per-second", "0.1"),
            *("--hydration-max-pending-bytes", "1048576"),
        ]
        async with watched(tmp_path, manager, simulation, options=options) as turbod:
            await until(
                lambda: "upstream_waits_for_room" in turbod.output, seconds=60, what="no room"
            )
            await is_fed(turbod, manager)


async def test_while_a_big_hour_is_sealed_and_read(tmp_path: Path, manager: Manager) -> None:
    """Sealing takes longer than a task may be silent, and is watched all the same."""
    hour(tmp_path / "data", records=60_000)
    async with watched(tmp_path, manager) as turbod, trio.open_nursery() as nursery:

        async def read() -> None:
            while True:
                status, _ = await turbod.get("/records?cursor=0&limit=1000")
                assert status == 200

        nursery.start_soon(read)
        began = trio.current_time()
        while "hour_archived" not in turbod.output:
            await is_fed(turbod, manager, seconds=WATCHDOG_SECONDS)
        assert trio.current_time() - began >= SILENT_SECONDS
        nursery.cancel_scope.cancel()


async def test_after_it_was_stopped_and_went_on(tmp_path: Path, manager: Manager) -> None:
    """Whoever was asleep with the whole process did not hang."""
    async with watched(tmp_path, manager) as turbod:
        turbod.process.send_signal(signal.SIGSTOP)
        await trio.sleep(2 * SILENT_SECONDS)
        turbod.process.send_signal(signal.SIGCONT)
        await is_fed(turbod, manager)


async def test_a_sync_that_hangs_is_named_and_feeds_nobody_until_it_returns(
    tmp_path: Path, manager: Manager
) -> None:
    async with (
        simulated(seed=24, rate=20) as simulation,
        watched(tmp_path, manager, simulation) as turbod,
    ):
        (tmp_path / "hang").touch()
        await until(lambda: "task_hangs" in turbod.output, seconds=20, what="told what hangs")
        (line,) = [line for line in turbod.output.splitlines() if "task_hangs" in line]
        assert "task=log" in line
        assert "eventlog/writer.py" in line
        before = feeds(manager)
        await trio.sleep(2 * WATCHDOG_SECONDS)
        assert feeds(manager) == before
        assert (await turbod.get("/healthz"))[0] == 200
        (tmp_path / "hang").unlink()
        await until(
            lambda: "task_goes_on" in turbod.output, seconds=20, what="told that it goes on"
        )
        await trio.sleep(WATCHDOG_SECONDS)
        assert feeds(manager) > before
        assert turbod.output.count("task_hangs") == 1


async def test_an_event_loop_that_hangs_feeds_nobody(tmp_path: Path, manager: Manager) -> None:
    async with watched(tmp_path, manager) as turbod:
        (tmp_path / "spin").touch()
        await trio.sleep(0.5)
        before = feeds(manager)
        await trio.sleep(2 * WATCHDOG_SECONDS)
        assert feeds(manager) == before
        (tmp_path / "spin").unlink()
        await is_fed(turbod, manager, seconds=WATCHDOG_SECONDS)


def hour(data: Path, *, records: int) -> None:
    """Leave an hour to be sealed, and one more that makes it finished."""
    (data / "live").mkdir(parents=True)
    for number, name in enumerate(("2026-11-20T10", "2026-11-20T11")):
        lines = plain_lines(number, 1 if number else records)
        (data / "live" / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
