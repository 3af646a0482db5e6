"""Whatever ends a process of turbod: clients lose nothing, and the port never closes."""

import os
import time
from collections import Counter

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.process import connected
from tests.acceptance.settling import caught_up, settled, until
from tests.systemd.machine import Figures
from tests.systemd.unit import SERVICE, Unit, reading
from turbod.simulation.world import Simulation, simulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

RATE = 100
FOLLOWERS = 3
HAMMERS = 5
PAUSE_SECONDS = 0.02
RESTARTS = 3


class Hammer:
    """Opens connections all the time, several at once, and asks one thing on each.

    Attributes:
        answers: how many came, by HTTP status; or by what was wrong.
        longest_seconds: of one question.
    """

    def __init__(self, unit: Unit) -> None:
        self.answers: Counter[str] = Counter()
        self.longest_seconds = 0.0
        self._unit = unit

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(HAMMERS):
                nursery.start_soon(self._ask)
            task_status.started()

    async def _ask(self) -> None:
        while True:
            asked = time.monotonic()
            try:
                status, body = await self._unit.get("/records?cursor=0&limit=1")
                self.answers[str(status) if status == 200 else f"{status} {body!r}"] += 1
            except OSError as error:
                self.answers[repr(error)] += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - asked)
            await trio.sleep(PAUSE_SECONDS)


async def loaded(
    unit: Unit, simulation: Simulation, nursery: trio.Nursery
) -> tuple[list[Follower], Hammer]:
    """Start turbod on a busy simulation, with followers and a hammer."""
    unit.settings(*reading(simulation))
    await unit.start()
    followers = [Follower(unit.port) for _ in range(FOLLOWERS)]
    hammer = Hammer(unit)
    await nursery.start(hammer.run)
    for follower in followers:
        await nursery.start(follower.run)
    await connected(simulation)
    simulation.rate = RATE
    await flowing(followers)
    return followers, hammer


async def flowing(followers: list[Follower]) -> None:
    """Wait until each follower has more than before."""
    before = [len(follower.lines) for follower in followers]
    await until(
        lambda: all(len(f.lines) > b + RATE // 2 for f, b in zip(followers, before, strict=True)),
        seconds=30,
        what="events for everybody",
    )


async def resident_megabytes(unit: Unit) -> int:
    """Return the process's memory."""
    pid = unit.machine.host_pid(await unit.main_pid())
    pages = await trio.Path(f"/proc/{pid}/statm").read_text()
    return int(pages.split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_000_000


async def nothing_lost(unit: Unit, simulation: Simulation, followers: list[Follower]) -> None:
    """Check the log against the network, and each follower against the log, to the byte."""
    simulation.rate = 0
    log = await settled(simulation, unit.data)
    await caught_up(followers, log)


async def test_restarts_under_load_lose_nothing_and_refuse_nobody(
    unit: Unit, figures: Figures
) -> None:
    """Each client is told bye; who connects meanwhile waits a moment and is served."""
    async with simulated(seed=21) as simulation, trio.open_nursery() as nursery:
        followers, hammer = await loaded(unit, simulation, nursery)
        for _ in range(RESTARTS):
            ends = [len(follower.ends) for follower in followers]
            with figures.timed("systemctl restart under load"):
                await unit.run("systemctl", "restart", SERVICE)
            assert [len(f.ends) - e for f, e in zip(followers, ends, strict=True)] == [
                1
            ] * FOLLOWERS
            await flowing(followers)
        await nothing_lost(unit, simulation, followers)
        figures.note("memory after that", f"{await resident_megabytes(unit)} MB")
        nursery.cancel_scope.cancel()
    assert {code for follower in followers for code in follower.ends} == {1001}
    assert all(sum(told.get("reason") == "bye" for told in f.news) == RESTARTS for f in followers)
    assert set(hammer.answers) == {"200"}
    assert not [follower.refusals for follower in followers if follower.refusals]
    figures.note(
        "new connections during three restarts",
        f"{hammer.answers['200']}, none refused, the longest answer {hammer.longest_seconds:.1f} s",
    )
    assert await unit.restarts() == 0, "systemd saw no failure"


async def test_a_killed_process_is_started_again_and_nothing_is_lost(
    unit: Unit, figures: Figures
) -> None:
    async with simulated(seed=22) as simulation, trio.open_nursery() as nursery:
        followers, hammer = await loaded(unit, simulation, nursery)
        killed = time.monotonic()
        await unit.run("systemctl", "kill", "--signal=SIGKILL", "--kill-whom=main", SERVICE)
        await flowing(followers)
        figures.note("kill -9 to events again", f"{time.monotonic() - killed:.1f} s")
        assert await unit.restarts() == 1
        await nothing_lost(unit, simulation, followers)
        nursery.cancel_scope.cancel()
    refused = [what for what in hammer.answers if "refused" in what.lower() or what[0] in "45"]
    assert refused == [], "the port stayed open; only what was under way broke"


async def test_it_stops_in_time_under_load_and_with_exit_0(unit: Unit, figures: Figures) -> None:
    async with simulated(seed=23) as simulation, trio.open_nursery() as nursery:
        followers, _ = await loaded(unit, simulation, nursery)
        slow = Follower(unit.port, read_bytes=512, pause_seconds=0.5)
        await nursery.start(slow.run)
        await slow.connected.wait()
        since = await unit.machine.journal_cursor()
        with figures.timed("stop under load"):
            await unit.run("systemctl", "stop", "turbod.socket", SERVICE)
        nursery.cancel_scope.cancel()
    shown = await unit.show("Result", "ExecMainStatus", "ExecMainCode", "ActiveState")
    assert shown == {
        "Result": "success",
        "ExecMainStatus": "0",
        "ExecMainCode": str(int(os.CLD_EXITED)),
        "ActiveState": "inactive",
    }
    assert any("stopped" in line for line in await unit.words(since=since))
    assert {follower.ends[0] for follower in followers} == {1001}
