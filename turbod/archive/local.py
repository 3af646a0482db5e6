"""The objects on this disk: those that wait for the store, and those kept to be read."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.archive.catalogue import Catalogue
from turbod.archive.format.hour_object import TAIL_BYTES, Damaged, index_span, read_index
from turbod.archive.format.names import Name, parse_file
from turbod.archive.sealing import check
from turbod.eventlog.appender import sync_folder
from turbod.eventlog.hour_file import gaps_name
from turbod.eventlog.hours import PlainHour
from turbod.eventlog.opening import plain_hours

MAKING: Final = ".making"  # what a name ends with until the object is whole

log = structlog.get_logger()


class LocalStatistics(msgspec.Struct, frozen=True):
    """How many objects lie in the two folders, and how big they are."""

    sealed: int
    sealed_bytes: int
    verified: int
    verified_bytes: int
    damaged: int


class Local:
    """Two folders: `sealed` waits for the store, `verified` is in it.

    The folder an object lies in is its state, and nothing else records it.

    All that changes here is told to the catalogue; nobody else tells it about local files.

    Attributes:
        damaged: those in `sealed` that cannot be read. They stay, are in the catalogue, and are
            not among `sealed()`.
    """

    def __init__(self, data: Path, catalogue: Catalogue) -> None:
        self.live_folder = data / "live"
        self.sealed_folder = data / "sealed"
        self.verified_folder = data / "verified"
        self.damaged: set[Name] = set()
        self._catalogue = catalogue
        self._sealed: dict[Name, int] = {}
        self._verified: dict[Name, int] = {}

    async def open(self) -> None:
        """Make the folders, delete what was not finished, and learn what is there.

        Raises:
            OSError: a folder cannot be made or read.
        """
        self._sealed, self._verified, damaged = await trio.to_thread.run_sync(self._look)
        for name, reason in damaged.items():
            log.error(
                "object_damaged",
                file=str(self.sealed_folder / name.file),
                error=reason,
                todo="restore it from a copy; clients get a gap in its place",
            )
        self.damaged = set(damaged)
        for folder, sizes in self._folders():
            for name, size in sizes.items():
                self._catalogue.add_local(name, size, folder / name.file)

    async def adopt(self) -> None:
        """Delete every plain hour whose object is whole, where a crash came between the two.

        An object in `sealed` that is not whole while its plain hour is there is deleted, and made
        again from that. Call it before the log is opened. The whole object is read, which takes
        seconds, but only an hour that was being sealed when the process died has both.

        Raises:
            OSError: a plain hour cannot be read, or a file not be deleted.
        """
        for hour in await trio.to_thread.run_sync(plain_hours, self.live_folder):
            for folder, sizes in self._folders():
                for name in [each for each in sizes if each.hour == hour.hour]:
                    await self._adopt(hour, folder, sizes, name)

    def sealed(self) -> list[Name]:
        """Return what waits for the store, oldest first."""
        return sorted(self._sealed.keys() - self.damaged)

    def add(self, name: Name, size: int) -> None:
        """Note a new object in `sealed`, or one made again."""
        self.damaged.discard(name)
        self._sealed[name] = size
        self._catalogue.add_local(name, size, self.sealed_folder / name.file)

    async def verified(self, name: Name) -> None:
        """Move an object to `verified`, durably.

        Let the catalogue know first that it is stored: for an instant its file lies where a reader
        does not look for it, and is read from the store.
        """
        await trio.to_thread.run_sync(self._move, name)
        self._verified[name] = self._sealed.pop(name)
        self._catalogue.add_local(name, self._verified[name], self.verified_folder / name.file)

    async def drop(self, name: Name) -> None:
        """Delete an object, wherever it lies: the store has all that is in it."""
        for folder, sizes in self._folders():
            if name in sizes:
                await self._delete(folder, sizes, name)

    async def prune(self, max_bytes: int) -> list[Name]:
        """Delete verified objects, oldest first, while all hours are bigger; return which."""
        live_bytes = await trio.to_thread.run_sync(_size_of_files, self.live_folder)
        total = live_bytes + sum(self._sealed.values()) + sum(self._verified.values())
        pruned: list[Name] = []
        for name in sorted(self._verified):
            if total <= max_bytes:
                break
            total -= self._verified[name]
            heartbeat.beat()
            await self._delete(self.verified_folder, self._verified, name)
            pruned.append(name)
        if pruned:
            log.info("hours_pruned", hours=len(pruned), newest=pruned[-1].key, bytes=total)
        return pruned

    def statistics(self) -> LocalStatistics:
        """Return the figures of this moment."""
        return LocalStatistics(
            sealed=len(self._sealed),
            sealed_bytes=sum(self._sealed.values()),
            verified=len(self._verified),
            verified_bytes=sum(self._verified.values()),
            damaged=len(self.damaged),
        )

    def _folders(self) -> tuple[tuple[Path, dict[Name, int]], ...]:
        """Return both folders; what lies in both is read from the latter."""
        return (self.sealed_folder, self._sealed), (self.verified_folder, self._verified)

    def _look(self) -> tuple[dict[Name, int], dict[Name, int], dict[Name, str]]:
        self.live_folder.mkdir(parents=True, exist_ok=True)
        sealed, verified = (_found(path) for path in (self.sealed_folder, self.verified_folder))
        damaged: dict[Name, str] = {}
        for name in sorted(sealed):
            try:
                _check_index(self.sealed_folder / name.file, name)
            except Damaged as error:
                damaged[name] = str(error)
            except OSError as error:  # a bad sector of an old hour does not hold up the new ones
                damaged[name] = f"it cannot be read: {error.strerror}"
        return sealed, verified, damaged

    async def _delete(self, folder: Path, sizes: dict[Name, int], name: Name) -> None:
        del sizes[name]
        self.damaged.discard(name)
        self._catalogue.remove_local(name)
        await trio.to_thread.run_sync(_unlink, folder / name.file)
        for other, others in self._folders():
            if name in others:
                self._catalogue.add_local(name, others[name], other / name.file)

    async def _adopt(
        self, hour: PlainHour, folder: Path, sizes: dict[Name, int], name: Name
    ) -> None:
        try:
            await trio.to_thread.run_sync(check, folder / name.file, name)
        except Damaged as error:
            if folder == self.sealed_folder:
                log.warning("object_made_again", file=name.file, error=str(error))
                await self._delete(folder, sizes, name)
            return
        except OSError as error:  # the plain hour stays, and is sealed again
            log.warning("object_not_read", file=str(folder / name.file), error=error.strerror)
            return
        # No two hours of one log have the same last cursor, and an hour that was sealed never grew.
        if name.last == hour.last:
            log.info("hour_adopted", file=hour.path.name, object=name.key)
            await trio.to_thread.run_sync(delete_plain, hour)

    def _move(self, name: Name) -> None:
        (self.sealed_folder / name.file).rename(self.verified_folder / name.file)
        sync_folder(self.verified_folder)
        sync_folder(self.sealed_folder)


def delete_plain(hour: PlainHour) -> None:
    """Delete an hour's plain files, while the log is not open."""
    hour.path.unlink(missing_ok=True)
    hour.path.with_name(gaps_name(hour.hour)).unlink(missing_ok=True)


def _found(folder: Path) -> dict[Name, int]:
    """Return the objects in a folder and their sizes; delete what was being made."""
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)
    found: dict[Name, int] = {}
    unknown: list[str] = []
    for path in sorted(folder.iterdir()):
        name = parse_file(path.name)
        if path.name.endswith(MAKING):
            path.unlink()
        elif name is None or not path.is_file():
            unknown.append(path.name)
        else:
            found[name] = path.stat().st_size
    if unknown:
        log.warning("archive_unknown_files", folder=str(folder), files=unknown[:10])
    return found


def _check_index(path: Path, name: Name) -> None:
    """Read an object's end: one that was cut off does not have it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - TAIL_BYTES))
        offset, index_size = index_span(file.read(TAIL_BYTES), size=size)
        file.seek(offset)
        read_index(file.read(index_size), name)


def _size_of_files(folder: Path) -> int:
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # an hour that is released meanwhile
            size += path.stat().st_size
    return size


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
