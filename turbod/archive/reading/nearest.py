"""The archive as this machine reads it: its own files before the store."""

import builtins
import errno
import os
from pathlib import Path
from typing import Final

import structlog
import trio

from turbod.archive.catalogue import Catalogue
from turbod.archive.format.names import Name, parse_key
from turbod.archive.stores.store import Listed, NotThere, Source, StoreFault

THREADS: Final = 4
QUIET_SECONDS: Final = 5.0  # without a fault, until the store counts as back
# Who waits for the store makes it fail again well before that; later, nobody waits any more.
FORGOTTEN_SECONDS: Final = 240.0

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

log = structlog.get_logger()


class Nearest:
    """A Source of the objects in a catalogue."""

    def __init__(self, catalogue: Catalogue, store: Source) -> None:
        self._fault: str | None = None
        self._catalogue = catalogue
        self._store = store
        self._doubtful: set[Path] = set()
        self._threads = trio.CapacityLimiter(THREADS)
        self._failed_at = 0.0

    @property
    def url(self) -> str:
        """Where the store is."""
        return self._store.url

    @property
    def fault(self) -> str | None:
        """What keeps the store from answering who reads now, in words, or None."""
        is_fresh = trio.current_time() < self._failed_at + FORGOTTEN_SECONDS
        return self._fault if is_fresh else None

    async def list(self, *, after: str = "") -> builtins.list[Listed]:
        """Return what the store lists."""
        return await self._store.list(after=after)

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        """Return these bytes of an object, from a file of ours where there is one.

        Raises:
            NotThere: the catalogue has no such object, a file that nothing stands in for is no
                good, or the store has it no longer.
            StoreFault: the store did not answer, or this process can open no more files now.
        """
        name = parse_key(key)
        assert name is not None, "the catalogue's names have keys"
        tried: Path | None = None
        while (held := self._catalogue.find(name)) is not None:
            path = held.path
            if path is None or path == tried or (held.is_stored and path in self._doubtful):
                break
            data = await self._read_file(path, offset, size)
            if data is not None:
                return data
            tried = path  # moved or pruned meanwhile, or no good: look again where it is
        if held is None or not held.is_stored:
            what = f"{tried} cannot be read" if tried else f"{key} is not on this disk"
            raise NotThere(f"{what}, nor is it in {self.url}")
        return await self._read_store(key, offset, size)

    def doubt(self, name: Name) -> None:
        """Read this object from the store from now on, if it is there: its file is damaged."""
        held = self._catalogue.find(name)
        if held is not None and held.path is not None and held.is_stored:
            log.error("archive_file_damaged", file=str(held.path), todo="delete it; it is stored")
            self._doubtful.add(held.path)

    async def _read_file(self, path: Path, offset: int, size: int) -> bytes | None:
        try:
            data = await trio.to_thread.run_sync(_pread, path, offset, size, limiter=self._threads)
        except OSError as error:
            if error.errno in _EXHAUSTED:  # which says nothing of the file
                raise StoreFault(f"{path} cannot be opened now: {error.strerror}") from None
            return None
        return data if len(data) == size else None

    async def _read_store(self, key: str, offset: int, size: int) -> bytes:
        try:
            data = await self._store.read(key, offset=offset, size=size)
        except NotThere:
            raise
        except StoreFault as fault:
            self._note_fault(str(fault))
            raise
        self._note_answer()
        return data

    def _note_fault(self, fault: str) -> None:
        if self._fault is None:
            log.warning("archive_away", archive=self.url, error=fault)
        self._fault, self._failed_at = fault, trio.current_time()

    def _note_answer(self) -> None:
        if self._fault is not None and trio.current_time() >= self._failed_at + QUIET_SECONDS:
            log.info("archive_back", archive=self.url)
            self._fault = None


def _pread(path: Path, offset: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
