"""The newest chunks in memory, bounded in bytes, found by position. No I/O."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from turbod.eventlog.chunk import MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Chunk, Gap, merged
from turbod.eventlog.texts import SharedTexts, TextBudget

RECORD_OVERHEAD_BYTES: Final = 400  # a head, its strings, a place in the chunk's lists
TEXTS_SHARE: Final = 4  # one part in so many of the memory is for shared texts


class Tail:
    """Chunks without a hole between them, up to the newest one.

    At low rates a chunk holds a record or two. So that whoever comes later need not take them one
    by one, a run of small neighbours is replaced by one chunk as soon as the run behind it is full
    too: whoever keeps up has long taken them by then.
    """

    def __init__(self, *, memory_bytes: int, start: int = 0) -> None:
        self.texts = TextBudget(_text_bytes(memory_bytes))
        self._limit = memory_bytes - _text_bytes(memory_bytes)
        self._chunks: list[Chunk] = []
        self._lasts: list[int] = []
        self._start = start
        self.bytes = 0
        self.records = 0
        self.published = 0
        # Indexes: small chunks [_old:_run] wait to become one, [_run:] is collected.
        self._old = self._run = 0
        self._run_records = self._run_bytes = 0

    @property
    def start(self) -> int:
        """Every record above this position, up to the newest one, is here."""
        return self._start

    @property
    def head(self) -> int:
        """The newest record's cursor, or the start where there is none."""
        return self._lasts[-1] if self._lasts else self._start

    def load(self, chunks: Sequence[Chunk]) -> None:
        """Take what was read from disk at start, in order, before anything is published."""
        for chunk in chunks:
            chunk.ordinal = self.published
            self._append(chunk)
        self._old = self._run = len(self._chunks)
        self._evict()

    def publish(self, chunk: Chunk) -> None:
        """Take the newest chunk; forget the oldest ones above the bound."""
        assert chunk.after == self.head, "one writer publishes, in order"
        size = len(chunk.array)
        if (
            chunk.gap is not None
            or self._run_records + len(chunk) > MAX_CHUNK_RECORDS
            or self._run_bytes + size > MAX_CHUNK_BYTES
        ):
            self._close_run()
        self._run_records += len(chunk)
        self._run_bytes += size
        self._append(chunk)
        self._evict()

    def resize(self, memory_bytes: int) -> None:
        """Have another bound; what is above it is forgotten at once."""
        self.texts.resize(_text_bytes(memory_bytes))
        self._limit = memory_bytes - _text_bytes(memory_bytes)
        self._evict()

    def next_chunk(self, after: int) -> Chunk | None:
        """Return the first chunk that holds records above `after`, None where there is none."""
        assert after >= self._start, "the position is not in memory"
        index = bisect_right(self._lasts, after)
        return self._chunks[index] if index < len(self._chunks) else None

    def oldest_after(self, after: int, message: str) -> Chunk:
        """Return the oldest chunk for a position before it, with a gap between the two."""
        oldest = self._chunks[0]
        return Chunk(
            [(oldest.line(index),) for index in range(len(oldest))],
            after=after,
            last=oldest.last,
            heads=oldest.heads,
            gap=Gap(after, oldest.cursor(0), message),
        )

    def count_after(self, after: int) -> int:
        """Return how many records are above `after`."""
        chunk = self.next_chunk(after)
        if chunk is None:
            return 0
        assert chunk.ordinal is not None
        return self.published - chunk.ordinal - chunk.count_until(after)

    def _append(self, chunk: Chunk) -> None:
        chunk.texts = SharedTexts(self.texts)
        self._chunks.append(chunk)
        self._lasts.append(chunk.last)
        self.bytes += _memory(chunk)
        self.records += len(chunk)
        self.published += len(chunk)

    def _close_run(self) -> None:
        run = slice(self._old, self._run)
        small = self._chunks[run]
        if len(small) > 1:
            chunk = merged(small)
            chunk.texts = SharedTexts(self.texts)
            for one in small:
                self.texts.forget(one.texts)
            self._chunks[run], self._lasts[run] = [chunk], [chunk.last]
            self.bytes += _memory(chunk) - sum(map(_memory, small))
        self._old, self._run = self._run - max(len(small) - 1, 0), len(self._chunks)
        self._run_records, self._run_bytes = 0, 0

    def _evict(self) -> None:
        count = 0
        while self.bytes > self._limit and count < len(self._chunks) - 1:
            chunk = self._chunks[count]
            self.bytes -= _memory(chunk)
            self.records -= len(chunk)
            self.texts.forget(chunk.texts)
            self._start = chunk.last
            count += 1
        if count:
            del self._chunks[:count], self._lasts[:count]
            self._old, self._run = max(self._old - count, 0), max(self._run - count, 0)


def _text_bytes(memory_bytes: int) -> int:
    return memory_bytes // TEXTS_SHARE


def _memory(chunk: Chunk) -> int:
    return len(chunk.array) + RECORD_OVERHEAD_BYTES * len(chunk)
