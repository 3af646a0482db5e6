"""What is done to the log's folder at start: repair, and learning what is there. It blocks."""

import os
from pathlib import Path
from typing import Final

import structlog

from turbod.eventlog.appender import sync_folder
from turbod.eventlog.batch import MAX_BATCH_BYTES
from turbod.eventlog.hour_file import (
    LINE_BYTES,
    gaps_name,
    hour_of,
    parse_name,
    read_gaps,
    records_name,
    sound_bytes,
)
from turbod.eventlog.hours import Hours
from turbod.eventlog.line import HEAD_BYTES, head_cursor
from turbod.eventlog.reader import line_after

# Only the last write can be torn: each is synced before the next begins, and none is bigger than a
# batch and a record. So the end of the newest file is looked at, with a margin, not all of it.
REPAIR_BYTES: Final = 64 * 1024 * 1024
_BLOCK_BYTES: Final = 4 * 1024 * 1024
assert REPAIR_BYTES > 2 * (MAX_BATCH_BYTES + LINE_BYTES)

log = structlog.get_logger()


class Opened:
    """The repaired log.

    Attributes:
        last: the newest cursor on disk, 0 where there is none.
        gap_message: of a gap whose record was not written any more: it stands before the next one.
        recent: a position with about the bytes behind it that were asked for.
    """

    def __init__(self, folder: Path, *, recent_bytes: int) -> None:
        self.hours = Hours(folder)
        self.last = 0
        self.gap_message: str | None = None
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        self._find_hours()
        self.recent = self._position_before(recent_bytes)

    def _find_hours(self) -> None:
        records, gaps, unknown = _sorted_names(self._folder)
        if unknown:
            log.warning("log_unknown_files", folder=str(self._folder), files=unknown[:10])
        while records and not self.last:
            self.last = _repair(self._folder / records_name(records[-1]), hour=records[-1])
            if not self.last:
                records.pop()
        for hour in records:
            self._take(hour)
        self.hours.lost = self.hours.floor
        for hour in gaps:
            self._take_gaps(hour)

    def _take(self, hour: int) -> None:
        path = self._folder / records_name(hour)
        with path.open("rb") as file:
            first = head_cursor(file.read(HEAD_BYTES)) or hour
            size = os.fstat(file.fileno()).st_size
        if size:
            last = self.last if hour_of(self.last) == hour else 0
            self.hours.grew(hour, size=size, first=first, last=last)
        else:
            path.unlink()

    def _take_gaps(self, hour: int) -> None:
        path = self._folder / gaps_name(hour)
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
        gaps = read_gaps(data[:whole])
        for gap in gaps:
            if gap.before > self.last:
                self.gap_message = gap.message if self.last else None
            elif gap.before > self.hours.floor:
                self.hours.add_gap(gap)
        if all(gap.before <= self.hours.floor for gap in gaps):
            path.unlink()

    def _position_before(self, wanted: int) -> int:
        for span in reversed(self.hours.spans(0, limit=len(self.hours))):
            if span.size > wanted:
                descriptor = os.open(span.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    line = line_after(descriptor, span.size - wanted, span.size)
                finally:
                    os.close(descriptor)
                return line[1] if line else span.hour - 1
            wanted -= span.size
        return self.hours.floor


def _sorted_names(folder: Path) -> tuple[list[int], list[int], list[str]]:
    records: list[int] = []
    gaps: list[int] = []
    unknown: list[str] = []
    for name in sorted(path.name for path in folder.iterdir()):
        known = parse_name(name)
        if known is None:
            unknown.append(name)
        else:
            (gaps if known[1] else records).append(known[0])
    return records, gaps, unknown


def _repair(path: Path, *, hour: int) -> int:
    """Cut off what is not whole; return the last cursor, or 0 where it left nothing, nor a file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        whole, last = _sound(descriptor, size=size, hour=hour)
        if whole < size:
            os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
            log.warning("log_repaired", file=path.name, bytes_cut=size - whole, bytes_kept=whole)
    finally:
        os.close(descriptor)
    if not whole:
        path.unlink()
        return 0
    return last


def _sound(descriptor: int, *, size: int, hour: int) -> tuple[int, int]:
    line = line_after(descriptor, size - REPAIR_BYTES, size) if size > REPAIR_BYTES else None
    if line is not None:
        whole, last = _sound_from(descriptor, line[0], hour=hour)
        if last >= hour:
            return whole, last
    return _sound_from(descriptor, 0, hour=hour)


def _sound_from(descriptor: int, offset: int, *, hour: int) -> tuple[int, int]:
    last, rest = hour - 1, b""
    while block := os.pread(descriptor, _BLOCK_BYTES, offset + len(rest)):
        data = rest + block
        whole, last = sound_bytes(data, hour=hour, last=last)
        offset, rest = offset + whole, data[whole:]
        if len(rest) > LINE_BYTES or b"\n" in rest:
            break
    return offset, last
