"""A subscriber that is never content: another pace, another connection, another filter."""

import random

import trio

from tests.acceptance.follower import Follower, Wish
from turbod.simulation.world import Simulation

MOST_UPDATES = 4  # a minute; one more is allowed


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

    async def wander(self, how: random.Random, simulation: Simulation, *, seconds: float) -> None:
        """Live for a while; afterwards it only follows."""
        updates = 0
        with trio.move_on_after(seconds):
            while True:
                await trio.sleep(how.uniform(0.1, 1.5))
                match how.choice(("pace", "leave", "filter", "stay")):
                    case "pace":
                        self.pause_seconds = how.choice((0.0, 0.0, 0.05, 0.3))
                    case "leave":
                        self.hang_up()
                    case "filter" if updates < MOST_UPDATES and self.may_change():
                        updates += 1
                        await self.change(wish(how, simulation))
        self.pause_seconds = 0.0
