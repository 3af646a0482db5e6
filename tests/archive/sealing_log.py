"""A log whose hours are sealed as they finish, for the tests of that."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import zstandard

from tests.eventlog.samples import Clock, Seen
from turbod.archive.catalogue import Catalogue
from turbod.archive.format.names import Name, parse_file
from turbod.archive.local import Local
from turbod.archive.sealer import Sealer, seal_leftovers
from turbod.archive.sealing import check
from turbod.config import LogSettings
from turbod.eventlog.line import cursor_of
from turbod.eventlog.log import EventLog

UPSTREAMS = ["wss://jetstream.test/subscribe"]


class Sealing:
    """A log and its sealer, put together and opened as the daemon does it.

    Attributes:
        told: the objects that whoever uploads was told of.
        state: the upstream's.
    """

    def __init__(self, data: Path, clock: Callable[[], int]) -> None:
        self.told: list[Name] = []
        self.state = "live"
        self.catalogue = Catalogue()
        self.local = Local(data, self.catalogue)
        self.published: list[int] = []
        self.log = EventLog(data, LogSettings(), written=self.published.extend, now_us=clock)
        self.sealer = Sealer(
            self.log,
            self.local,
            instance=lambda: "here",
            upstreams=UPSTREAMS,
            upstream_state=lambda: self.state,
            sealed=self.told.append,
            now_us=clock,
        )

    async def open(self, nursery: trio.Nursery) -> None:
        """Put right what a crash left, then open the log."""
        await self.local.open()
        await self.local.adopt()
        await seal_leftovers(self.local, self.catalogue, instance="here", upstreams=UPSTREAMS)
        self.log.after, self.log.ended = self.catalogue.last, self.catalogue.end
        await nursery.start(self.log.run)

    async def sealed(self, count: int) -> None:
        """Wait until so many hours were sealed."""
        with trio.fail_after(30):
            while len(self.told) < count:  # noqa: ASYNC110 - the callable wakes nobody
                await trio.sleep(0.002)


@asynccontextmanager
async def opened(data: Path, *, clock: Clock | None = None) -> AsyncIterator[Sealing]:
    """Open the log without sealing; leaving ends it as a crash would."""
    sealing = Sealing(data, clock or Clock())
    async with trio.open_nursery() as nursery:
        await sealing.open(nursery)
        yield sealing
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def sealing_hours(data: Path, *, clock: Clock | None = None) -> AsyncIterator[Sealing]:
    """Open the log and seal; leaving ends both as a crash would."""
    async with opened(data, clock=clock) as sealing, trio.open_nursery() as nursery:
        await nursery.start(sealing.sealer.run)
        yield sealing
        nursery.cancel_scope.cancel()


def objects(data: Path) -> list[tuple[Name, Path]]:
    """Return every object on disk in order, each checked whole."""
    found = []
    for path in [*(data / "sealed").iterdir(), *(data / "verified").iterdir()]:
        name = parse_file(path.name)
        assert name is not None, path
        check(path, name)
        found.append((name, path))
    return sorted(found)


def lines_in(path: Path) -> Seen:
    """Return the records of an object by their cursors, read in the plainest way there is."""
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        lines = reader.read().splitlines()
    return [(cursor_of(line), line) for line in lines]
