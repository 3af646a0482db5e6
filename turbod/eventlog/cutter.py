"""How a run of lines is cut into chunks, the same for what is written and what is read. Pure."""

from turbod.eventlog.chunk import MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Chunk, Gap, Pieces
from turbod.record import Head


class Cutter:
    """Collects lines in cursor order; a full chunk, or a gap, begins the next one.

    Attributes:
        chunks: those that are finished.
        size: the bytes of all lines that were added.
    """

    def __init__(self, *, after: int, ordinal: int | None = None) -> None:
        self.chunks: list[Chunk] = []
        self.size = 0
        self.last = after
        self._after = after
        self._ordinal = ordinal
        self._lines: list[Pieces] = []
        self._heads: list[Head] = []
        self._gap: Gap | None = None
        self._bytes = 1  # the array's bracket; the other one stands for the last line's comma

    def add(
        self, line: Pieces, cursor: int, head: Head | None = None, gap: Gap | None = None
    ) -> None:
        """Take the next line; `gap` is what is missing before it."""
        length = sum(map(len, line)) + 1
        if self._lines and (
            gap is not None
            or len(self._lines) == MAX_CHUNK_RECORDS
            or self._bytes + length > MAX_CHUNK_BYTES
        ):
            self.close()
        if gap is not None:
            self._gap = gap
        self._lines.append(line)
        if head is not None:
            self._heads.append(head)
        self._bytes += length
        self.size += length
        self.last = cursor

    def close(self) -> None:
        """Finish the chunk under way, if any."""
        if not self._lines:
            return
        chunk = Chunk(
            self._lines,
            after=self._after,
            last=self.last,
            heads=self._heads or None,
            gap=self._gap,
            ordinal=self._ordinal,
        )
        self.chunks.append(chunk)
        self._after = self.last
        if self._ordinal is not None:
            self._ordinal += len(chunk)
        self._lines, self._heads, self._gap, self._bytes = [], [], None, 1
