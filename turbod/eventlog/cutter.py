"""How a run of lines is cut into chunks, the same for what is written and what is read. Pure."""

from turbod.eventlog.chunk import MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Chunk, Gap, Lines
from turbod.record import Head


class Cutter:
    """Collects lines in cursor order; a full chunk, or a gap, begins the next one.

    Attributes:
        chunks: those that are finished.
    """

    def __init__(self, *, after: int, ordinal: int | None = None) -> None:
        self.chunks: list[Chunk] = []
        self._closed_bytes = 0
        self.last = after
        self._after = after
        self._ordinal = ordinal
        self._pieces = [b"["]
        self._ends: list[int] = []
        self._end = 0  # of the array so far, without the last comma or bracket
        self._heads: list[Head] = []
        self._gap: Gap | None = None

    @property
    def size(self) -> int:
        """The bytes of all lines that were added."""
        return self._closed_bytes + self._end

    def add(
        self,
        line: tuple[bytes, bytes],
        cursor: int,
        head: Head | None = None,
        gap: Gap | None = None,
    ) -> None:
        """Take the next line, in two pieces of any length; `gap` is what is missing before it."""
        beginning, rest = line
        length = len(beginning) + len(rest) + 1
        if self._ends and (
            gap is not None
            or len(self._ends) == MAX_CHUNK_RECORDS
            or self._end + length >= MAX_CHUNK_BYTES
        ):
            self.close()
        if gap is not None:
            self._gap = gap
        self._pieces += (beginning, rest, b",")
        self._end += length
        self._ends.append(self._end)
        if head is not None:
            self._heads.append(head)
        self.last = cursor

    def close(self) -> None:
        """Finish the chunk under way, if any."""
        if not self._ends:
            return
        self._pieces[-1] = b"]"
        chunk = Chunk(
            Lines(b"".join(self._pieces), self._ends),
            after=self._after,
            last=self.last,
            heads=self._heads or None,
            gap=self._gap,
            ordinal=self._ordinal,
        )
        self.chunks.append(chunk)
        self._closed_bytes += self._end
        self._after = self.last
        if self._ordinal is not None:
            self._ordinal += len(chunk)
        self._pieces, self._ends, self._end, self._heads, self._gap = [b"["], [], 0, [], None
