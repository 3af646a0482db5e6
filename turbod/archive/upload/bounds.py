"""How much the archive's folder and the hours on this disk may take, and how long that lasts."""

import shutil
from pathlib import Path
from typing import Final

import msgspec
import trio

from turbod.archive.catalogue import Catalogue
from turbod.archive.stores.blocking import Call, Threads
from turbod.archive.stores.store import StoreFault, folder_of
from turbod.config import ArchiveSettings
from turbod.cursor import HOUR_US

DAY_US: Final = 24 * HOUR_US
DISK_ANSWER_SECONDS: Final = 30.0  # a network's file system may hang
RESERVE_BYTES: Final = 1024**3  # of the data folder's disk, or a tenth where that is less


class Room(msgspec.Struct, frozen=True):
    """How much more an archive in a folder may hold.

    Attributes:
        limit: how big it may be in all.
        left: what of that is left, and no more than its disk has.
        reason: why it is no more.
    """

    limit: int
    left: int
    reason: str


class Bounds:
    """Looks at the disks.

    Hours that the archive has leave this disk when all here are more than `log.max_bytes`, and
    before the disk is full.

    Attributes:
        folder: where the archive is, None where it is in a bucket.
        log_max_bytes: the setting `log.max_bytes`; it may be changed.
        disk_free_bytes: of the data folder's disk, as last looked at.
    """

    def __init__(self, settings: ArchiveSettings, *, data: Path, log_max_bytes: int) -> None:
        self.folder = folder_of(settings.location, data)
        self._data = data
        self._settings = settings
        self.log_max_bytes = log_max_bytes
        self._chosen_bytes = 0  # where neither the settings nor the archive say how big it may be
        self._threads = Threads(1)
        # As last looked at.
        self._left: int | None = None
        self.disk_free_bytes: int | None = None

    async def local_bytes(self) -> int:
        """Return how big all hours on this disk may be together.

        Raises:
            OSError: the disk does not say.
        """
        self.disk_free_bytes, local = await trio.to_thread.run_sync(self._look_here)
        return local

    async def room(self, *, stored_bytes: int, remembered_bytes: int) -> Room | None:
        """Return how much room there is for an archive that has `stored_bytes`; None: no bound.

        `remembered_bytes` is half of what was free when it was made, 0 where that is not known.

        Raises:
            StoreFault: its disk does not say.
        """
        if self.folder is None:
            return None
        free, is_elsewhere = await self._look_there(self.folder)
        limit = self._settings.max_bytes or remembered_bytes or self._chosen_bytes
        if not limit:  # a bucket's `turbod.json`, copied with everything else, does not say
            self._chosen_bytes = limit = stored_bytes + free // 2
        left = limit - stored_bytes
        reason = f"{self.folder} has {_words(stored_bytes)} of {_words(limit)} (archive.max_bytes)"
        # On the data folder's disk an object of the archive is a second name of the same file.
        if is_elsewhere and free < left:
            left, reason = free, f"the disk of {self.folder} has {_words(free)} left"
        self._left = left
        return Room(limit, left, reason)

    async def half_of_free(self) -> int:
        """Return how big an archive may be that is made now; 0 where there is no bound.

        Raises:
            StoreFault: its disk does not say.
        """
        return 0 if self.folder is None else (await self._look_there(self.folder))[0] // 2

    def hours_left(self, catalogue: Catalogue) -> float | None:
        """Return for how many hours there is room in the archive; None where nothing tells."""
        return _hours(self._left, catalogue)

    def disk_hours_left(self, catalogue: Catalogue) -> float | None:
        """Return for how many hours there is room on this disk if none could leave it."""
        return _hours(self.disk_free_bytes, catalogue)

    async def _look_there(self, folder: Path) -> tuple[int, bool]:
        """Return what is free on the disk of the archive, and whether it is not that of `data`."""

        def look(_: Call) -> tuple[int, bool]:
            there = _existing(folder)
            is_elsewhere = there.stat().st_dev != self._data.stat().st_dev
            return shutil.disk_usage(there).free, is_elsewhere

        try:
            return await self._threads.run(look, seconds=DISK_ANSWER_SECONDS)
        except OSError as error:
            raise StoreFault(f"{folder}: {error.strerror}") from None
        except trio.TooSlowError:
            raise StoreFault(f"{folder}: no answer in {DISK_ANSWER_SECONDS:g} s") from None

    def _look_here(self) -> tuple[int, int]:
        usage = shutil.disk_usage(self._data)
        missing = max(0, min(RESERVE_BYTES, usage.total // 10) - usage.free)
        bound = self.log_max_bytes
        return usage.free, min(bound, _size(self._data) - missing) if missing else bound


def _hours(room: int | None, catalogue: Catalogue) -> float | None:
    """Return for how many hours there is room, at the mean size of the last day's."""
    if room is None:
        return None
    sizes, oldest = [], catalogue.end - DAY_US
    held = catalogue.before(catalogue.end)
    while held is not None and held.name.hour >= oldest:
        sizes.append(held.size)
        held = catalogue.before(held.name.first)
    return max(room, 0) / (sum(sizes) / len(sizes)) if sum(sizes) else None


def _size(data: Path) -> int:
    """Return the size of all hours on this disk."""
    folders = (data / name for name in ("live", "sealed", "verified"))
    return sum(_file_size(path) for folder in folders for path in folder.glob("*"))


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it went on its way meanwhile
        return 0


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.absolute().parents) if each.is_dir())


def _words(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
