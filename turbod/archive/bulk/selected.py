"""The lines of a frame that were asked for, exactly. For threads: it takes milliseconds."""

from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from turbod.archive.bulk.parts import Asked
from turbod.archive.format.hour_object import Damaged, count_lines, read_frame
from turbod.archive.format.index import OTHERS, Frame
from turbod.archive.reading.selection import Selection
from turbod.envelope import Malformed
from turbod.event import KINDS
from turbod.eventlog.line import cursor_of
from turbod.filter import EVERYTHING, Filter
from turbod.record import Head, head_of_line


class Selecting:
    """What was asked for of an archive: a range of cursors, and a filter."""

    def __init__(self, asked: Asked, chosen: Filter) -> None:
        self.asked = asked
        self._filter = chosen
        self._selection = Selection(chosen)
        # Whether the collection that an index names decides, without a look at the record.
        named = msgspec.structs.replace(
            chosen, collections=frozenset(), prefixes=(), kinds=frozenset()
        )
        self._goes_by_collection = named == EVERYTHING

    def wants(self, frame: Frame) -> bool:
        """Tell whether a frame may hold something."""
        return self._selection.is_everything or self._selection.wants(frame)

    def lines(self, data: bytes, frame: Frame) -> tuple[bytes, int]:
        """Decompress a frame; return the lines that were asked for and how many they are.

        Raises:
            Damaged: the frame is not what the index says, or holds a line that is no record.
        """
        lines, records = read_frame(data, frame), frame.records
        if frame.first <= self.asked.after or frame.last > self.asked.until:
            lines = self._within(lines)
            records = count_lines(lines, most=records)
        if self._takes_all(frame):
            return lines, records
        try:
            chosen = [line for line in self._candidates(lines) if self._matches(line)]
        except Malformed as error:
            raise Damaged(f"the frame at {frame.offset} holds no record: {error}") from None
        return b"".join(chosen), len(chosen)

    def _takes_all(self, frame: Frame) -> bool:
        if self._selection.is_everything:
            return True
        return self._goes_by_collection and all(map(self._takes, frame.collections))

    def _takes(self, collection: str) -> bool:
        """Tell whether all events of what an index calls a collection were asked for."""
        if collection == OTHERS:
            return False
        is_commit = not collection.startswith("#")
        kind = "commit" if is_commit else collection[1:]
        head = Head(0, "", kind, "", collection if is_commit else "", ())
        return kind in KINDS and self._filter.matches(head, 0)

    def _within(self, lines: bytes) -> bytes:
        """Cut off what lies outside of the cursors that were asked for."""
        every = lines.split(b"\n")[:-1]
        try:
            begin = bisect_right(every, self.asked.after, key=cursor_of)
            end = bisect_right(every, self.asked.until, key=cursor_of)
        except (ValueError, RecursionError):
            raise Damaged("a line has no cursor") from None
        return b"".join(line + b"\n" for line in every[begin:end])

    def _candidates(self, lines: bytes) -> Iterator[bytes]:
        start = 0
        while end := lines.find(b"\n", start) + 1:
            if self._selection.may_match(lines, start, end - 1):
                yield lines[start:end]
            start = end

    def _matches(self, line: bytes) -> bool:
        return self._filter.matches(head_of_line(line), len(line) - 1)
