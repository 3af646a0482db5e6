"""Looks at the disks that log, cache and archive lie on."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from turbod.archive.stores.store import folder_of
from turbod.check.data import existing
from turbod.check.finding import Finding
from turbod.check.local_verdicts import DiskSeen, judge_disk
from turbod.config import Settings

_LOG: Final = ("live", "sealed", "verified")


async def look(settings: Settings) -> list[Finding]:
    """Return whether there is as much room as the settings speak of, disk by disk."""
    seen = await trio.to_thread.run_sync(_see, settings, abandon_on_cancel=True)
    return [finding for disk in seen for finding in judge_disk(disk)]


def _see(settings: Settings) -> list[DiskSeen]:
    data = Path(settings.data)
    folder = folder_of(settings.archive.location, data)
    at_data = _wanted_of_log(settings, data)
    if folder is None:
        return [_disk(data, at_data)]
    archive = _wanted(folder, settings.archive.max_bytes)
    if existing(folder).stat().st_dev == existing(data).stat().st_dev:
        # Hours that are in both are one file of two names.
        return [_disk(data, max(at_data, archive))]
    return [_disk(data, at_data), _disk(folder, archive)]


def _wanted_of_log(settings: Settings, data: Path) -> int:
    log = settings.log.max_bytes - sum(_size(data / name) for name in _LOG)
    return max(0, log) + _wanted(data / "cache.sqlite", settings.cache.disk_bytes)


def _wanted(place: Path, most: int) -> int:
    """Return how much more may be at a place; 0 where nothing bounds it."""
    return max(0, most - _size(place)) if most else 0


def _disk(path: Path, wanted: int) -> DiskSeen:
    place = os.statvfs(existing(path))
    return DiskSeen(
        path=str(path),
        free=place.f_bavail * place.f_frsize,
        total=place.f_blocks * place.f_frsize,
        files_left=place.f_favail if place.f_files else None,
        wanted=wanted,
    )


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat(follow_symlinks=False).st_size for entry in _files(path))


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield entry
