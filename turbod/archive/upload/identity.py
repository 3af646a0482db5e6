"""Who writes to an archive: what its `turbod.json` says, and this data folder's own id."""

import os
import re
import secrets
from pathlib import Path
from typing import Final

import msgspec

from turbod import __version__
from turbod.archive.format.index import FORMAT
from turbod.archive.format.names import IDENTITY_KEY
from turbod.eventlog.appender import sync_folder

MAX_IDENTITY_BYTES: Final = 64 * 1024

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class Unreadable(ValueError):
    """What an archive says of itself cannot be read: one line that says why, and what to do."""


class Identity(msgspec.Struct, frozen=True):
    """What stands in `turbod.json`.

    Attributes:
        format: of the objects there.
        instance: who gives the cursors in them; nobody else may write there.
        turbod: the version that made the archive.
        max_bytes: of a folder: half of what was free on its disk when it was made; else 0.
    """

    format: int
    instance: str
    turbod: str = ""
    max_bytes: int = 0


class _Format(msgspec.Struct):
    format: int


def new_identity(instance: str, *, max_bytes: int = 0) -> Identity:
    """Return what an archive that is made now says of itself."""
    return Identity(FORMAT, instance, __version__, max_bytes)


def encode(identity: Identity) -> bytes:
    """Return the bytes of `turbod.json`."""
    return msgspec.json.encode(identity) + b"\n"


def decode(data: bytes) -> Identity:
    """Read `turbod.json`.

    Raises:
        Unreadable: it is none, or one of a later format.
    """
    try:
        written = msgspec.json.decode(data, type=_Format).format
        if written > FORMAT:
            raise Unreadable(
                f"{IDENTITY_KEY}: its format is {written}, this turbod writes {FORMAT}; "
                "update turbod, or name another place with --archive"
            )
        identity = msgspec.json.decode(data, type=Identity)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(str(error)) from None
    if not _ID.fullmatch(identity.instance) or identity.max_bytes < 0:
        raise _damaged("no instance in it")
    return identity


def load_own(data: Path) -> str | None:
    """Return this data folder's id, None where it has none yet. Blocks.

    Raises:
        OSError: it cannot be read.
    """
    try:
        text = (data / "instance").read_bytes()[:MAX_IDENTITY_BYTES].decode("ascii", "replace")
    except FileNotFoundError:
        return None
    return text.strip() if _ID.fullmatch(text.strip()) else None


def save_own(data: Path, instance: str) -> None:
    """Give the data folder its id, durably. Blocks.

    Raises:
        OSError: it could not be written; nothing has changed.
    """
    making = data / ".instance.making"
    with making.open("w") as file:
        file.write(f"{instance}\n")
        file.flush()
        os.fsync(file.fileno())
    making.rename(data / "instance")
    sync_folder(data)


def is_fresh(data: Path) -> bool:
    """Tell whether a data folder has neither an id nor any hour, so that it may take over. Blocks.

    Raises:
        OSError: it cannot be read.
    """
    folders = (data / name for name in ("live", "sealed", "verified"))
    has_hours = any(next(folder.glob("[0-9]*.jsonl*"), None) for folder in folders)
    return not has_hours and not (data / "instance").exists()


def new_instance() -> str:
    """Return an id that nobody else has."""
    return secrets.token_hex(8)


def _damaged(reason: str) -> Unreadable:
    return Unreadable(
        f"{IDENTITY_KEY} is not what turbod wrote there: {reason}; put it back as it was, "
        "or name another place with --archive"
    )
