"""Which hours the log holds, how far each is on disk, which gaps lie in them. No I/O."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

import msgspec

from turbod.cursor import HOUR_US
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hour_file import records_name


class Span(msgspec.Struct, frozen=True):
    """What may be read of one hour's file: its first `size` bytes are on disk and whole."""

    path: Path
    hour: int
    size: int


class PlainHour(msgspec.Struct, frozen=True):
    """An hour's plain file in the log's folder.

    Attributes:
        hour: its first microsecond.
        size: the bytes that are on disk.
        first: the first record's cursor; where its line is damaged, the hour's own beginning.
        last: the last record's cursor.
        gaps: those that stand before records of this hour.
    """

    path: Path
    hour: int
    size: int
    first: int
    last: int
    gaps: list[Gap]


class Hours:
    """The hours in order. Only the newest one grows, only the oldest one goes.

    Attributes:
        total_bytes: all files together.
        lost: the last record that was deleted; readers that have not had it are refused.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hours: list[int] = []
        self._sizes: list[int] = []
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._gaps: dict[int, Gap] = {}
        self.total_bytes = 0
        self.lost = 0

    def __len__(self) -> int:
        """Return how many hours there are."""
        return len(self._hours)

    def __contains__(self, hour: int) -> bool:
        """Tell whether an hour is still there."""
        index = bisect_left(self._hours, hour)
        return index < len(self._hours) and self._hours[index] == hour

    @property
    def floor(self) -> int:
        """Everything above it is retained."""
        return self._firsts[0] - 1 if self._firsts else 0

    @property
    def gap_count(self) -> int:
        """How many gaps are known."""
        return len(self._gaps)

    def size(self, hour: int) -> int:
        """Return how many bytes of an hour are on disk: 0 for one that has not begun."""
        return self._sizes[-1] if self._hours and self._hours[-1] == hour else 0

    def grew(self, hour: int, *, size: int, first: int, last: int = 0) -> None:
        """Note that an hour is on disk up to `size`, and its last record, 0 where not known.

        `first` is its first record if it is new.
        """
        if self._hours and self._hours[-1] == hour:
            self.total_bytes += size - self._sizes[-1]
            self._sizes[-1], self._lasts[-1] = size, last
            return
        assert not self._hours or hour > self._hours[-1], "hours come in order"
        self._hours.append(hour)
        self._sizes.append(size)
        self._firsts.append(first)
        self._lasts.append(last)
        self.total_bytes += size

    def add_gap(self, gap: Gap) -> None:
        """Note a gap; a later one before the same record takes its place."""
        self._gaps[gap.before] = gap

    def gap_before(self, cursor: int) -> Gap | None:
        """Return the gap that stands before a record."""
        return self._gaps.get(cursor)

    def spans(self, after: int, *, limit: int) -> Sequence[Span]:
        """Return the first hours that may hold records above `after`."""
        begin = bisect_right(self._hours, after - HOUR_US)
        chosen = slice(begin, begin + limit)
        return [
            Span(self._folder / records_name(hour), hour, size)
            for hour, size in zip(self._hours[chosen], self._sizes[chosen], strict=True)
        ]

    def drop_oldest(self, *, max_bytes: int) -> list[int]:
        """Forget the oldest hours until the rest fits, never the newest; return them to delete."""
        count, total = 0, self.total_bytes
        while total > max_bytes and count < len(self._hours) - 1:
            total -= self._sizes[count]
            count += 1
        dropped = self._hours[:count]
        if dropped:
            lost = self._lasts[count - 1]
            del self._hours[:count], self._sizes[:count]
            del self._firsts[:count], self._lasts[:count]
            self.total_bytes, self.lost = total, lost or self.floor
            self._gaps = {at: gap for at, gap in self._gaps.items() if at > self.lost}
        return dropped
