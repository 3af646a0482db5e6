"""Subscribers that come, go, lag and change their minds: each has what a plain scan selects."""

import random
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Wish
from tests.acceptance.process import serving
from tests.acceptance.restless import Restless, wish
from tests.acceptance.settling import caught_up, settled, until
from turbod.simulation.world import simulated

SEED = 20_261_122
FOLLOWERS = 20
WANDER_SECONDS = 8
OPTIONS = {"log-memory-bytes": 1024 * 1024}  # so that a lag of seconds is served from disk


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_restless_subscribers_get_exactly_what_they_asked_for(tmp_path: Path) -> None:
    """From memory and from disk, with every kind of filter, changed on the way."""
    how = random.Random(SEED)
    async with (
        simulated(seed=SEED) as simulation,
        serving(simulation, tmp_path / "data", options=OPTIONS) as turbod,
        trio.open_nursery() as nursery,
    ):
        simulation.appview.latency_seconds = 0.02
        simulation.rate = 150
        followers = []
        async with trio.open_nursery() as wandering:
            for number in range(FOLLOWERS):
                shard = (how.randrange(3), 3) if number % 5 == 4 else None
                mine = wish(how, simulation)
                follower = Restless(
                    turbod.port,
                    wish=Wish(shard=shard) if shard else mine,
                    cursor=how.choice(("0", "-3s", "0")),
                    read_bytes=how.choice((2000, 65536)),
                )
                followers.append(follower)
                await nursery.start(follower.run)
                moods = random.Random(how.random())
                wandering.start_soon(
                    partial(follower.wander, moods, simulation, seconds=WANDER_SECONDS)
                )
                await trio.sleep(how.uniform(0, 0.3))
        simulation.rate = 0
        log = await settled(simulation, turbod.data)
        await until(
            lambda: all(f.start is not None for f in followers), seconds=10, what="all connected"
        )
        status = await turbod.status()
        assert status["log"]["memory_records"] < len(log) / 2, "most was served from disk"
        await caught_up(followers, log)
        assert sum(len(follower.ends) for follower in followers) > FOLLOWERS / 2
        assert sum(len(follower.wishes) for follower in followers) > FOLLOWERS
        nursery.cancel_scope.cancel()
