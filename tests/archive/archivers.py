"""One machine with an archiver, for tests: its data folder, its hours, a store of any kind."""

import random
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.archive.samples_archive import plain_lines, seal_lines
from turbod.archive.catalogue import Catalogue
from turbod.archive.format.names import Name
from turbod.archive.local import Local
from turbod.archive.stores.folder import FolderStore
from turbod.archive.stores.store import Listed, Store, StoreFault
from turbod.archive.upload import archiver as archiver_module
from turbod.archive.upload.archiver import Archiver
from turbod.config import ArchiveSettings

OPEN_SECONDS = 5.0


def retry_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is tried again be tried again at once."""
    monkeypatch.setattr(archiver_module, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(archiver_module, "LONGEST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(archiver_module, "RELIST_SECONDS", 0.01)


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

    def seal(self, hour: int, *, lines: list[bytes] | None = None, noise: int = 0) -> Name:
        """Put the object of the hour of this number after T0 into `sealed`.

        `noise` bytes a line make it bigger, since they cannot be compressed.
        """
        lines = plain_lines(hour, 20) if lines is None else lines
        lines = (
            [each[:-1] + b',"noise":"%b"}' % _noise(noise) for each in lines] if noise else lines
        )
        return seal_lines(self.data / "sealed", lines, previous=0)

    @property
    def moods(self) -> "MoodyStore":
        """The store, where it is a folder."""
        assert isinstance(self.store, MoodyStore)
        return self.store

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

    def sealed(self, archiver: Archiver, hour: int, *, noise: int = 0) -> Name:
        """Seal an hour while it runs, as the sealer does."""
        name = self.seal(hour, noise=noise)
        self.local.add(name, (self.data / "sealed" / name.file).stat().st_size)
        archiver.wake()
        return name

    def files(self, folder: str) -> list[str]:
        """Return what is in `sealed` or `verified`."""
        return sorted(path.name for path in (self.data / folder).iterdir())


class MoodyStore(FolderStore):
    """A folder that does not always do what is asked.

    Attributes:
        fault: what every request fails with, or None; and of which kind that is.
        hangs: whether requests are not answered.
        asked: what was asked, such as `put dt=...`.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fault: str | None = None
        self.kind = StoreFault
        self.hangs = False
        self.asked: list[str] = []

    async def list(self, *, after: str = "") -> list[Listed]:
        await self._mood(f"list {after}")
        return await super().list(after=after)

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        await self._mood(f"read {key}")
        return await super().read(key, offset=offset, size=size)

    async def put(self, key: str, path: Path) -> None:
        await self._mood(f"put {key}")
        await super().put(key, path)

    async def sha256(self, key: str) -> bytes:
        await self._mood(f"sha256 {key}")
        return await super().sha256(key)

    async def delete(self, key: str) -> None:
        await self._mood(f"delete {key}")
        await super().delete(key)

    async def _mood(self, request: str) -> None:
        self.asked.append(request)
        if self.hangs:
            await trio.sleep_forever()
        if self.fault:
            raise self.kind(self.fault)


def folder_machine(
    tmp_path: Path,
    name: str = "data",
    *,
    max_bytes: int = 0,
    when_full: str = "stop",
    log_max_bytes: int = 10**12,
) -> Machine:
    """Return a machine whose archive is the folder `archive` of `tmp_path`."""
    folder = tmp_path / "archive"
    settings = ArchiveSettings(location=str(folder), max_bytes=max_bytes, when_full=when_full)
    return Machine(
        tmp_path / name, MoodyStore(folder), settings=settings, log_max_bytes=log_max_bytes
    )


def identify(archive: Path, text: str = '{"format":1,"instance":"another"}') -> None:
    """Write an archive's `turbod.json`."""
    archive.mkdir(exist_ok=True)
    (archive / "turbod.json").write_text(text)


def put_into(archive: Path, lines: Sequence[bytes]) -> Path:
    """Put an object of these lines where an archive has it."""
    name = seal_lines(archive / "making", lines, previous=0)
    path = archive / name.key
    path.parent.mkdir(parents=True, exist_ok=True)
    (archive / "making" / name.file).rename(path)
    (archive / "making").rmdir()
    return path


def _noise(size: int) -> bytes:
    return b64encode(random.randbytes(size))[:size]


async def until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    """Wait for something that wakes nobody."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for here wakes nobody
            await trio.sleep(0.005)
