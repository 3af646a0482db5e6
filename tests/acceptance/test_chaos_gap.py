"""What no upstream has any more: one `Gap`, at its place, for everybody, for good."""

from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower, cursor_of
from tests.acceptance.plain_scan import logged
from tests.acceptance.process import serving
from tests.acceptance.settling import caught_up, until
from turbod.simulation.world import Simulation, simulated


async def some(simulation: Simulation, follower: Follower, *, more: int = 50) -> None:
    """Let events happen until so many more were delivered."""
    count = len(follower.lines) + more
    simulation.rate = 100
    await until(lambda: len(follower.lines) >= count, seconds=25, what=f"{more} more records")
    simulation.rate = 0
    await trio.sleep(1.5)  # for the positions to be saved


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_hole_in_both_hosts_is_one_gap_for_everybody(tmp_path: Path) -> None:
    """Live and in history, before and after a restart, between the same two cursors."""
    async with (
        simulated(seed=21) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
        trio.open_nursery() as nursery,
    ):
        live = Follower(turbod.port)
        await nursery.start(live.run)
        await some(simulation, live)
        before = logged(turbod.data)
        await turbod.kill()
        simulation.emit(200)
        for host in simulation.jetstreams:
            host.lose_history()
        await turbod.start()
        await until(lambda: len(live.ends) > 0 and live.connected.is_set(), seconds=10, what="back")
        await some(simulation, live)
        after = logged(turbod.data)[len(before) :]
        history, filtered = (
            Follower(turbod.port),
            Follower(turbod.port, extra=[("kinds", "account")]),
        )
        for follower in (history, filtered):
            await nursery.start(follower.run)
        await until(
            lambda: bool(filtered.gaps) and history.cursor == live.cursor, seconds=10, what="all"
        )
        await turbod.stop()
        await turbod.start()
        again = Follower(turbod.port)
        await nursery.start(again.run)
        await caught_up([live, history, again], logged(turbod.data))
        nursery.cancel_scope.cancel()
    for name, follower in enumerate((live, history, filtered, again)):
        assert len(follower.gaps) == 1, (name, follower.gaps)
        gap = follower.gaps[0]
        assert gap["after"] == cursor_of(before[-1])
        assert gap["before"] == cursor_of(after[0])


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_hole_that_the_other_host_covers_is_no_gap(tmp_path: Path) -> None:
    """One host lost its history while turbod was down, the other has it: nothing is told."""
    async with (
        simulated(seed=22) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
        trio.open_nursery() as nursery,
    ):
        live = Follower(turbod.port)
        await nursery.start(live.run)
        await some(simulation, live)
        await turbod.kill()
        simulation.emit(200)
        simulation.jetstreams[0].lose_history()
        await turbod.start()
        await some(simulation, live, more=150)
        await caught_up([live], logged(turbod.data))
        nursery.cancel_scope.cancel()
    assert not live.gaps
