"""The network of a measurement, in a process of its own: Jetstream hosts, AppView, traffic.

Events are posts of believable accounts. A first lot is known to the AppView; those measured are
these posts again, under keys, CIDs and times of their own, so that everything they show is known
and what is measured is turbod alone.
"""

import json
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import trio

from turbod.event import POST
from turbod.simulation.happening import Happening
from turbod.simulation.history import Entry, entry
from turbod.simulation.identifiers import record_cid, tid
from turbod.simulation.jetstream_host import clock_us
from turbod.simulation.world import Simulation, simulated

POSTS_ONLY: Final = {"post": 45, "reply": 40, "quote": 10, "mention": 5}
_AGE_US: Final = 3_600_000_000  # of the first lot: nothing is too young to be looked up
_STEP_US: Final = 1000


class World:
    """Does what it is asked; each public method is a command, its result the answer."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._base: list[Happening] = []
        self._made = 0
        self._ready: deque[Entry] = deque()
        self._released: Counter[int] = Counter()  # by host, how much of the history

    async def begin(self, posts: int) -> dict[str, Any]:
        """Let `posts` posts have been written an hour ago; only the AppView knows of them."""
        simulation = self._simulation
        start_us = clock_us() - _AGE_US
        while len(self._base) < posts:
            now_us = start_us + len(self._base) * _STEP_US
            happening = simulation.network.next_event(now_us)
            simulation.index.hear(happening)
            if happening.collection == POST:
                self._base.append(happening)
        return {"posts": len(self._base)}

    async def prepare(self, count: int) -> dict[str, Any]:
        """Make the next events ready, so that sending them costs little."""
        size = 0
        for happening in again(self._base, first=self._made, count=count):
            made = entry(happening)
            self._ready.append(made)
            size += len(made.head) + len(made.tail) + 16
        self._made += count
        return {"bytes": size}

    async def send(self) -> dict[str, Any]:
        """Send all that is ready, as fast as it is taken."""
        return {"sent": self._send(len(self._ready))}

    async def release(self, host: int) -> dict[str, Any]:
        """Let one host, which holds back, send all that there is."""
        end = self._simulation.history.end
        self._simulation.jetstreams[host].release(end - self._released[host])
        self._released[host] = end
        return {"end": end}

    async def hold(self) -> dict[str, Any]:
        """Let every host hold back what comes until it is released."""
        for server in self._simulation.jetstreams:
            server.faults.hold = True
        return {}

    async def pace(self, beats: int, beat_seconds: float, each: int) -> dict[str, Any]:
        """Send `each` events at every beat, stamped as they go."""
        start = trio.current_time()
        late = 0.0
        for beat in range(beats):
            due = start + beat * beat_seconds
            await trio.sleep_until(due)
            late = max(late, trio.current_time() - due)
            self._send(each)
        return {"sent": beats * each, "late_seconds": late}

    async def budget(self, calls: int, seconds: float) -> dict[str, Any]:
        """Let the AppView allow this many calls in a window, and say so in its headers."""
        self._simulation.appview.budget = (calls, seconds)
        return {}

    async def views(self, path: str) -> dict[str, Any]:
        """Write all that the AppView knows of what the posts show, as JSON by key."""
        server = self._simulation.appview
        keys = set()
        for happening in self._base:
            keys.add(happening.did)
            keys.update(_named(happening.record))
        found = {}
        for key in sorted(keys):
            place = "/xrpc/app.bsky." + (
                "feed.getPosts" if key[:3] == "at:" else "actor.getProfiles"
            )
            if (view := server.view(place, key)) is not None:
                found[key] = msgspec.Raw(view)
        await trio.Path(path).write_bytes(msgspec.json.encode(found))
        return {"views": len(found)}

    def _send(self, count: int) -> int:
        history, now_us = self._simulation.history, clock_us()
        ready = self._ready
        sent = min(count, len(ready))
        for place in range(sent):
            made = ready.popleft()
            time_us = now_us + place
            history.append(Entry(made.did, made.collection, time_us, time_us, made.head, made.tail))
        history.wake()
        return sent


def again(posts: Sequence[Happening], *, first: int, count: int) -> Iterator[Happening]:
    """Yield the posts over and over, each under a key, CID and revision of its own."""
    now_us = clock_us()
    for place in range(first, first + count):
        rkey = tid(now_us + place)
        yield msgspec.structs.replace(
            posts[place % len(posts)],
            rkey=rkey,
            rev=rkey,
            cid=record_cid(rkey.encode()),
            time_us=now_us + place,
        )


def _named(value: object) -> Iterable[str]:
    """Yield every DID and AT URI that a record names."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _named(item)
    elif isinstance(value, list):
        for item in value:
            yield from _named(item)
    elif isinstance(value, str) and value.startswith(("did:", "at://")):
        yield value


async def _run(arguments: dict[str, Any]) -> None:
    begin = arguments.pop("posts")
    async with simulated(mix=POSTS_ONLY, entries_kept=400_000, **arguments) as simulation:
        world = World(simulation)
        await world.begin(begin)
        _answer(
            {
                "upstreams": [host.url for host in simulation.jetstreams],
                "appview": simulation.appview.url,
            }
        )
        async for line in trio.wrap_file(sys.stdin):
            command = json.loads(line)
            _answer(await getattr(world, command.pop("do"))(**command))


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(_run, json.loads(sys.argv[1]))
