"""The two streams' connections: read, lost, made again where they were, counted."""

import math
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import trio

from turbod.backoff import Backoff
from turbod.client.stream import Refused, Stream, first, stream_url
from turbod.compare.comparison import Comparison, Side
from turbod.compare.seen import Seen
from turbod.cursor import LEAST, SECOND_US
from turbod.log_lines import printable
from turbod.redaction import redacted
from turbod.upstream.connection import Connection, Disconnected, address_of, connect
from turbod.upstream.position import SLOP_US

CONNECT_SECONDS: Final = 10.0
PING_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 45.0  # of a host that answers pings: the line is dead
FAR_US: Final = 60 * SECOND_US  # a stamp that is so far from the last is a clock that was set
FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 30.0


class Unreachable(Exception):
    """A stream cannot be compared: which, and why."""


class Source:
    """One stream that is kept up once it was reached.

    Args:
        url: as stream_url completes it.
        comparison: what it is handed to.
        which: 0 or 1.
        token: sent to a turbod, never to a plain Jetstream.
    """

    def __init__(self, url: str, comparison: Comparison, which: int, *, token: str | None) -> None:
        self.side: Side = comparison.sides[which]
        self.reached = trio.Event()
        self._url = url
        self._comparison = comparison
        self._which = which
        self._repeats_until_us = self._newest_us = self._number = 0
        self._stream = (
            Stream(url, records=self._records, told=self._told, token=token)
            if self.side.kind == "turbod"
            else None
        )
        self._backoff = Backoff(
            first_seconds=FIRST_BACKOFF_SECONDS, longest_seconds=LONGEST_BACKOFF_SECONDS
        )

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            Unreachable: at the first attempt; or the server refuses for good.
        """
        while True:
            connects = self.side.connects
            try:
                error = await (self._jetstream() if self._stream is None else self._turbod())
            except Refused as refusal:
                hint = _HINT if self._stream and not self.side.connects else ""
                raise Unreachable(f"{self.side.url}: {refusal}{hint}") from None
            error = printable(redacted(error))
            self.side.disconnected(error)
            if not self.side.connects:
                raise Unreachable(f"{self.side.url}: {error}")
            if self.side.connects > connects:
                self._backoff.reset()
            wait = self._stream.wait_seconds() if self._stream else self._backoff.next_seconds()
            await trio.sleep(wait)

    async def _turbod(self) -> str:
        assert self._stream is not None, "it is a turbod"
        return await self._stream.attempt()

    def _records(self, lines: Sequence[bytes]) -> None:
        self._comparison.take(self._which, lines, trio.current_time())

    def _told(self, told: dict[str, Any]) -> None:
        """Take note of a connection, whose first message is a `#cursor`, and of gaps."""
        if told.get("$type") == "#cursor" and not self.side.is_connected:
            self._connected()
        self.side.gaps += told.get("name") == "Gap"

    async def _jetstream(self) -> str:
        """Connect once and read until the connection ends; return why it did."""
        try:
            connection = await connect(
                address_of(self._url), query=self._query(), deadline_seconds=CONNECT_SECONDS
            )
        except Disconnected as error:
            return str(error)
        words = f"nothing heard for {SILENCE_SECONDS:.0f} s"
        try:
            self._connected()
            with trio.CancelScope() as patience:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_ping, connection)
                    await self._read(connection, patience)
        except* Disconnected as group:
            words = str(first(group))
        finally:
            await connection.aclose()
        return words

    async def _read(self, connection: Connection, patience: trio.CancelScope) -> None:
        """Read; `patience` is cancelled by its deadline, which every answer moves."""
        reader = connection.reader
        while True:
            patience.deadline = trio.current_time() + SILENCE_SECONDS
            messages = await connection.receive()
            patience.deadline = math.inf
            last = self._comparison.take(
                self._which,
                messages,
                trio.current_time(),
                repeats_until_us=self._repeats_until_us,
            )
            if last is not None:
                self._stand_at(last)
            self.side.unreadable += len(reader.unreadable)
            reader.unreadable.clear()

    def _stand_at(self, last: Seen) -> None:
        if last.time_us > self._newest_us or last.time_us < self._newest_us - FAR_US:
            self._newest_us = last.time_us
        self._number = last.cursor

    def _query(self) -> list[tuple[str, str]]:
        """Ask for what follows: by a v2 host's own number, else by time and for a little more."""
        given = parse_qsl(urlsplit(self._url).query, keep_blank_values=True)
        self._repeats_until_us = self._newest_us
        if not self._newest_us:
            return given
        is_number = 0 < self._number < LEAST
        cursor = self._number if is_number else max(self._newest_us - SLOP_US, LEAST)
        return [*(pair for pair in given if pair[0] != "cursor"), ("cursor", str(cursor))]

    def _connected(self) -> None:
        self.side.connected(trio.current_time())
        self.reached.set()


_HINT: Final = " (the address of a plain Jetstream ends in /subscribe)"


async def _ping(connection: Connection) -> None:
    while True:
        await trio.sleep(PING_SECONDS)
        await connection.ping()


def kind_of(url: str) -> str:
    """Return `jetstream` or `turbod`, as the path says."""
    return "jetstream" if urlsplit(url).path.endswith("/subscribe") else "turbod"


def asked_url(url: str, collections: Sequence[str]) -> str:
    """Complete an address, and ask for these collections beside those that it names.

    Raises:
        BadAddress: it is none of a stream.
    """
    parts = urlsplit(stream_url(url))
    more = urlencode([("wantedCollections", name) for name in collections])
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, more)))))
