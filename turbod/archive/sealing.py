"""Making an hour's object out of its plain file. It blocks, in a thread, and is polite there.

A thread that runs Python holds the interpreter while the event loop waits for it: so Python runs
here for a millisecond at a time, with three of sleep between; what takes long (zstd, SHA-256, the
disk) lets go of the interpreter by itself.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from turbod.archive.format.hour_object import (
    FRAME_BYTES,
    TAIL_BYTES,
    Damaged,
    check_seek_table,
    index_span,
    read_frame,
    read_index,
)
from turbod.archive.format.index import Frame, Index
from turbod.archive.format.inspection import Inspection
from turbod.archive.format.names import Name
from turbod.archive.format.object_writer import ObjectWriter
from turbod.cursor import HOUR_US, hour_name
from turbod.envelope import Malformed
from turbod.eventlog.appender import sync_folder, telling_full
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hour_file import LINE_BYTES, MAX_GAP_MESSAGE, records_name
from turbod.eventlog.hours import PlainHour
from turbod.eventlog.line import sound_cursor
from turbod.record import Head, head_of_line

BURST_SECONDS: Final = 0.001
PAUSE_SECONDS: Final = 0.003
DAMAGED: Final = ".damaged"
_BLOCK_BYTES: Final = 1024 * 1024

log = structlog.get_logger()


class Cancelled(Exception):
    """Whoever asked for the object does not want it any more; nothing of it is left."""


def seal(
    hour: PlainHour,
    *,
    folder: Path,
    previous: int,
    instance: str,
    upstreams: Sequence[str],
    cancelled: Callable[[], bool],
    frame_bytes: int = FRAME_BYTES,
) -> Name | None:
    """Make the hour's object in `folder`, durable under its own name; return that.

    Lines that are not sound are left out, a gap says so, and the plain file is kept beside itself
    under a second name that ends in DAMAGED. None, and no object, where no line is sound. The
    plain file stays: deleting it is the caller's, once this has returned.

    Raises:
        DiskFull: nothing is left of it; the same again may work later.
        Cancelled: because `cancelled()`, which is asked several times a second at least.
        Damaged: what was written did not read back.
        OSError: the disk failed in another way.
    """
    making = folder / f".{hour_name(hour.hour)}.jsonl.zst.making"
    pause = _Pace(cancelled).pause
    try:
        with telling_full(), making.open("w+b") as file:
            writer = ObjectWriter(file, frame_bytes=frame_bytes, pause=pause)
            gaps = _fill(writer, hour, previous=previous, pause=pause)
            if not writer.frames:
                return None
            name = writer.finish(
                previous=previous, instance=instance, upstreams=list(upstreams), gaps=gaps
            )
            _read_back(file, name, pause)
            making.rename(folder / name.file)
            sync_folder(folder)
            return name
    finally:
        with suppress(OSError):
            making.unlink(missing_ok=True)


def check(path: Path, name: Name) -> Index:
    """Read a whole object and compare it with its index and its name; return the index.

    Raises:
        Damaged: the first thing that is not as it should be.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        index = _index(file, name)
        inspection = Inspection(index)
        for frame in index.frames:
            inspection.add(frame, _lines_of(file, frame))
        inspection.finish()
    return index


class _Pace:
    """Lets the event loop have the interpreter: after each burst of Python a pause."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self._cancelled = cancelled
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Sleep where a burst is over. To be called every few microseconds of Python."""
        if time.perf_counter() - self._since < BURST_SECONDS:
            return
        if self._cancelled():
            raise Cancelled
        time.sleep(PAUSE_SECONDS)
        self._since = time.perf_counter()


def _fill(
    writer: ObjectWriter, hour: PlainHour, *, previous: int, pause: Callable[[], None]
) -> list[Gap]:
    """Give the writer every sound line; return the gaps that the index names."""
    gaps = _Gaps(hour, previous=previous)
    for line in _plain_lines(hour, pause):
        head = _sound(line, hour=hour.hour, last=gaps.last)
        if head is None:
            gaps.left_out(line)
        else:
            gaps.passed(head.cursor)
            writer.add(line, head)
        pause()
    writer.close_frame()
    return gaps.finish()


