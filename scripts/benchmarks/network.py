"""The network of hydration's benchmarks, in a process of its own: live traffic, a short budget.

Unlike world.py it lives: every post is its own, parents are seconds old, the AppView hears of
things a little later, profiles change.
"""

import json
import sys
from math import ceil
from typing import Any, Final

import msgspec
import trio

from turbod.event import Event, parse
from turbod.hydration.assembly import wanted
from turbod.simulation.jetstream_host import clock_us
from turbod.simulation.network import MOSTLY_POSTS
from turbod.simulation.world import Simulation, simulated

ITEMS_A_CALL: Final = 25
LOGGED: Final = ("", "app.bsky.feed.post")


class Clock:
    """Our clock, set back by as much as wanted."""

    def __init__(self) -> None:
        self.behind_us = 0

    def __call__(self) -> int:
        """Return the microseconds since the epoch."""
        return clock_us() - self.behind_us


class Network:
    """Does what it is asked; each public method is a command, its result the answer."""

    def __init__(self, simulation: Simulation, clock: Clock) -> None:
        self._simulation = simulation
        self._clock = clock

    async def rate(self, per_second: float) -> dict[str, Any]:
        """Let so many events happen a second from now on."""
        self._simulation.rate = per_second
        return {}

    async def set_back(self, seconds: float) -> dict[str, Any]:
        """Set the network's clock back by so much from ours."""
        self._clock.behind_us = int(seconds * 1_000_000)
        return {}

    async def live_through(self, seconds: float, rate: float) -> dict[str, Any]:
        """Let time have passed in which so much happened."""
        self._simulation.live_through(seconds, rate=rate)
        return {"events": self._simulation.history.end}

    async def appview(
        self, *, calls: int = 0, seconds: float = 0, latency_seconds: float = 0
    ) -> dict[str, Any]:
        """Let the AppView allow so many calls in a window, and answer so late."""
        appview = self._simulation.appview
        appview.budget = (calls, seconds) if calls else None
        appview.latency_seconds = latency_seconds
        return {}

    async def calls(self) -> dict[str, Any]:
        """Return what was asked of the AppView, and what would have been the least."""
        statistics = self._simulation.appview.statistics
        distinct = {path: len(keys) for path, keys in statistics.distinct.items()}
        return {
            "calls": sum(statistics.outcomes.values()),
            "refused": sum(
                count for (_, outcome), count in statistics.outcomes.items() if outcome != "200"
            ),
            "items": sum(statistics.items.values()),
            "distinct": sum(distinct.values()),
            "least_calls": sum(ceil(count / ITEMS_A_CALL) for count in distinct.values()),
        }

    async def waits(self) -> dict[str, Any]:
        """Return, for each key's first call, the ms from the event that names it first to it."""
        first: dict[str, int] = {}
        for event in self._events():
            for name in wanted(event) if event.collection in LOGGED else ():
                first.setdefault(name, event.time_us)
        calls = self._simulation.appview.statistics.calls
        asked = ((name, call.time_us) for call in calls for name in call.items)
        return {
            "waits": [
                (time_us - first.pop(name)) / 1000 for name, time_us in asked if name in first
            ]
        }

    async def logged(self) -> dict[str, Any]:
        """Return every event that the log must hold, as `key` of this module tells them apart."""
        return {"keys": [key(event) for event in self._events() if event.collection in LOGGED]}

    def _events(self) -> list[Event]:
        return [parse(message) for message in self._simulation.everything()]


def key(event: Event) -> str:
    """Return what tells an event from every other."""
    time = (event.notice or {}).get("time", "")
    return f"{event.kind} {event.at_uri} {event.rev} {event.operation} {event.cid} {time}"


async def _run(arguments: dict[str, Any]) -> None:
    clock = Clock()
    async with simulated(hosts=1, mix=MOSTLY_POSTS, now_us=clock, **arguments) as simulation:
        network = Network(simulation, clock)
        _answer({"upstream": simulation.jetstreams[0].url, "appview": simulation.appview.url})
        async for line in trio.wrap_file(sys.stdin):
            command = json.loads(line)
            _answer(await getattr(network, command.pop("do"))(**command))


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    trio.run(_run, json.loads(sys.argv[1]))
