"""A run of records as memory, disk and subscribers share it. Pure."""

from bisect import bisect_right
from collections.abc import Sequence, Sized
from typing import Final, NamedTuple

import msgspec

from turbod.eventlog.line import HEAD_BYTES, cursor_of, head_cursor
from turbod.record import Head, head_or_nobody

MAX_CHUNK_RECORDS: Final = 100
MAX_CHUNK_BYTES: Final = 512 * 1024  # of the array text; a single longer record stands alone
_LINE_FEED: Final = 10


# A line in the pieces that it is spliced from: joined only where it comes to rest.
Pieces = tuple[bytes, ...]


class Lines(NamedTuple):
    """Lines that lie together already.

    Attributes:
        array: `[line,line,...]`.
        ends: where each line in it ends; it begins one byte behind the end of the former.
    """

    array: bytes
    ends: Sequence[int]


class Gap(msgspec.Struct, frozen=True):
    """Events between two cursors may be missing: the upstream no longer had them."""

    after: int
    before: int
    message: str


class Stretch(msgspec.Struct, frozen=True):
    """What one read of history found.

    Attributes:
        items: chunks in order of cursor; a gap that no chunk behind it bears stands by itself.
        last: the position behind it: nothing up to here that was asked for is left out.
    """

    items: "list[Chunk | Gap]"
    last: int


class Chunk:
    """At most MAX_CHUNK_RECORDS records in cursor order: one message to an unfiltered subscriber.

    The records' bytes are kept once, as the text of a JSON array; a line is a slice of it.

    Attributes:
        after: the position before this chunk: no retained record lies between it and the first.
        last: the position behind it, the cursor of its last record.
        gap: what is missing between `after` and the first record, or None.
        array: `[line,line,...]`.
        ends: where each line in the array ends.
        ordinal: how many records came before this chunk since the process started, or None where
            it was read from disk.
        dids: the DIDs that its records come from or are about, or None where it was read from disk.
        published_at: by the event loop's clock, of the few whose way to subscribers is looked at.
        texts: message texts that subscribers share, by whatever key the server chooses.
    """

    __slots__ = (
        *("_heads", "after", "array", "dids", "ends", "gap", "last", "ordinal", "published_at"),
        "texts",
    )

    def __init__(
        self,
        lines: Sequence[Pieces] | Lines,
        *,
        after: int,
        last: int,
        heads: Sequence[Head] | None = None,
        gap: Gap | None = None,
        ordinal: int | None = None,
    ) -> None:
        self.after = after
        self.last = last
        self.gap = gap
        self.ordinal = ordinal
        self.published_at: float | None = None
        self._heads = heads
        self.array, self.ends = lines if isinstance(lines, Lines) else _spliced(lines)
        assert self.ends, "a chunk holds at least one record"
        # Whom a filter by DID may find in here, so that one test passes over the whole chunk.
        self.dids = (
            frozenset([head.did for head in heads]).union(*[head.about for head in heads])
            if heads
            else None
        )
        self.texts: dict[object, Sized] = {}

    def __len__(self) -> int:
        """Return how many records there are."""
        return len(self.ends)

    @property
    def heads(self) -> Sequence[Head]:
        """What filters ask for, one a record; read from the lines where they came from disk."""
        if self._heads is None:
            self._heads = tuple(head_or_nobody(self.line(i)) for i in range(len(self)))
        return self._heads

    def line(self, index: int) -> bytes:
        """Return one record's line, without a line break."""
        start = self.ends[index - 1] if index else 0
        return self.array[start + 1 : self.ends[index]]

    def cursor(self, index: int) -> int:
        """Return one record's cursor."""
        if self._heads is not None:
            return self._heads[index].cursor
        start = self.ends[index - 1] + 1 if index else 1
        return head_cursor(self.array[start : start + HEAD_BYTES]) or cursor_of(self.line(index))

    def count_until(self, cursor: int) -> int:
        """Return how many of the records have a cursor of at most `cursor`."""
        if cursor >= self.last:
            return len(self)
        return (
            0 if cursor <= self.after else bisect_right(range(len(self)), cursor, key=self.cursor)
        )

    def size(self, index: int) -> int:
        """Return the length of one record's line."""
        return self.ends[index] - (self.ends[index - 1] if index else 0) - 1


def _spliced(lines: Sequence[Pieces]) -> Lines:
    """Return the array of some lines; every byte is copied once."""
    pieces, ends, end = [b"["], [], 0
    for line in lines:
        pieces += line
        pieces.append(b",")
        end += sum(map(len, line)) + 1
        ends.append(end)
    pieces[-1] = b"]"
    return Lines(b"".join(pieces), ends)


def lines_of(chunks: Sequence[Chunk]) -> bytearray:
    """Return the lines of some chunks as they lie on disk, each with its break."""
    arrays = [memoryview(chunk.array)[1:] for chunk in chunks]
    lines, start = bytearray().join(arrays), -1
    for chunk in chunks:
        for end in chunk.ends:
            lines[start + end] = _LINE_FEED
        start += chunk.ends[-1]
    return lines


def merged(chunks: Sequence[Chunk]) -> Chunk:
    """Return one chunk in place of several neighbours, of which only the first may have a gap."""
    first = chunks[0]
    return Chunk(
        [(chunk.line(i),) for chunk in chunks for i in range(len(chunk))],
        after=first.after,
        last=chunks[-1].last,
        heads=[head for chunk in chunks for head in chunk.heads],
        gap=first.gap,
        ordinal=first.ordinal,
    )
