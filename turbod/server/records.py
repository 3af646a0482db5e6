"""GET /records: one page of the stream as JSON lines, from wherever it lies, bounded in work."""

from contextlib import ExitStack
from typing import Final

import msgspec
import trio

from turbod.eventlog.chunk import Chunk, Gap, Stretch
from turbod.eventlog.reader import HistoryUnavailable, Pruned
from turbod.filter import Filter, Options
from turbod.server.interests import Interest
from turbod.server.packing import Packer, select
from turbod.server.places import Place
from turbod.server.services import Services

MAX_PAGE_BYTES: Final = 1024 * 1024  # one record alone may bring it above
MAX_SCANNED_BYTES: Final = 16 * 1024 * 1024
MAX_PAGE_SECONDS: Final = 10.0  # where hour after hour holds nothing that matches
MAX_GAPS: Final = 100  # some 4 KB of a header


class Page(msgspec.Struct, frozen=True):
    """Lines, the cursor to go on with, and where records between them may be missing."""

    lines: list[bytes]
    cursor: int
    gaps: list[Gap]

    @property
    def body(self) -> bytes:
        """The lines, each with its break."""
        return b"".join(line + b"\n" for line in self.lines)

    @property
    def headers(self) -> dict[str, str]:
        """What lines cannot say."""
        headers = {"Turbod-Cursor": str(self.cursor)}
        if self.gaps:
            headers["Turbod-Gap"] = ", ".join(f"{gap.after}-{gap.before}" for gap in self.gaps)
        return headers


class _Collector:
    """Takes what was read until the page is full or enough was looked at.

    Attributes:
        position: everything up to it that the page should hold, it holds.
        is_full: the page is long enough, or was long enough in the making.
    """

    def __init__(self, options: Options, position: int, packer: Packer) -> None:
        self._interest = Interest(options.filter)
        self._limit = options.limit
        self._packer = packer
        self._page_bytes = 0
        self._scanned_bytes = 0
        self.lines: list[bytes] = []
        self.gaps: list[Gap] = []
        self.position = position
        self.is_full = False

    def take(self, item: Chunk | Gap) -> None:
        """Take what comes next, or as much of it as there is room for."""
        gap = item if isinstance(item, Gap) else item.gap
        if gap is not None and self.position < gap.before:
            self._take_gap(gap)
        if isinstance(item, Chunk) and not self.is_full:
            self._take_chunk(item)

    def _take_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)
        if len(self.gaps) == MAX_GAPS:
            self.is_full = True
            self.position = gap.before - 1  # behind it, where nothing but gaps was found too

    def _take_chunk(self, chunk: Chunk) -> None:
        for cursor, line in select(chunk, self.position, self._interest, self._packer.withhold):
            if self.lines and self._page_bytes + len(line) > MAX_PAGE_BYTES:
                self.is_full = True
                return
            self.lines.append(line)
            self._page_bytes += len(line)
            self.position = cursor
            if len(self.lines) == self._limit:
                self.is_full = True
                return
        self.position = chunk.last
        self._scanned_bytes += len(chunk.array)
        self.is_full = self._scanned_bytes >= MAX_SCANNED_BYTES


async def read_page(services: Services, options: Options, position: int) -> Page:
    """Read records after `position`; where nothing matches the cursor moves on all the same.

    Raises:
        HistoryUnavailable: before there was anything to answer with.
    """
    log = services.log
    begins = max(position, log.floor)
    collector = _Collector(options, begins, services.packer)
    ends_at = trio.current_time() + MAX_PAGE_SECONDS
    with ExitStack() as held:
        place: Place | None = None
        while collector.position < log.head and trio.current_time() < ends_at:
            if place is None and services.is_archived(collector.position):
                place = held.enter_context(services.archive.ask())
                await place.given.wait()
            try:
                await _read_on(services, options.filter, collector)
            except HistoryUnavailable:
                if collector.position == begins:
                    raise
                break
            if collector.is_full:
                break
    return Page(collector.lines, collector.position, collector.gaps)


async def _read_on(services: Services, chosen: Filter, collector: _Collector) -> None:
    """Let the page have what one read finds."""
    log = services.log
    try:
        stretch = await _next(services, chosen, collector.position)
    except Pruned:  # while the page was read
        assert log.floor > collector.position, "what was pruned is below the floor"
        collector.position = log.floor
        return
    for item in stretch.items:
        await services.pace.turn()
        with services.pace.working():
            collector.take(item)
        if collector.is_full:
            return
    collector.position = max(collector.position, stretch.last)


async def _next(services: Services, chosen: Filter, position: int) -> Stretch:
    log = services.log
    await services.pace.turn()
    if not log.in_memory(position):
        return await services.pace.measured(log.read(position, chosen))
    chunk = log.next_chunk(position)
    assert chunk is not None, "the head is above the position, and all is in memory"
    return Stretch([chunk], chunk.last)
