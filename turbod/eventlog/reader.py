"""Reading the log's files after a cursor. The reading itself blocks and runs in threads."""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, TypeVar, TypeVarTuple, Unpack

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.cursor import HOUR_US
from turbod.envelope import Malformed
from turbod.eventlog.chunk import Chunk, Gap
from turbod.eventlog.cutter import Cutter
from turbod.eventlog.hour_file import LINE_BYTES, records_name
from turbod.eventlog.hours import Hours, Span
from turbod.eventlog.line import HEAD_BYTES, head_cursor, sound_cursor
from turbod.record import read_line

T = TypeVar("T")
Given = TypeVarTuple("Given")

READ_BYTES: Final = 1024 * 1024  # what one call reads, about: 1 to 2 ms of the interpreter
SPANS_A_CALL: Final = 24
THREADS: Final = 4
_SCAN_BYTES: Final = 256 * 1024  # below it, scanning beats another step of the search
_PROBE_BYTES: Final = 16 * 1024

log = structlog.get_logger()


class Pruned(LookupError):
    """What came after the position is no longer in the log: its hour was released, or deleted."""


class HistoryUnavailable(Exception):
    """What comes next is retained, but where it lies did not answer for too long: one line."""


class _Found(msgspec.Struct):
    """What one call read: sound lines above the position, and what stands unread before the next.

    Attributes:
        damaged: what could not be read and has no sound line behind it yet, or nothing.
        hours: those in which something could not be read.
    """

    cutter: Cutter
    damaged: str
    hours: list[int]


class Reader:
    """Reads what is on disk, at most THREADS calls at once."""

    def __init__(self, hours: Hours) -> None:
        self._hours = hours
        self._limiter = trio.CapacityLimiter(THREADS)
        self._reported: set[int] = set()

    async def chunks(self, after: int) -> list[Chunk]:
        """Return the next records above `after`, about READ_BYTES of them; empty at the end.

        What cannot be read is passed over, and a gap stands in its place.

        Raises:
            Pruned: records above `after` went with their hours.
        """
        damaged, position = "", after
        while True:
            if after < self._hours.lost:
                raise Pruned(
                    f"{after} is no longer retained: the log begins after {self._hours.floor}"
                )
            spans = self._hours.spans(position, limit=SPANS_A_CALL)
            if not spans:
                await trio.lowlevel.checkpoint()
                return []
            heartbeat.beat()
            found = await self._thread(_read, spans, after, damaged, self._hours.gap_before)
            if any(span.hour not in self._hours for span in spans):
                continue  # released meanwhile, its file cut down or gone: look again
            self._report(found.hours)
            if found.cutter.chunks:
                return found.cutter.chunks
            damaged, position = found.damaged, spans[-1].hour + HOUR_US

    async def identities(self, *, after: int, until: int) -> "array[int]":
        """Return the identities of the events above `after`, up to the cursor `until`.

        Raises:
            Pruned: records above `after` went with their hours.
        """
        identities = array("q")
        while after < until and (chunks := await self.chunks(after)):
            await self._thread(append_identities, chunks, until, identities)
            after = chunks[-1].last
        return identities

    async def _thread(self, function: Callable[[Unpack[Given]], T], *arguments: *Given) -> T:
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._limiter)

    def _report(self, hours: Sequence[int]) -> None:
        for hour in hours:
            if hour not in self._reported:
                self._reported.add(hour)
                log.error("log_damaged", file=records_name(hour), todo="restore it from a copy")


def line_after(descriptor: int, offset: int, end: int) -> tuple[int, int] | None:
    """Return where the first line of ours that begins behind `offset` lies, and its cursor."""
    while offset < end:
        block = os.pread(descriptor, _PROBE_BYTES, offset)
        begin = block.find(b"\n") + 1
        if cursor := head_cursor(block[begin : begin + HEAD_BYTES]) if begin else 0:
            return offset + begin, cursor
        # A head across the probe's end is read again from the break before it.
        torn_head = begin > 1 and len(block) - begin < HEAD_BYTES
        offset += begin - 1 if torn_head else begin or max(len(block), 1)
    return None


def _read(
    spans: Sequence[Span], after: int, damaged: str, gap_before: Callable[[int], Gap | None]
) -> _Found:
    found = _Found(Cutter(after=after), damaged, [])
    for span in spans:
        try:
            descriptor = os.open(span.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            found.hours.append(span.hour)
            found.damaged = f"{span.path.name} is missing"
            continue
        try:
            _read_span(descriptor, span, found, after=after, gap_before=gap_before)
        finally:
            os.close(descriptor)
        if found.cutter.size >= READ_BYTES:
            break
    found.cutter.close()
    return found


def _read_span(
    descriptor: int,
    span: Span,
    found: _Found,
    *,
    after: int,
    gap_before: Callable[[int], Gap | None],
) -> None:
    cutter = found.cutter
    for line in _lines(descriptor, _find(descriptor, span.size, after), span.size):
        cursor = sound_cursor(line)
        if span.hour <= cursor <= after:
            found.damaged = ""
        elif not max(cutter.last, span.hour - 1) < cursor < span.hour + HOUR_US:
            found.damaged = f"{span.path.name} is damaged"
            if span.hour not in found.hours:
                found.hours.append(span.hour)
        else:
            gap = gap_before(cursor)
            if gap is not None or found.damaged:
                message = "; ".join(filter(None, (found.damaged, gap.message if gap else "")))
                gap, found.damaged = Gap(cutter.last, cursor, message), ""
            cutter.add((line, b""), cursor, None, gap)
            if cutter.size >= READ_BYTES:
                return


def _find(descriptor: int, size: int, after: int) -> int:
    """Return where a line begins at or below `after`, close before the first one above it."""
    low, high = 0, size
    while high - low > _SCAN_BYTES:
        middle = (low + high) // 2
        line = line_after(descriptor, middle, high)
        if line is not None and line[1] <= after:
            low = line[0]
        else:
            high = middle
    return low


def _lines(descriptor: int, offset: int, end: int) -> Iterator[bytes]:
    """Yield the lines between two offsets; an empty one stands for a file shorter than it was."""
    rest = b""
    while offset < end:
        block = os.pread(descriptor, min(READ_BYTES, end - offset), offset)
        offset += len(block) or end
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if not block or len(rest) > LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest


def append_identities(chunks: Sequence[Chunk], until: int, identities: "array[int]") -> None:
    """Append the identities of the events in these chunks, up to the cursor `until`. It computes.

    A record that cannot be read has none.
    """
    for chunk in chunks:
        for index in range(chunk.count_until(until)):
            with suppress(Malformed):
                identities.append(read_line(chunk.line(index))[1].identity)
