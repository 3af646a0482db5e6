"""The file that is being written: appends and syncs, and cuts back what a full disk tore.

Everything here blocks; it is called in a thread, one call at a time.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from turbod.eventlog.batch import Part
from turbod.eventlog.hour_file import gap_line, gaps_name, records_name

DELETED_BYTES: Final = 16 * 1024 * 1024
DELETING_PAUSE_SECONDS: Final = 0.01
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFull(Exception):
    """There is no room for what should be written; the same again may work later."""


class SyncedFile:
    """A file that is appended to; what was not synced whole is cut off before the next append.

    Attributes:
        size: the bytes that are known to be on disk.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.size = os.fstat(self._descriptor).st_size
        self._torn = False

    def append(self, data: bytes | bytearray) -> None:
        """Write and sync. Of a failed append nothing stays once the next one begins."""
        if self._torn:
            os.ftruncate(self._descriptor, self.size)
        self._torn = True
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fdatasync(self._descriptor)
        self.size += len(data)
        self._torn = False

    def cut_back(self) -> None:
        """Cut off what a failed append left, where the disk lets us."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, self.size)

    def close(self) -> None:
        """Close the file; it is synced."""
        os.close(self._descriptor)


class Appender:
    """Writes parts of hours, each to its hour's file, gaps beside it and before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hour = 0
        self._file: SyncedFile | None = None

    def store(self, part: Part, size: int) -> int:
        """Write one part behind the `size` bytes that its hour's file has; return its new size.

        Raises:
            DiskFull: nothing of the part is in the hour's file; call again with the same part.
            OSError: for any other failure, after which nothing is certain.
        """
        with telling_full():
            file = self._open(part.hour)
            assert file.size == size, f"somebody else wrote to the log: {file.size}, not {size}"
            if part.gaps and not part.gaps_stored:
                self._store_gaps(part)
                part.gaps_stored = True
            try:
                file.append(part.data)
            except OSError:
                file.cut_back()
                raise
            return file.size

    def leave(self, hour: int) -> None:
        """Close an hour's file where it is the current one: nothing of it is stored again."""
        if self._hour == hour:
            self.close()

    def close(self) -> None:
        """Close the current file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, hour: int) -> SyncedFile:
        if self._file is None or self._hour != hour:
            self.close()
            file = SyncedFile(self.folder / records_name(hour))
            try:
                sync_folder(self.folder)
            except OSError:
                file.close()
                raise
            self._file, self._hour = file, hour
        return self._file

    def _store_gaps(self, part: Part) -> None:
        file = SyncedFile(self.folder / gaps_name(part.hour))
        try:
            file.append(b"".join(map(gap_line, part.gaps)))
            sync_folder(self.folder)
        except OSError:
            file.cut_back()
            raise
        finally:
            file.close()


def delete_hour(folder: Path, hour: int) -> None:
    """Delete an hour's files, a big one by the piece.

    Deleted at once, 600 MB hold up the file system for 0.2 s, and with it the log's own syncs.
    """
    with suppress(FileNotFoundError), (folder / records_name(hour)).open("r+b", 0) as file:
        (folder / records_name(hour)).unlink()
        left = os.fstat(file.fileno())
        size = 0 if left.st_nlink else left.st_size  # the bytes of another name stay
        while size > 0:
            size = max(size - DELETED_BYTES, 0)
            file.truncate(size)
            time.sleep(DELETING_PAUSE_SECONDS)
    (folder / gaps_name(hour)).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def telling_full() -> Iterator[None]:
    """Raise DiskFull in place of the errors that mean it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull(f"disk full: {error.strerror}") from error
