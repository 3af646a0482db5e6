"""CPU an event, from the upstream's socket to disk and one subscriber, beside two yardsticks.

The yardsticks get the very same messages from the same sender, each in a process of its own:
trio-websocket that receives and discards, and the plain hydrator of plain.py. All take turns, and
what counts is the median of their turns.
"""

from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figures import Figure, claim
from benchmarks.options import Options
from benchmarks.processes import Helper, Turbod, cpu_seconds, kernel_seconds, until

ROUNDS: Final = 3
ACCOUNTS: Final = 2000
POSTS: Final = 3000
HOST_OF: Final = {"discard": 0, "off": 1, "full": 2, "turbod": 3}
PLENTY: Final = (3000, 3.0)  # AppView calls in so many seconds
_SECONDS: Final = 180.0


class Throughput:
    """One run: the world, turbod, the yardsticks."""

    def __init__(self, options: Options, folder: Path, world: Helper) -> None:
        self._folder = folder
        self._world = world
        self._count = 60_000 if options.full else 20_000
        self._microseconds: dict[str, list[float]] = defaultdict(list)

    def run(self, turbod: Turbod, clients: Helper) -> Iterator[Figure]:
        """Measure in turns and compare."""
        world = self._world
        self._warm(turbod)
        clients.ask("forget")
        for number in range(ROUNDS):
            with (
                self._yardstick("discard", number) as discard,
                self._yardstick("off", number) as off,
                self._yardstick("full", number) as full,
            ):
                world.ask("prepare", count=self._count)
                world.ask("send")
                self._round_of("discard", discard)
                self._round_of("off", off)
                self._round_of("full", full)
                self._round_of_turbod(turbod, clients, (number + 1) * self._count)
        yield from self._figures()
        yield from self._checks(turbod, clients)

    def _yardstick(self, name: str, number: int) -> Helper:
        upstream = self._world.started["upstreams"][HOST_OF[name]]
        if name == "discard":
            return Helper("discard", upstream=upstream)
        return Helper(
            "plain",
            upstream=upstream,
            path=str(self._folder / f"{name}{number}.sqlite"),
            synchronous=name,
            views=str(self._folder / "views.json"),
        )

    def _warm(self, turbod: Turbod) -> None:
        """Send every post once, so that turbod knows all that they show."""
        world = self._world
        world.ask("budget", calls=PLENTY[0], seconds=PLENTY[1])
        world.ask("views", path=str(self._folder / "views.json"))
        world.ask("hold")
        world.ask("prepare", count=POSTS)
        world.ask("send")
        for host in HOST_OF.values():
            world.ask("release", host=host)
        until("warm", lambda: turbod.status()["log"]["records"] == POSTS, seconds=_SECONDS)

    def _round_of(self, name: str, yardstick: Helper) -> None:
        before = cpu_seconds(yardstick.pid)
        yardstick.tell("take", count=self._count)
        self._world.ask("release", host=HOST_OF[name])
        answer = yardstick.answer()
        self._note(name, cpu_seconds(yardstick.pid) - before, self._count)
        received, stored = answer["received"], answer.get("stored", self._count)
        assert received == stored == self._count, answer

    def _round_of_turbod(self, turbod: Turbod, clients: Helper, expected: int) -> None:
        before, kernel = turbod.cpu_seconds(), kernel_seconds(turbod.pid)
        self._world.ask("release", host=HOST_OF["turbod"])
        until(
            "delivered",
            lambda: clients.ask("received")["records"] >= expected,
            seconds=_SECONDS,
            every=0.25,
        )
        self._note("turbod", turbod.cpu_seconds() - before, self._count)
        self._note("kernel", kernel_seconds(turbod.pid) - kernel, self._count)

    def _note(self, name: str, seconds: float, count: int) -> None:
        self._microseconds[name].append(seconds / count * 1e6)

    def _figures(self) -> Iterator[Figure]:
        costs = {name: median(found) for name, found in self._microseconds.items()}
        names = {
            "turbod": "turbod, socket to disk and one subscriber",
            "kernel": "of this, the kernel's part",
            "discard": "trio-websocket, received and discarded",
            "off": "plain way, synchronous=OFF",
            "full": "plain way, synchronous=FULL",
        }
        for name, words in names.items():
            yield Figure(words, costs[name], "us/event")
        yield Figure("trio-websocket alone / turbod", costs["discard"] / costs["turbod"], "x", 0.35)
        yield Figure("plain way OFF / turbod", costs["off"] / costs["turbod"], "x", 2)
        yield Figure("plain way FULL / turbod", costs["full"] / costs["turbod"], "x", 4)

    def _checks(self, turbod: Turbod, clients: Helper) -> Iterator[Figure]:
        """Compare what was delivered with what is on disk."""
        lines = turbod.lines()[POSTS:]
        status = turbod.status()
        kept = clients.ask("counts")["kept"][0]
        digest = sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
        yield claim("every event on disk, once", holds=len(lines) == ROUNDS * self._count)
        yield claim("the subscriber has what is on disk", holds=kept["sha256"] == digest)
        at_once = status["hydration"]["at_once"] >= ROUNDS * self._count
        unresolved = status["hydration"]["unresolved"]
        yield claim("all views from the cache, none left out", holds=at_once and not unresolved)


def measure(options: Options) -> Iterator[Figure]:
    """Run it."""
    with (
        options.folder() as folder,
        Helper("world", hosts=len(HOST_OF), accounts=ACCOUNTS, posts=POSTS) as world,
        Turbod(
            folder,
            upstream=world.started["upstreams"][HOST_OF["turbod"]],
            appview=world.started["appview"],
            profile=options.profile,
        ) as turbod,
        Helper("clients", port=turbod.port) as clients,
    ):
        clients.ask("connect", count=1, keeps=True)
        yield from Throughput(options, folder, world).run(turbod, clients)
        turbod.stop()
        options.show_profile(turbod)
