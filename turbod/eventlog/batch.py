"""What one write holds: cursors given, hours told apart, chunks cut. Pure."""

from collections import deque
from typing import Final

from turbod.cursor import HOUR_US, following
from turbod.eventlog.chunk import Chunk, Gap, lines_of
from turbod.eventlog.cutter import Cutter
from turbod.eventlog.hour_file import hour_of
from turbod.record import Record

MAX_BATCH_RECORDS: Final = 1000  # 3 ms of the event loop
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024


class Part:
    """The records of one batch that belong to one hour: one write, one sync.

    Attributes:
        hour: its first microsecond.
        gaps: those that stand before records in here.
        gaps_stored: whether they are on disk already.
        intakes: the records' intake numbers.
        bodies: the bytes of the records' bodies, as they counted while they waited.
    """

    def __init__(self, hour: int, *, after: int, ordinal: int) -> None:
        self.hour = hour
        self.gaps: list[Gap] = []
        self.gaps_stored = False
        self.intakes: list[int] = []
        self.bodies = 0
        self._cutter = Cutter(after=after, ordinal=ordinal)

    @property
    def chunks(self) -> list[Chunk]:
        """The records as memory and subscribers share them."""
        return self._cutter.chunks

    @property
    def first(self) -> int:
        """The first record's cursor."""
        return self.chunks[0].cursor(0)

    @property
    def last(self) -> int:
        """The last record's cursor."""
        return self.chunks[-1].last

    @property
    def data(self) -> bytearray:
        """What is appended to the hour's file."""
        return lines_of(self.chunks)

    def add(self, record: Record, cursor: int, gap: Gap | None) -> None:
        """Take a record under its cursor."""
        self.intakes.append(record.intake)
        self.bodies += len(record.body)
        self._cutter.add(record.pieces(cursor), cursor, record.head(cursor), gap)
        if gap is not None:
            self.gaps.append(gap)

    def close(self) -> None:
        """Finish the last chunk."""
        self._cutter.close()


def next_batch(
    queue: deque[Record | str], *, last: int, ordinal: int, now_us: int, sealed_end: int = 0
) -> tuple[list[Part], int]:
    """Take from the queue what one batch may hold; return its parts and the last cursor given.

    No cursor is given below `sealed_end`. A text in the queue is the message of a gap before the
    record behind it. In an empty log nothing can be missing, so there it means nothing.
    """
    parts: list[Part] = []
    message: str | None = None
    hour_end = records = size = 0
    while queue and records < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
        item = queue.popleft()
        if isinstance(item, str):
            message = item
            continue
        cursor = item.event.time_us
        if not last < cursor <= now_us or cursor < sealed_end or not last:
            # The rule decides; most events are in time.
            cursor = following(last, time_us=cursor, now_us=now_us, sealed_end=sealed_end)
        if cursor >= hour_end:
            parts.append(Part(hour_of(cursor), after=last, ordinal=ordinal + records))
            hour_end = parts[-1].hour + HOUR_US
        gap = Gap(last, cursor, message) if message is not None and last else None
        parts[-1].add(item, cursor, gap)
        last, message = cursor, None
        records += 1
        size += len(item.body)
    assert message is None, "a gap is queued with the record behind it"
    for part in parts:
        part.close()
    return parts, last
