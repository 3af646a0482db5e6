"""A warm turbod under a paced stream of events: what latency, fan_out and memory share."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.options import Options
from benchmarks.processes import (
    Helper,
    Turbod,
    cpu_seconds,
    highest_resident_bytes,
    resident_bytes,
    until,
)

PLENTY: Final = (3000, 3.0)  # AppView calls in so many seconds
MEGABYTE: Final = 1_000_000
WARM_SECONDS: Final = 120.0
DELIVERY_SECONDS: Final = 30.0
_PREPARED_AT_ONCE: Final = 50_000
_SAMPLE_SECONDS: Final = 0.5


@dataclass(slots=True)
class Spell:
    """What turbod took while events went by.

    Attributes:
        share: of one core.
        clients_share: what the clients took of one.
        late_seconds: how far the sender fell behind its own pace at worst.
        longest_store_seconds: the longest write and sync since turbod started.
        resident: its memory, sampled.
    """

    events: int
    share: float
    clients_share: float
    late_seconds: float
    longest_store_seconds: float
    resident: list[int]


class Load:
    """A world, a turbod that knows all of its posts' views, and clients."""

    def __init__(self, world: Helper, turbod: Turbod, clients: Helper, folder: Path) -> None:
        self.world = world
        self.turbod = turbod
        self.clients = clients
        self.folder = folder

    def warm(self, posts: int) -> None:
        """Send every post once, and wait until all is hydrated and on disk."""
        self.world.ask("budget", calls=PLENTY[0], seconds=PLENTY[1])
        self.world.ask("prepare", count=posts)
        self.world.ask("send")
        until("warm", lambda: self.records() >= posts, seconds=WARM_SECONDS)

    def records(self) -> int:
        """Return how many records turbod has written."""
        found: int = self.turbod.status()["log"]["records"]
        return found

    def record_bytes(self) -> float:
        """Return the mean length of a record."""
        log = self.turbod.status()["log"]
        return float(log["disk_bytes"] / log["records"])

    def pace(self, *, seconds: float, beat_seconds: float, each: int) -> Spell:
        """Send events at a pace, and watch turbod meanwhile until all is delivered."""
        beats = round(seconds / beat_seconds)
        expected = self.records() + beats * each
        for start in range(0, beats * each, _PREPARED_AT_ONCE):
            self.world.ask("prepare", count=min(_PREPARED_AT_ONCE, beats * each - start))
        self.clients.ask("forget")
        pids = (self.turbod.pid, self.clients.pid)
        before, begun = [cpu_seconds(pid) for pid in pids], time.monotonic()
        self.world.tell("pace", beats=beats, beat_seconds=beat_seconds, each=each)
        resident = []
        while time.monotonic() < begun + seconds:
            time.sleep(_SAMPLE_SECONDS)
            resident.append(resident_bytes(self.turbod.pid))
        answer = self.world.answer()
        passed = time.monotonic() - begun
        share, clients_share = [
            (cpu_seconds(pid) - cpu) / passed for pid, cpu in zip(pids, before, strict=True)
        ]
        until("written", lambda: self.records() >= expected, seconds=DELIVERY_SECONDS)
        time.sleep(1.0)  # until the slowest reader has read
        return Spell(
            events=beats * each,
            share=share,
            clients_share=clients_share,
            late_seconds=answer["late_seconds"],
            longest_store_seconds=self.turbod.status()["log"]["longest_store_us"] / 1e6,
            resident=resident,
        )

    def highest_megabytes(self) -> float:
        """Return the most memory that turbod ever had."""
        return highest_resident_bytes(self.turbod.pid) / MEGABYTE

    def counts(self) -> dict[str, Any]:
        """Return the clients' counts."""
        return self.clients.ask("counts")


@contextmanager
def load(
    options: Options,
    *,
    accounts: int,
    posts: int,
    settings: Mapping[str, object] | None = None,
) -> Iterator[Load]:
    """Give a warm turbod, on its defaults but for these settings."""
    with (
        options.folder() as folder,
        Helper("world", hosts=1, accounts=accounts, posts=posts) as world,
        Turbod(
            folder,
            upstream=world.started["upstreams"][0],
            appview=world.started["appview"],
            settings=settings,
            profile=options.profile,
        ) as turbod,
        Helper("clients", port=turbod.port) as clients,
    ):
        made = Load(world, turbod, clients, folder)
        made.warm(posts)
        yield made
        turbod.stop()
        options.show_profile(turbod)
