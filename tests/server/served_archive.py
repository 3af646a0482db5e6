"""A server over an archive of sealed hours."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.archive import sealed as samples
from tests.archive.sealed import HOUR, make_archive
from tests.server.harness import Harness, serving
from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.index import Index
from turbod.archive.format.loading import load_index
from turbod.archive.format.names import Name, parse_key
from turbod.archive.stores.store import Store, open_store
from turbod.config import ArchiveSettings, S3Settings, ServerSettings
from turbod.server.archive_listing import ArchiveListing
from turbod.server.tokens import Tokens

LONG_AGO = -20_000  # in hours: cursors of the future are refused by the real clock
T0 = samples.T0 + LONG_AGO * HOUR
HOURS = (0, 1, 3)


class Archive:
    """A folder archive behind a server, and what may go wrong in it."""

    def __init__(self, root: Path, *, store: Store | None = None) -> None:
        self.folder = root / "archive"
        location = ArchiveSettings(location=str(self.folder))
        self.store = store or open_store(location, S3Settings(), root)
        self.catalogue = Catalogue()
        self.asked: list[Name] = []
        self.fault: Exception | None = None
        self.go = trio.Event()
        self.go.set()

    def fill(self, hours: Sequence[int]) -> None:
        """Make the objects of these hours after T0."""
        self.folder.mkdir()
        make_archive(self.folder, [LONG_AGO + hour for hour in hours])

    async def look(self) -> None:
        """Take what is in the store into the catalogue."""
        listed = await self.store.list()
        names = [(parse_key(each.key), each.size) for each in listed]
        self.catalogue.listed((name, size) for name, size in names if name is not None)

    async def summary(self, held: Held) -> Index:
        """Read an object's index, or fail as told."""
        self.asked.append(held.name)
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        return await load_index(self.store, held.name.key, held.size, held.name)

    def listing(self, *, is_public: bool = True) -> ArchiveListing:
        """Return what the server is given."""
        return ArchiveListing(
            self.catalogue,
            self.store,
            instance=lambda: "here",
            summary=self.summary,
            is_public=is_public,
        )

    def bytes_of(self, name: Name) -> bytes:
        """Return an object as it is stored."""
        return (self.folder / name.key).read_bytes()

    @property
    def names(self) -> list[Name]:
        """What is stored, in order."""
        return [held.name for held in self.catalogue.stored()]


@asynccontextmanager
async def serving_archive(
    root: Path,
    *,
    is_public: bool = True,
    settings: ServerSettings | None = None,
    hours: Sequence[int] = HOURS,
    tokens: Tokens | None = None,
) -> AsyncIterator[tuple[Harness, Archive]]:
    """Serve a folder archive of some hours."""
    archive = Archive(root)
    archive.fill(hours)
    await archive.look()
    listing = archive.listing(is_public=is_public)
    async with serving(root / "data", settings=settings, archive=listing, tokens=tokens) as harness:
        yield harness, archive
