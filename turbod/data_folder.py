"""Holds the data folder for one process, and knows which format lies in it."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from turbod import __version__
from turbod.start import CannotStart, may_pass

# Of the folder as a whole: which files there are and what they mean. It rises where an older turbod
# would misread what a newer one wrote; what each can ignore of the other needs no new number.
FORMAT: Final = 1
FORMAT_FILE: Final = "format"
_MAX_FORMAT_BYTES: Final = 1024


@contextmanager
def held(data: Path) -> Iterator[None]:
    """Make the folder where there is none, and hold it for this process alone.

    Raises:
        CannotStart: it cannot be written, another process holds it, or a newer turbod wrote it.
    """
    try:
        lock = _open(data)
    except OSError as error:
        raise no_data(data, error) from None
    try:
        _lock(data, lock)
        _check_format(data)
        yield
    finally:
        os.close(lock)


def is_held(data: Path) -> bool:
    """Tell whether a process holds the folder.

    The lock is asked for as one of many readers and let go at once: who holds it notices nothing.
    """
    try:
        lock = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(lock)
    return False


def read_format(data: Path) -> int | None:
    """Return the number in the folder; None where there is none, as before the file existed.

    Raises:
        CannotStart: it is none, or that of a newer turbod.
        OSError: it cannot be read.
    """
    path = data / FORMAT_FILE
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FORMAT_BYTES).strip()
    except FileNotFoundError:
        return None
    if not (text.isdigit() and text.isascii() and int(text)):
        raise CannotStart(
            f"{path}: holds no number; write the number of the folder's format into it, which is "
            f"{FORMAT} where no newer turbod than {__version__} ever used it",
            retry=False,
        )
    if int(text) > FORMAT:
        raise CannotStart(
            f"--data {data}: written by a newer turbod, in format {int(text)}; {__version__} knows "
            f"format {FORMAT}: install the newer one again, or name another folder",
            retry=False,
        )
    return int(text)


def no_data(data: str | Path, error: OSError) -> CannotStart:
    """Return the refusal of a data folder, naming what in it is not as it must be."""
    what = "" if str(error.filename) in {"None", str(data)} else f"{error.filename}: "
    reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
    return CannotStart(
        f"--data {data}: {what}{reason}; name a folder that turbod may write to",
        retry=may_pass(error),
    )


def _open(data: Path) -> int:
    for folder in (data, data / "live"):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _lock(data: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(
            f"--data {data}: another turbod uses this folder; stop it first", retry=True
        ) from None
    except OSError as error:
        raise no_data(data, error) from None


def _check_format(data: Path) -> None:
    """Write which format lies in a folder that does not say, or refuse one that is not ours."""
    try:
        if read_format(data) is None:
            _write_format(data / FORMAT_FILE)
    except OSError as error:
        raise no_data(data, error) from None


def _write_format(path: Path) -> None:
    new = path.with_suffix(".making")
    with new.open("wb") as file:
        file.write(f"{FORMAT}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
