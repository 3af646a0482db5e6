"""What is done to the log's folder at start: repair, and learning what is there. It blocks."""

import os
from pathlib import Path
from typing import Final

import structlog

from turbod.cursor import HOUR_US
from turbod.eventlog.appender import sync_folder
from turbod.eventlog.batch import MAX_BATCH_BYTES
from turbod.eventlog.hour_file import (
    LINE_BYTES,
    gaps_name,
    parse_name,
    read_gaps,
    records_name,
    sound_bytes,
)
from turbod.eventlog.hours import Hours, PlainHour
from turbod.eventlog.line import HEAD_BYTES, head_cursor, sound_cursor
from turbod.eventlog.reader import line_after

# Only the last write can be torn: each is synced before the next begins, and none is bigger than a
# batch and a record. So the end of the newest file is looked at, with a margin, not all of it.
REPAIR_BYTES: Final = 64 * 1024 * 1024
_BLOCK_BYTES: Final = 4 * 1024 * 1024
assert _BLOCK_BYTES > LINE_BYTES
assert REPAIR_BYTES > 2 * (MAX_BATCH_BYTES + LINE_BYTES)

log = structlog.get_logger()


class Opened:
    """The repaired log.

    Attributes:
        last: the newest cursor ever given, 0 where there is none.
        gap_message: of a gap whose record was not written any more: it stands before the next one.
        recent: a position with about the bytes behind it that were asked for.
    """

    def __init__(self, folder: Path, *, recent_bytes: int, after: int) -> None:
        self.hours = Hours(folder, lost=after)
        self.last = after
        self.gap_message: str | None = None
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        self._find_hours()
        self.recent = self._position_before(recent_bytes)

    def _find_hours(self) -> None:
        for hour in plain_hours(self._folder):
            assert hour.first > self.last, f"{hour.path.name} begins at {hour.first}, not above"
            self.hours.grew(hour.hour, size=hour.size, first=hour.first, last=hour.last)
            self.last = hour.last
        _, gaps, unknown = _sorted_names(self._folder)
        if unknown:
            log.warning("log_unknown_files", folder=str(self._folder), files=unknown[:10])
        for each in gaps:
            self._take_gaps(each)

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
                cursor = line[1] if line else 0
                return cursor if span.hour <= cursor < span.hour + HOUR_US else span.hour - 1
            wanted -= span.size
        return self.hours.floor


def plain_hours(folder: Path) -> list[PlainHour]:
    """Repair the newest hour's file; return the hours, oldest first. Empty files are deleted.

    Only one that holds bytes is an hour; in the newest at least one line is sound.
    """
    records, gaps, _ = _sorted_names(folder)
    found: list[PlainHour] = []
    for hour in reversed(records):
        path = folder / records_name(hour)
        last = 0 if found else _repair(path, hour=hour)
        if (last or found) and (plain := _plain_hour(path, hour, last, has_gaps=hour in gaps)):
            found.append(plain)
    return found[::-1]


def _plain_hour(path: Path, hour: int, last: int, *, has_gaps: bool) -> PlainHour | None:
    """Look into an hour's file; `last` is its last cursor, or 0 where that is to be found out."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        first = head_cursor(os.pread(descriptor, HEAD_BYTES, 0))
        last = last or _last_cursor(descriptor, size=size, hour=hour)
    finally:
        os.close(descriptor)
    if not size:
        path.unlink()
        return None
    gaps = read_gaps(path.with_name(gaps_name(hour)).read_bytes()) if has_gaps else []
    in_order = sorted({gap.before: gap for gap in gaps if gap.before <= last}.items())
    first = first if hour <= first <= last else hour
    return PlainHour(path, hour, size, first, last, [gap for _, gap in in_order])


def _last_cursor(descriptor: int, *, size: int, hour: int) -> int:
    """Return the cursor of the last line that is sound, or the hour where none is."""
    begin = size
    while begin:
        begin = max(begin - _BLOCK_BYTES + LINE_BYTES, 0)
        block = os.pread(descriptor, _BLOCK_BYTES, begin)
        for line in reversed(block.split(b"\n")):
            if hour <= (cursor := sound_cursor(line)) < hour + HOUR_US:
                return cursor
    return hour


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
