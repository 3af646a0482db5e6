"""Subscribers that come, go, lag and change their minds: each has what a plain scan selects."""

import random
from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower, Wish
from tests.acceptance.process import serving
from tests.acceptance.settling import caught_up, settled, until
from turbod.simulation.world import Simulation, simulated

SEED = 20_261_122
FOLLOWERS = 20
WANDER_SECONDS = 8
OPTIONS = {"log-memory-bytes": 1024 * 1024}  # so that a lag of seconds is served from disk


def wish(how: random.Random, simulation: Simulation) -> Wish:
    """Draw a filter."""
    people = [account.did for account in simulation.network.people.accounts]
    names = ("app.bsky.feed.post", "app.bsky.feed.*", "app.bsky.graph.follow", "app.bsky.graph.*")
    return Wish(
        collections=tuple(how.sample(names, how.choice((0, 0, 1, 2)))),
        dids=tuple(how.sample(people[:40], how.choice((0, 0, 0, 3, 20)))),
        about=tuple(how.sample(people[:40], how.choice((0, 0, 0, 3, 20)))),
        kinds=tuple(how.sample(("commit", "identity", "account"), how.choice((0, 0, 1, 2)))),
        operations=tuple(how.sample(("create", "update", "delete"), how.choice((0, 0, 0, 1, 2)))),
        most_bytes=how.choice((0, 0, 0, 2000, 5000)),
    )


class Restless(Follower):
    """Reads at a changing pace, hangs up, comes back, changes its filter."""

    async def wander(self, how: random.Random, simulation: Simulation) -> None:
        """Live for a while; afterwards it only follows."""
        updates = 0
        with trio.move_on_after(WANDER_SECONDS):
            while True:
                await trio.sleep(how.uniform(0.1, 1.5))
                match how.choice(("pace", "leave", "filter", "stay")):
                    case "pace":
                        self.pause_seconds = how.choice((0.0, 0.0, 0.05, 0.3))
                    case "leave":
                        self.hang_up()
                    case "filter" if updates < 4 and self.may_change():
                        updates += 1
                        await self.change(wish(how, simulation))
        self.pause_seconds = 0.0


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
                wandering.start_soon(follower.wander, moods, simulation)
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
