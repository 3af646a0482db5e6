"""One machine with an archiver, for tests: its data folder, its hours, a store of any kind."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.archive.samples_archive import plain_lines, seal_lines
from turbod.archive.archiver import Archiver
from turbod.archive.catalogue import Catalogue
from turbod.archive.folder import FolderStore
from turbod.archive.local import Local
from turbod.archive.names import Name
from turbod.archive.store import Store
from turbod.config import ArchiveSettings

OPEN_SECONDS = 5.0
RETRY_SECONDS = 0.02


class Machine:
    """A data folder with an archiver over it; `start` is a start of turbod, as far as that goes."""

    def __init__(
        self,
        data: Path,
        store: Store,
        *,
        settings: ArchiveSettings | None = None,
        log_max_bytes: int = 10**12,
    ) -> None:
        self.data = data
        self.store = store
        self.settings = settings or ArchiveSettings()
        self.log_max_bytes = log_max_bytes
        (data / "live").mkdir(parents=True, exist_ok=True)

    def seal(self, hour: int, *, lines: list[bytes] | None = None, padding: int = 0) -> Name:
        """Put the object of the hour of this number after T0 into `sealed`."""
        lines = plain_lines(hour, 20, padding=padding) if lines is None else lines
        return seal_lines(self.data / "sealed", lines, previous=0)

    async def start(self, *, open_seconds: float = OPEN_SECONDS) -> Archiver:
        """Return an archiver that was opened."""
        self.catalogue = Catalogue()
        self.local = Local(self.data, self.catalogue)
        await self.local.open()
        archiver = Archiver(
            self.store,
            self.local,
            self.catalogue,
            self.settings,
            data=self.data,
            log_max_bytes=self.log_max_bytes,
        )
        await archiver.open(open_seconds)
        return archiver

    @asynccontextmanager
    async def running(self, *, open_seconds: float = OPEN_SECONDS) -> AsyncIterator[Archiver]:
        """Run an archiver; leaving ends it at once."""
        archiver = await self.start(open_seconds=open_seconds)
        async with trio.open_nursery() as nursery:
            await nursery.start(archiver.run)
            yield archiver
            nursery.cancel_scope.cancel()

    def sealed(self, archiver: Archiver, hour: int, *, padding: int = 0) -> Name:
        """Seal an hour while it runs, as the sealer does."""
        name = self.seal(hour, padding=padding)
        self.local.add(name, (self.data / "sealed" / name.file).stat().st_size)
        archiver.wake()
        return name

    def files(self, folder: str) -> list[str]:
        """Return what is in `sealed` or `verified`."""
        return sorted(path.name for path in (self.data / folder).iterdir())


def folder_machine(tmp_path: Path, name: str = "data", **more: object) -> Machine:
    """Return a machine whose archive is the folder `archive` of `tmp_path`."""
    settings = ArchiveSettings(location=str(tmp_path / "archive"), **more)
    return Machine(tmp_path / name, FolderStore(tmp_path / "archive"), settings=settings)


async def until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    """Wait for something that wakes nobody."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for here wakes nobody
            await trio.sleep(0.005)
