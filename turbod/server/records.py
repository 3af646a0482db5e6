"""GET /records: one page of the stream as JSON lines, from memory or disk, bounded in work."""

from typing import Final

import msgspec
import trio

from turbod.eventlog.chunk import Chunk
from turbod.eventlog.log import Pruned
from turbod.filter import Options
from turbod.server.interests import Interest
from turbod.server.packing import Withhold, select
from turbod.server.source import Log

MAX_PAGE_BYTES: Final = 1024 * 1024  # one record alone may bring it above
MAX_SCANNED_BYTES: Final = 16 * 1024 * 1024


class Page(msgspec.Struct, frozen=True):
    """Lines, and the cursor to go on with."""

    lines: list[bytes]
    cursor: int

    @property
    def body(self) -> bytes:
        """The lines, each with its break."""
        return b"".join(line + b"\n" for line in self.lines)


class _Collector:
    """Takes chunks until the page is full or enough was looked at."""

    def __init__(self, options: Options, position: int, withhold: Withhold | None) -> None:
        self._interest = Interest(options.filter)
        self._limit = options.limit
        self._withhold = withhold
        self._page_bytes = 0
        self._scanned_bytes = 0
        self.lines: list[bytes] = []
        self.position = position
        self._is_full = False

    def is_full(self) -> bool:
        """Whether the page is long enough, or was long enough in the making."""
        return self._is_full

    def take(self, chunk: Chunk) -> None:
        for cursor, line in select(chunk, self.position, self._interest, self._withhold):
            if self.lines and self._page_bytes + len(line) > MAX_PAGE_BYTES:
                self._is_full = True
                return
            self.lines.append(line)
            self._page_bytes += len(line)
            self.position = cursor
            if len(self.lines) == self._limit:
                self._is_full = True
                return
        self.position = chunk.last
        self._scanned_bytes += len(chunk.array)
        self._is_full = self._scanned_bytes >= MAX_SCANNED_BYTES


async def read_page(
    log: Log, options: Options, position: int, *, withhold: Withhold | None
) -> Page:
    """Read records after `position`; where nothing matches the cursor moves on all the same."""
    collector = _Collector(options, max(position, log.floor), withhold)
    while not collector.is_full() and collector.position < log.head:
        if log.in_memory(collector.position):
            chunk = log.next_chunk(collector.position)
            assert chunk is not None, "the head is above the position, and all is in memory"
            chunks = [chunk]
        else:
            try:
                chunks = await log.read_chunks(collector.position)
            except Pruned:  # while the page was read
                assert log.floor > collector.position, "what was pruned is below the floor"
                collector.position = log.floor
                continue
        for chunk in chunks:
            collector.take(chunk)
            await trio.lowlevel.checkpoint()
            if collector.is_full():
                break
    return Page(collector.lines, collector.position)
