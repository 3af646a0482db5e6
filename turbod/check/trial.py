"""Writes into a folder what never gets a name there: whether that works, and how long it takes."""

import errno
import os
import secrets
import time
from pathlib import Path
from typing import Final

_BLOCK: Final = bytes(4096)
# What file systems say that know no file without a name.
_NAMES_ONLY: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})


def sync_seconds(folder: Path) -> float:
    """Write a block and sync it; return how long that took. Blocks, and leaves nothing behind.

    Raises:
        OSError: it cannot be done.
    """
    file = _open(folder)
    try:
        started = time.monotonic()
        os.write(file, _BLOCK)
        os.fsync(file)
        return time.monotonic() - started
    finally:
        os.close(file)


def _open(folder: Path) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NAMES_ONLY or not folder.is_dir():
            raise
    # Named as what an archive cleans up by itself, should we die in between.
    path = folder / f".check.{secrets.token_hex(4)}.part"
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    path.unlink()
    return file
