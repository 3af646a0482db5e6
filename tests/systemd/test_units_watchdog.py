"""What hangs is ended and serves again; what is only quiet is left alone."""

import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from os import kill

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.process import connected
from tests.acceptance.settling import caught_up, settled, until
from tests.systemd.machine import REPOSITORY, Figures
from tests.systemd.unit import NOWHERE, SERVICE, Unit, reading
from turbod.heartbeat import SILENT_SECONDS
from turbod.simulation.world import simulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WATCHDOG_SECONDS = 4
RATE = 50
QUIET = "turbod-quiet"  # a .service, by default
QUIET_WATCHDOG_SECONDS = 2
QUIET_PERIODS = 45


@pytest.fixture
async def quiet_since(unit: Unit) -> float:
    """When a turbod of its own was started, to which nothing happens: at the first use of this.

    It has no socket unit, nobody sends or asks it anything, and its watchdog has little patience.
    """
    if (await unit.show("ActiveState", unit=QUIET))["ActiveState"] == "inactive":
        unit.machine.write(f"/etc/systemd/system/{QUIET}.service", quiet_unit())
        unit.machine.write("/etc/quiet.toml", "\n".join(['listen = "127.0.0.1:0"', *NOWHERE, ""]))
        await unit.run("systemctl", "daemon-reload")
        await unit.run("systemctl", "start", QUIET)
    entered = "ActiveEnterTimestampMonotonic"
    return int((await unit.show(entered, unit=QUIET))[entered]) / 1_000_000


def quiet_unit() -> str:
    """Return our unit with what sets it apart."""
    text = (REPOSITORY / "systemd" / SERVICE).read_text()
    for old, new in {
        "StateDirectory=turbod": f"StateDirectory={QUIET}",
        "%S/turbod": f"%S/{QUIET}",
        "User=turbod": f"User={QUIET}",
        "/etc/turbod/turbod.toml": "/etc/quiet.toml",
        "WatchdogSec=60s": f"WatchdogSec={QUIET_WATCHDOG_SECONDS}s",
        "Requires=turbod.socket\n": "",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


async def test_a_hung_process_is_aborted_and_serves_again(
    unit: Unit,
    figures: Figures,
    quiet_since: float,  # noqa: ARG001 - it runs meanwhile
) -> None:
    """Stopped in its tracks: the watchdog ends it, and its journal says where it hung."""
    async with followed(unit) as follower:
        since = await unit.machine.journal_cursor()
        hung = time.monotonic()
        kill(unit.machine.host_pid(await unit.main_pid()), signal.SIGSTOP)
        await again(unit, follower)
        figures.note(
            f"hung process to events again, WatchdogSec={WATCHDOG_SECONDS}s",
            f"{time.monotonic() - hung:.1f} s",
        )
    said = [str(entry["MESSAGE"]) for entry in await unit.journal(since=since)]
    assert any("Watchdog timeout" in line for line in said)
    assert any("Current thread" in line or "most recent call first" in line for line in said)


async def test_a_task_that_hangs_is_noticed_though_all_others_go_on(
    unit: Unit,
    figures: Figures,
    quiet_since: float,  # noqa: ARG001 - it runs meanwhile
) -> None:
    """A disk that never answers a sync: the log's task is named as late, then it is ended."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt-get install strace")
    async with followed(unit) as follower:
        since = await unit.machine.journal_cursor()
        hung = time.monotonic()
        with stuck(unit.machine.host_pid(await unit.main_pid()), "fdatasync"):
            # No longer: what is traced ends only when its tracer does.
            await until(
                lambda: said_by_systemd(unit, "Watchdog timeout", since=since),
                seconds=SILENT_SECONDS + WATCHDOG_SECONDS + 30,
                what="the watchdog's end of it",
            )
        await again(unit, follower)
        figures.note(
            f"hung fdatasync to events again, WatchdogSec={WATCHDOG_SECONDS}s",
            f"{time.monotonic() - hung:.0f} s",
        )
    said = [str(entry["MESSAGE"]) for entry in await unit.journal(since=since)]
    assert any(line.startswith("task hangs task=log") for line in said)
    assert any("Watchdog timeout" in line for line in said)


async def test_a_quiet_one_is_left_alone(unit: Unit, quiet_since: float) -> None:
    """For many of its watchdog's periods, without an event, a client or an upstream."""
    until_now = time.monotonic() - quiet_since
    await trio.sleep(max(0.0, QUIET_PERIODS * QUIET_WATCHDOG_SECONDS - until_now))
    shown = await unit.show("NRestarts", "SubState", unit=QUIET)
    assert shown == {"NRestarts": "0", "SubState": "running"}
    await unit.run("systemctl", "stop", QUIET)


@asynccontextmanager
async def followed(unit: Unit) -> AsyncIterator[Follower]:
    """Let turbod read a simulation and one client follow; in the end nobody has lost anything."""
    await unit.change_unit(SERVICE, "Service", f"WatchdogSec={WATCHDOG_SECONDS}s")
    async with simulated(seed=31) as simulation, trio.open_nursery() as nursery:
        unit.settings(*reading(simulation))
        await unit.start()
        follower = Follower(unit.port)
        await nursery.start(follower.run)
        await connected(simulation)
        simulation.rate = RATE
        await until(lambda: len(follower.lines) > RATE, seconds=30, what="events")
        yield follower
        simulation.rate = 0
        await caught_up([follower], await settled(simulation, unit.data))
        nursery.cancel_scope.cancel()


async def again(unit: Unit, follower: Follower) -> None:
    """Wait until it was started again and events come."""
    await until(lambda: restarted(unit), seconds=60, what="it was started again")
    before = len(follower.lines)
    await until(lambda: len(follower.lines) > before, seconds=60, what="events again")


async def restarted(unit: Unit) -> bool:
    """Tell whether systemd started it again by itself, and it is ready."""
    shown = await unit.show("NRestarts", "SubState")
    return shown == {"NRestarts": "1", "SubState": "running"}


async def said_by_systemd(unit: Unit, words: str, *, since: str) -> bool:
    """Tell whether a line of the journal has some words."""
    return any(words in str(entry["MESSAGE"]) for entry in await unit.journal(since=since))


@contextmanager
def stuck(pid: int, call: str) -> Iterator[None]:
    """Let a process's next calls to the kernel not come back."""
    inject = f"inject={call}:delay_enter=600s"
    command = ["strace", "--quiet=all", "-f", "-p", str(pid), "-e", f"trace={call}", "-e", inject]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as strace:
        try:
            yield
        finally:
            strace.kill()