class _Gaps:
    """Which gaps stand before which sound lines.

    Attributes:
        last: the last sound line's cursor, or the cursor before the hour.
    """

    def __init__(self, hour: PlainHour, *, previous: int) -> None:
        self.last = hour.hour - 1
        self._hour = hour
        self._after = previous or self.last
        self._waiting = sorted(hour.gaps, key=lambda gap: -gap.before)
        self._found: list[Gap] = []
        self._lines = self._bytes = 0
        self._damage = ""

    def left_out(self, line: bytes) -> None:
        """Note a line that is not sound."""
        self._lines += 1
        self._bytes += len(line)
        self._damage = f"{records_name(self._hour.hour)} was damaged"

    def passed(self, cursor: int) -> None:
        """Note a sound line, or the hour's end."""
        found = [Gap(self._after, cursor, self._damage)] if self._damage else []
        while self._waiting and self._waiting[-1].before <= cursor:
            found.append(self._waiting.pop())
        if len(found) == 1 and found[0].before == cursor:
            self._found += found
        elif found:
            message = "; ".join(gap.message for gap in found)[:MAX_GAP_MESSAGE]
            self._found.append(Gap(min(gap.after for gap in found), cursor, message))
        self._after = self.last = cursor
        self._damage = ""

    def finish(self) -> list[Gap]:
        """Return all; one behind the last line ends with the hour."""
        self.passed(self._hour.hour + HOUR_US)
        if self._lines:
            kept = _keep(self._hour.path)
            log.error(
                "hour_damaged",
                file=self._hour.path.name,
                lines_left_out=self._lines,
                bytes_left_out=self._bytes,
                kept=kept.name,
            )
        return self._found


def _keep(path: Path) -> Path:
    """Give a file a second name, so that what is left out of its object is not lost."""
    kept = path.with_name(path.name + DAMAGED)
    with suppress(FileExistsError):
        kept.hardlink_to(path)
    sync_folder(path.parent)
    return kept


def _sound(line: bytes, *, hour: int, last: int) -> Head | None:
    """Return what the index tells of a line, None where it may not be in an object."""
    if not line.endswith(b"\n") or not last < sound_cursor(line) < hour + HOUR_US:
        return None
    try:
        return head_of_line(line)
    except Malformed:
        return None


def _plain_lines(hour: PlainHour, pause: Callable[[], None]) -> Iterator[bytes]:
    """Yield the lines with their breaks; without one, what is too long for a line or cut off."""
    left, rest = hour.size, b""
    with hour.path.open("rb", buffering=0) as file:
        while left:
            pause()
            block = file.read(min(_BLOCK_BYTES, left))
            left -= len(block)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line + b"\n"
            if len(rest) > LINE_BYTES or not block:
                yield rest
                rest = b""
            if not block:
                return
    if rest:
        yield rest


def _read_back(file: BinaryIO, name: Name, pause: Callable[[], None]) -> None:
    """Compare what is in the file with what was meant to be: every byte decodes to the lines."""
    index = _index(file, name)
    digest = sha256()
    for frame in index.frames:
        pause()
        digest.update(_lines_of(file, frame))
    if digest.hexdigest() != index.sha256:
        raise Damaged("the lines are not those whose SHA-256 the index has")


def _index(file: BinaryIO, name: Name) -> Index:
    size = os.fstat(file.fileno()).st_size
    begin = max(0, size - TAIL_BYTES)
    tail = _read(file, begin, size - begin)
    offset, index_size = index_span(tail, size=size)
    index = read_index(_read(file, offset, index_size), name)
    check_seek_table(index, tail)
    return index


def _lines_of(file: BinaryIO, frame: Frame) -> bytes:
    return read_frame(_read(file, frame.offset, frame.size), frame)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
