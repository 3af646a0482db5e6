"""Reading one server of several: its archive, then its stream; the next when it is lost."""

import math
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
import trio

from turbod.archive.bulk.walk import Piece, walk
from turbod.archive.stores.store import StoreFault
from turbod.archive.stores.web import WebSource
from turbod.client.buffer import Buffer
from turbod.client.history import Since, is_old
from turbod.client.news import Status, Stuck
from turbod.client.record import Record
from turbod.client.stream import BadAddress, Refused, Stream, stream_url
from turbod.client.wanted import Wanted
from turbod.cursor import LEAST
from turbod.eventlog.chunk import Gap
from turbod.eventlog.line import cursor_of

STALLED_SECONDS: Final = 60.0  # of a server that gets nothing, before another is read
ARCHIVE_AGAIN_SECONDS: Final = 60.0  # until an archive that did not answer is asked again
NEWS_BYTES: Final = 1024  # what an item is counted as beside its records

_PATH: Final = "/turbostream"


class Batch(msgspec.Struct, frozen=True):
    """Some records, and the position behind them.

    Attributes:
        last: everything up to here was read, though the filter may have left it out.
        head: the newest cursor that is known of; 0 where it was not told.
    """

    server: str
    records: list[Record]
    last: int
    head: int
    source: str


Item = Batch | Gap | Status | Refused | Stuck


class _Told(msgspec.Struct):
    """What `#cursor` says."""

    cursor: int
    head: int
    live: bool
    upstream: str


class Server:
    """One server: where it is, and in its stream's cursor how far we have come there.

    Attributes:
        name: its address without secrets.
        archive: where its archive lies, None where that is not known.
        not_before: when it may be read again, by trio's clock; never where it refused for good.

    Raises:
        BadAddress: the URL is none of a turbod, or has filters in it.
    """

    stream: Stream

    def __init__(self, url: str) -> None:
        self.url = stream_url(url)
        parts = urlsplit(self.url)
        if parts.query or parts.fragment:
            raise BadAddress(f"{url}: filters are arguments of follow, not part of the URL")
        self.name = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        web = parts._replace(scheme=parts.scheme.replace("ws", "http", 1))
        base = web._replace(path=parts.path.removesuffix(_PATH))
        self.archive = urlunsplit(base) if parts.path.endswith(_PATH) else None
        self.not_before = self.archive_not_before = 0.0

    @property
    def cursor(self) -> int:
        """The position on it; 0 where there is none yet."""
        return int(self.stream.cursor or 0)


