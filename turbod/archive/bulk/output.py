"""Where fetched records go: standard output, one file, or a file an hour. Blocks, in a thread."""

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from turbod.archive.bulk.walk import Piece
from turbod.archive.format.names import Name, partition
from turbod.eventlog.appender import sync_folder
from turbod.eventlog.hour_file import LINE_BYTES
from turbod.eventlog.line import sound_cursor

_END_BYTES: Final = 4 * LINE_BYTES  # in which a file's last whole line is looked for


class CannotWrite(Exception):
    """An output is not what it should be: one line that says which, why, and what to do."""


class Output(Protocol):
    """Takes the pieces of a walk, in order."""

    def write(self, piece: Piece) -> None:
        """Write a piece's lines."""

    def close(self, *, is_whole: bool) -> None:
        """Make it durable; `is_whole` where nothing more would have come."""


class StandardOutput:
    """Standard output, past Python's own buffer."""

    def write(self, piece: Piece) -> None:
        """Write a piece's lines; waits for whoever reads them."""
        _write_all(sys.stdout.fileno(), piece.lines)

    def close(self, *, is_whole: bool) -> None:
        """Leave it open: it is not ours."""


class AppendedFile:
    """One file of lines in order of cursor, gone on with where an earlier run left it.

    Attributes:
        last: the cursor of its last whole line, 0 where there is none; what was behind is cut off.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise CannotWrite(
                f"{path}: no plain file; without --output all goes to standard output"
            )
        self._descriptor = _open_alone(path, os.O_RDWR | os.O_APPEND)
        try:
            end, self.last = _last_line(self._descriptor, path)
            os.ftruncate(self._descriptor, end)
        except BaseException:
            os.close(self._descriptor)
            raise

    def write(self, piece: Piece) -> None:
        """Append a piece's lines."""
        _write_all(self._descriptor, piece.lines)

    def close(self, *, is_whole: bool) -> None:
        """Make durable what there is: a later run goes on with it."""
        try:
            if is_whole:
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)


class LinesFile:
    """A file of lines that is written at one go."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, piece: Piece) -> None:
        """Write a piece's lines."""
        _write_all(self._descriptor, piece.lines)

    def close(self, *, is_whole: bool) -> None:
        """Do nothing: every line is with the system already."""


class WholeFile:
    """One file that has its name only once it is whole; until then it is called `NAME.part`."""

    def __init__(self, path: Path, open_writer: Callable[[int], Output]) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = _open_alone(self._part, os.O_WRONLY)
        os.ftruncate(self._descriptor, 0)
        self._writer = open_writer(self._descriptor)

    def write(self, piece: Piece) -> None:
        """Write a piece's lines."""
        self._writer.write(piece)

    def close(self, *, is_whole: bool) -> None:
        """Give it its name where it is whole, else leave nothing."""
        try:
            self._writer.close(is_whole=is_whole)
            if is_whole:
                os.fsync(self._descriptor)
                self._part.rename(self._path)
                sync_folder(self._path.parent)
        except OSError:
            is_whole = False
            raise
        finally:
            if not is_whole:
                self._part.unlink(missing_ok=True)
            os.close(self._descriptor)


class HourFiles:
    """A file an hour below a folder, in partitions as the archive's own; named as its object.

    An hour of which nothing can be read gets none.
    """

    def __init__(self, folder: Path, ending: str, open_writer: Callable[[int], Output]) -> None:
        self._folder = folder
        self._ending = ending
        self._open_writer = open_writer
        self._name: Name | None = None
        self._file: WholeFile | None = None

    def has(self, name: Name) -> bool:
        """Tell whether an hour's file is there."""
        return self._path(name).exists()

    def write(self, piece: Piece) -> None:
        """Write a piece's lines into its hour's file."""
        if piece.name != self._name:
            self.close(is_whole=True)
            self._name = piece.name
        if self._file is None and piece.instance:
            self._file = WholeFile(self._path(piece.name), self._open_writer)
        if self._file is not None:
            self._file.write(piece)

    def close(self, *, is_whole: bool) -> None:
        """End the hour that is being written, if any."""
        file, self._file, self._name = self._file, None, None
        if file is not None:
            file.close(is_whole=is_whole)

    def _path(self, name: Name) -> Path:
        return self._folder / partition(name.hour) / f"{name.first}-{name.last}{self._ending}"


def _open_alone(path: Path, flags: int) -> int:
    """Open a file that nobody else writes meanwhile, made where absent."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise CannotWrite(f"{path}: another process writes it") from None
    return descriptor


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _last_line(descriptor: int, path: Path) -> tuple[int, int]:
    """Return where the last whole record of a file ends, and its cursor; 0 and 0 for none."""
    size = os.fstat(descriptor).st_size
    begin = max(0, size - _END_BYTES)
    data = os.pread(descriptor, size - begin, begin)
    end = data.rfind(b"\n") + 1
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if cursor := sound_cursor(data[start : end - 1]):
            return begin + end, cursor
        end = start
    is_torn_line = b"\n" not in data and b'{"cursor":'.startswith(data[:10])
    if begin or not is_torn_line:
        raise CannotWrite(f"{path}: there already, and not of records; name another file")
    return 0, 0
