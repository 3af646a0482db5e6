"""A run of records as memory, disk and subscribers share it. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from turbod.record import Head, head_of_line

MAX_CHUNK_RECORDS: Final = 100
MAX_CHUNK_BYTES: Final = 512 * 1024  # of the array text; a single longer record stands alone


class Gap(msgspec.Struct, frozen=True):
    """Events between two cursors may be missing: the upstream no longer had them."""

    after: int
    before: int
    message: str


class Chunk:
    """At most MAX_CHUNK_RECORDS records in cursor order: one message to an unfiltered subscriber.

    The records' bytes are kept once, as the text of a JSON array; a line is a slice of it.

    Attributes:
        after: the position before this chunk: no retained record lies between it and the first.
        last: the position behind it, the cursor of its last record.
        gap: what is missing between `after` and the first record, or None.
        array: `[line,line,...]`.
        ordinal: how many records were published before this chunk since the process started, or
            None where it was read from disk.
    """

    __slots__ = ("_heads", "_spans", "after", "array", "dids", "gap", "last", "ordinal", "texts")

    def __init__(
        self,
        lines: Sequence[bytes],
        *,
        after: int,
        last: int,
        heads: Sequence[Head] | None = None,
        gap: Gap | None = None,
        ordinal: int | None = None,
    ) -> None:
        assert lines, "a chunk holds at least one record"
        self.after = after
        self.last = last
        self.gap = gap
        self.ordinal = ordinal
        self.array = b"[%b]" % b",".join(lines)
        self._heads = heads
        ends, end = [], 0
        for line in lines:
            end += len(line) + 1
            ends.append(end)
        self._spans = ends
        # Whom a filter by DID may find in here, so that one test passes over the whole chunk.
        self.dids = (
            frozenset(did for head in heads for did in (head.did, *head.about)) if heads else None
        )
        # Message texts that several subscribers share, by whatever key the server chooses.
        self.texts: dict[object, bytes] = {}

    def __len__(self) -> int:
        """Return how many records there are."""
        return len(self._spans)

    @property
    def heads(self) -> Sequence[Head]:
        """What filters ask for, one a record; read from the lines where they came from disk."""
        if self._heads is None:
            self._heads = tuple(head_of_line(self.line(i)) for i in range(len(self)))
        return self._heads

    def line(self, index: int) -> bytes:
        """Return one record's line, without a line break."""
        start = self._spans[index - 1] if index else 0
        return self.array[start + 1 : self._spans[index]]

    def size(self, index: int) -> int:
        """Return the length of one record's line."""
        return self._spans[index] - (self._spans[index - 1] if index else 0) - 1
