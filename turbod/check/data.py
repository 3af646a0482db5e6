"""Looks at the data folder."""

import os
from pathlib import Path
from typing import Final

import trio

from turbod.check.finding import Finding
from turbod.check.local_verdicts import DataSeen, judge_data
from turbod.check.trial import sync_seconds
from turbod.config import Settings
from turbod.data_folder import is_held, read_format
from turbod.start import CannotStart

# What must be writable where it is there: as root's by mistake it would stop everybody else.
_PARTS: Final = ("live", "sealed", "verified", "instance", "lock", "cache.sqlite")


async def look(settings: Settings) -> list[Finding]:
    """Return whether the log could be written there."""
    seen = await trio.to_thread.run_sync(_see, Path(settings.data), abandon_on_cancel=True)
    return judge_data(seen)


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that there is. Blocks."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def _see(data: Path) -> DataSeen:
    owner, seconds, reason, refusal = 0, None, "", ""
    try:
        place = existing(data)
        seconds = _try(data, place)
        owner = place.stat().st_uid
        read_format(data)
    except OSError as error:
        reason = _words(data, error)
    except CannotStart as error:
        refusal = str(error)
    return DataSeen(
        path=str(data),
        exists=data.is_dir(),
        is_held=is_held(data),
        sync_seconds=seconds,
        reason=reason,
        owner=owner,
        user=os.geteuid(),
        refusal=refusal,
    )


def _try(data: Path, place: Path) -> float:
    if not place.is_dir():
        raise NotADirectoryError(0, "it is not a folder", str(place))
    seconds = sync_seconds(place)
    for part in _PARTS if place == data else ():
        path = data / part
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(0, "not for this user to write", str(path))
    return seconds


def _words(data: Path, error: OSError) -> str:
    what = "" if str(error.filename) in {"None", str(data)} else f"{error.filename}: "
    return f"{what}{error.strerror or error}"