class Reader:
    """Puts into a buffer what servers have, without end.

    When a server is lost the next is begun `slop_us` before what has been reached, so that what
    the two gave cursors that far apart is not missed: whoever takes leaves out what it has.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        wanted: Wanted,
        buffer: Buffer[Item],
        *,
        token: str | None,
        cursor: int | None,
        slop_us: int,
        give_up_seconds: float,
    ) -> None:
        self._servers = servers
        self._filter = wanted.filter
        self._buffer = buffer
        self._token = token
        self._slop_us = slop_us
        self._give_up_seconds = give_up_seconds
        self._latest = servers[0]
        self._reached = cursor or 0
        self._begin = 0
        self._words = self._last_words = ""
        self._visit = trio.CancelScope()
        self._is_well = False
        self._stuck_since: float | None = None
        self._stalled_since: float | None = None
        for server in servers:
            is_own = server is servers[0] or cursor == 0
            server.stream = Stream(
                f"{server.url}?{wanted.query}",
                cursor=str(cursor) if cursor is not None and is_own else None,
                records=self._take_records,
                told=self._take_told,
                ready=buffer.room,
                token=token,
                hello=wanted.hello,
            )

    @trio.lowlevel.enable_ki_protection  # a task of our own: Ctrl-C is for the main task
    async def run(self) -> None:
        """Read until cancelled; what ends it is put behind all that came before."""
        try:
            while True:
                server = min(self._servers, key=lambda one: one.not_before)
                await trio.sleep_until(min(server.not_before, self._patience_ends_at))
                self._check_patience()
                await self._buffer.room()
                await self._read(server)
        except (Refused, Stuck) as error:
            self._buffer.put(error)

    async def _read(self, server: Server) -> None:
        """Read one server until it is lost; one that refuses for good is never read again.

        Raises:
            Refused: none is left.
        """
        self._go_to(server)
        self._stalled_since, self._words, self._is_well = None, "", False
        try:
            with trio.CancelScope() as self._visit:
                await self._read_archive(server)
                self._begin = server.cursor
                error = await server.stream.attempt()
                self._words = self._words or error
            server.not_before = trio.current_time() + server.stream.wait_seconds()
        except Refused as refused:
            self._words, server.not_before = str(refused), math.inf
            if all(one.not_before == math.inf for one in self._servers):
                raise
        self._note_stuck(self._words)

    def _go_to(self, server: Server) -> None:
        if server is not self._latest and self._reached:
            begin = max(server.cursor, self._reached - self._slop_us, LEAST)
            server.stream.cursor = str(begin)
        self._latest = server

    # The archive ----------------------------------------------------------------------------

    async def _read_archive(self, server: Server) -> None:
        """Read what is old from the objects themselves, where the server lets us."""
        is_there = server.archive and trio.current_time() >= server.archive_not_before
        if not is_there or server.stream.cursor is None or not is_old(server.cursor):
            return
        try:
            async with WebSource(str(server.archive), token=self._token) as source:
                while is_old(server.cursor) and await self._walk(server, source):
                    pass  # more hours were finished meanwhile
        except (StoreFault, msgspec.MsgspecError) as fault:
            server.archive_not_before = trio.current_time() + ARCHIVE_AGAIN_SECONDS
            self._put(Status(server.name, False, f"history comes by the stream: {fault}"))

    async def _walk(self, server: Server, source: WebSource) -> bool:
        """Go to the end of the archive; return False where there was nothing more."""
        after = server.cursor
        since = Since(source, after)
        async with walk(since, after=after, filter=self._filter) as pieces:
            async for piece in pieces:
                await self._buffer.room()
                self._take_piece(piece, since.head)
        return server.cursor > after

    def _take_piece(self, piece: Piece, head: int) -> None:
        self._note_well()
        lines = piece.lines.split(b"\n")[:-1]
        for gap in piece.gaps:
            before = [line for line in lines if cursor_of(line) < gap.before]
            lines = lines[len(before) :]
            if before:
                self._take(before, cursor_of(before[-1]), head, "archive")
            self._put(gap)
        self._take(lines, piece.last, head, "archive")
        self._latest.stream.cursor = str(piece.last)

    # The stream -----------------------------------------------------------------------------

    def _take_records(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._take(lines, cursor_of(lines[-1]), 0, "stream")
            self._stalled_since = None
            self._note_well()

    def _take_told(self, message: dict[str, Any]) -> None:
        kind, name = message.get("$type"), message.get("name")
        if kind == "#cursor":
            self._take_cursor(msgspec.convert(message, _Told))
        elif kind == "#error":
            self._words = f"{message.get('error')}: {message.get('message')}"
        elif name == "Gap":
            self._put(msgspec.convert(message, Gap))
        elif name == "OutdatedCursor":
            floor = self._latest.cursor
            self._put(Gap(self._begin, floor + 1, str(message.get("message"))))

    def _take_cursor(self, told: _Told) -> None:
        self._take((), told.cursor, told.head, "stream")
        if told.upstream == "stalled" and told.cursor >= told.head:
            self._take_stalled("it gets nothing from its upstreams")
        elif told.live or told.cursor > self._begin:
            self._stalled_since = None
            self._note_well()

    def _take_stalled(self, words: str) -> None:
        """A server that gets nothing itself is stuck, however promptly it says so."""
        now = trio.current_time()
        if self._stalled_since is None:
            self._stalled_since = now
            self._note_stuck(words)
        elif len(self._servers) > 1 and now >= self._stalled_since + STALLED_SECONDS:
            self._words = words
            self._visit.cancel()
        self._check_patience()

    # What comes of it -----------------------------------------------------------------------

    def _take(self, lines: Sequence[bytes], last: int, head: int, source: str) -> None:
        records = [Record(line) for line in lines]
        if len(self._servers) > 1:
            for record in records:
                _ = record.key  # a server that sends what has none is to blame, not who takes it
        batch = Batch(self._latest.name, records, last, head, source)
        self._buffer.put(batch, NEWS_BYTES + sum(map(len, lines)))
        self._reached = max(self._reached, last)

    def _note_well(self) -> None:
        self._stuck_since = None
        if not self._is_well:
            self._is_well = True
            self._put(Status(self._latest.name, False, "connected"))

    def _note_stuck(self, words: str) -> None:
        now, name = trio.current_time(), self._latest.name
        if self._stuck_since is None:
            self._stuck_since = now
        self._is_well, self._last_words = False, f"{name}: {words}"
        retry = max(min(one.not_before for one in self._servers) - now, 0)
        self._put(Status(name, True, words, now - self._stuck_since, retry))

    @property
    def _patience_ends_at(self) -> float:
        since = self._stuck_since
        return math.inf if since is None else since + self._give_up_seconds

    def _check_patience(self) -> None:
        if trio.current_time() >= self._patience_ends_at:
            seconds = self._give_up_seconds
            raise Stuck(f"nothing could come for {seconds:.0f} s; at last {self._last_words}")

    def _put(self, item: Gap | Status) -> None:
        self._buffer.put(item, NEWS_BYTES)
