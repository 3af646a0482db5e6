"""Two upstreams that are wrong in every way at once: every event once, in order per DID."""

from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower, Wish
from tests.acceptance.plain_scan import disorder, events_of, key_of, missed, sent
from tests.acceptance.process import serving
from tests.acceptance.settling import caught_up, settled
from turbod.simulation.world import simulated

SEED = 20_261_121
RATE = 120
QUICK = {
    "jetstream-silence-seconds": 1,
    "jetstream-ping-seconds": 0.5,
    "jetstream-longest-backoff-seconds": 1,
}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_wrong_upstreams_lose_nothing_and_repeat_nothing(
    tmp_path: Path, version: str
) -> None:
    """Silent, blind, late, alone, repeating, ahead of time, restarted: each event exactly once.

    The order of one DID is the order of arrival, except for what one of the hosts did not have.
    """
    async with (
        simulated(seed=SEED, version=version, history_seconds=3600, history_rate=0.5) as simulation,
        serving(simulation, tmp_path / "data", start=False, options=QUICK) as turbod,
        trio.open_nursery() as nursery,
    ):
        simulation.appview.latency_seconds = 0.02
        one, other = simulation.jetstreams
        # From the beginning: each begins an hour before the position, whatever that is.
        one.faults.repeat_seconds = other.faults.repeat_seconds = 3700
        one.faults.blind_fraction = 0.5
        other.faults.alone_fraction = 0.1
        await turbod.start()
        follower, late = Follower(turbod.port), Follower(turbod.port, wish=Wish(kinds=("commit",)))
        await nursery.start(follower.run)
        simulation.rate = RATE
        await trio.sleep(1.2)
        other.faults.lag_seconds = 4.0
        await trio.sleep(2)
        one.stamp(3600.0)  # an hour ahead, from here on
        await trio.sleep(1.2)
        one.faults.silent = True
        await trio.sleep(2.5)
        one.faults.silent = False
        one.go_down()
        await trio.sleep(0.7)
        one.come_up()
        other.go_down()
        await trio.sleep(0.7)
        one.renumber()
        other.come_up()
        other.faults.lag_seconds = 0.0
        await trio.sleep(0.7)
        one.stamp(-40.0)
        await turbod.kill()
        await turbod.start()
        other.faults.dead = True
        await trio.sleep(2.5)
        other.faults.dead = False
        other.renumber()
        await trio.sleep(1.2)
        one.go_down()
        other.go_down()
        await trio.sleep(0.7)
        one.come_up()
        other.come_up()
        await nursery.start(late.run)
        await trio.sleep(1.2)
        simulation.rate = 0
        log = await settled(simulation, turbod.data, seconds=40)
        network, late_ones = sent(simulation), missed(simulation)
        assert disorder(network, events_of(log), excused=late_ones.__contains__) == ""
        await caught_up([follower, late], log)
        assert not follower.gaps, follower.gaps
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_the_lagging_host_alone_brings_what_it_alone_has(tmp_path: Path) -> None:
    """A host 40 s behind brings its own events 40 s late, once, and nobody else's twice."""
    async with (
        simulated(seed=SEED, history_seconds=60, history_rate=30) as simulation,
        serving(simulation, tmp_path / "data", start=False, options=QUICK) as turbod,
        trio.open_nursery() as nursery,
    ):
        one, other = simulation.jetstreams
        one.faults.repeat_seconds = other.faults.repeat_seconds = 70
        one.faults.blind_fraction = 0.3
        other.faults.lag_seconds = 40.0
        await turbod.start()
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        simulation.rate = 30
        await trio.sleep(6)
        simulation.rate = 0
        only_late = missed(simulation)
        seen = {key_of(event) for event in events_of(follower.lines)}
        assert 0 < len(only_late & seen) < len(only_late), "some came 40 s late, some are to come"
        other.faults.lag_seconds = 0.0
        log = await settled(simulation, turbod.data)
        words = disorder(sent(simulation), events_of(log), excused=only_late.__contains__)
        assert words == ""
        await caught_up([follower], log)
        nursery.cancel_scope.cancel()
