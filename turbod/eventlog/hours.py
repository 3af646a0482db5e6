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
        last: the last record's cursor; where no line is sound, the hour's own beginning.
        gaps: those that stand before records of this hour, in order.
    """

    path: Path
    hour: int
    size: int
    first: int
    last: int
    gaps: list[Gap]


class _Extent(msgspec.Struct):
    size: int
    first: int
    last: int


class Hours:
    """The hours in order. Only the newest one grows, only the oldest one goes.

    Attributes:
        total_bytes: all files together.
        lost: the last record that went with its hour; readers that have not had it are refused.
    """

    def __init__(self, folder: Path, *, lost: int = 0) -> None:
        self._folder = folder
        self._hours: list[int] = []
        self._extents: list[_Extent] = []
        self._gaps: dict[int, Gap] = {}
        self.total_bytes = 0
        self.lost = lost

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
        return self._extents[0].first - 1 if self._extents else self.lost

    @property
    def newest(self) -> int:
        """The hour that may grow, 0 where there is none."""
        return self._hours[-1] if self._hours else 0

    @property
    def gap_count(self) -> int:
        """How many gaps are known."""
        return len(self._gaps)

    def size(self, hour: int) -> int:
        """Return how many bytes of an hour are on disk: 0 for one that has not begun."""
        return self._extents[-1].size if self.newest == hour else 0

    def grew(self, hour: int, *, size: int, first: int, last: int) -> None:
        """Note that an hour is on disk up to `size`; `first` is its first record if it is new."""
        if self.newest == hour:
            extent = self._extents[-1]
            self.total_bytes += size - extent.size
            extent.size, extent.last = size, last
            return
        assert hour > self.newest, "hours come in order"
        self._hours.append(hour)
        self._extents.append(_Extent(size, first, last))
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
            Span(self._folder / records_name(hour), hour, extent.size)
            for hour, extent in zip(self._hours[chosen], self._extents[chosen], strict=True)
        ]

    def plain(self, hour: int) -> PlainHour:
        """Return all that is known of an hour that is there."""
        extent = self._extents[self._hours.index(hour)]
        return PlainHour(
            self._folder / records_name(hour),
            hour,
            extent.size,
            extent.first,
            extent.last,
            [self._gaps[at] for at in sorted(self._gaps) if hour <= at < hour + HOUR_US],
        )

    def older_than(self, hour: int) -> Sequence[int]:
        """Return the hours before this one."""
        return self._hours[: bisect_left(self._hours, hour)]

    def release(self, hour: int) -> None:
        """Forget the oldest hour."""
        assert self._hours[:1] == [hour], "the oldest hour goes first"
        extent = self._extents[0]
        del self._hours[0], self._extents[0]
        self.total_bytes -= extent.size
        self.lost = extent.last
        self._gaps = {at: gap for at, gap in self._gaps.items() if at > self.lost}
