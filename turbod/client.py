"""Following a turbod's stream from outside: connect, resume, reconnect, notice a dead line."""

import ssl
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import structlog
import trio
import trio_websocket

from turbod import __version__
from turbod.backoff import Backoff

CONNECT_SECONDS: Final = 10.0
# The server sends `#cursor` after 15 s without another message: silence means a dead line.
SILENCE_SECONDS: Final = 45.0
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
_BYE_SECONDS: Final = 1.0
_LOST: Final = (OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed)
_FOR_GOOD: Final = frozenset({400, 401, 403, 404, 405, 426, 431})

log = structlog.get_logger()

_decode_records = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_record = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Refused(Exception):
    """The server said no, for a reason that trying again cannot change."""


class Stream:
    """One subscription that is kept up, whatever the network does.

    `records` is called with the lines of each message, `told` with each object (`#cursor`,
    `#info`, `#error`). `cursor` is always safe to resume from once they returned.
    """

    def __init__(
        self,
        url: str,
        *,
        cursor: str | None = None,
        records: Callable[[Sequence[bytes]], None],
        told: Callable[[dict[str, Any]], None],
    ) -> None:
        self._url = _stream_url(url)
        self.cursor = cursor
        self._records = records
        self._told = told
        self._heard = trio.current_time()
        self._backoff = Backoff(first_seconds=0.5, longest_seconds=30)

    async def run(self) -> None:
        """Follow the stream until cancelled.

        Raises:
            Refused: with the server's own words.
        """
        while True:
            error = await self._attempt()
            wait = self._backoff.next_seconds()
            log.warning("stream_lost", error=error, retry_seconds=round(wait, 1))
            await trio.sleep(wait)

    async def _attempt(self) -> str:
        """Connect once and read until the connection ends; return why it did."""
        reason = f"nothing heard for {SILENCE_SECONDS:.0f} s"
        try:
            await self._session()
        except* _LOST as group:
            reason = _cause(group)
        return reason

    async def _session(self) -> None:
        async with trio.open_nursery() as nursery:
            websocket = await self._connect(nursery)
            if websocket is None:
                raise OSError(f"no answer within {CONNECT_SECONDS:.0f} s")
            self._heard = trio.current_time()
            nursery.start_soon(self._watch, nursery.cancel_scope)
            while True:
                self._take(await websocket.get_message())

    async def _connect(self, nursery: trio.Nursery) -> trio_websocket.WebSocketConnection | None:
        parts = urlsplit(self._at_cursor())
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
        # The library's own timeout waits for its reader for ever: the deadline is ours.
        with trio.move_on_after(CONNECT_SECONDS) as scope:
            stream = await _open(host, port, tls=parts.scheme == "wss")
            try:
                return await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    parts.netloc.rpartition("@")[2],
                    f"{parts.path}?{parts.query}",
                    extra_headers=[(b"User-Agent", f"turbod/{__version__}".encode())],
                    max_message_size=MAX_MESSAGE_BYTES,
                    receive_buffer_size=65536,
                )
            except trio_websocket.ConnectionRejected as error:
                raise _refusal(error) from None
        if scope.cancelled_caught:
            nursery.cancel_scope.cancel()
        return None

    async def _watch(self, scope: trio.CancelScope) -> None:
        """End the session once nothing was heard for too long."""
        deadline = -inf
        while deadline < self._heard + SILENCE_SECONDS:
            deadline = self._heard + SILENCE_SECONDS
            await trio.sleep_until(deadline)
        scope.cancel()

    def _take(self, message: str | bytes) -> None:
        self._heard = trio.current_time()
        if message[:1] == "[":
            records = [bytes(raw) for raw in _decode_records(message)]
            self._records(records)
            if records and "cursor" in (last := _decode_record(records[-1])):
                self.cursor = bytes(last["cursor"]).decode()
            self._backoff.reset()
        else:
            told = msgspec.json.decode(message)
            self._told(told)
            if told.get("$type") == "#cursor":
                self.cursor = str(told["cursor"])

    def _at_cursor(self) -> str:
        parts = urlsplit(self._url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        if self.cursor is not None:
            query = [pair for pair in query if pair[0] != "cursor"] + [("cursor", self.cursor)]
        return urlunsplit(parts._replace(query=urlencode(query)))


async def _open(
    host: str, port: int, *, tls: bool
) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    stream = await trio.open_tcp_stream(host, port)
    if not tls:
        return stream
    secure = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host)
    await secure.do_handshake()
    return secure


def _stream_url(url: str) -> str:
    """Complete what a person types: http is ws, and an empty path is the stream's.

    Raises:
        Refused: it is no URL of a host.
    """
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in {"ws", "wss"} or not parts.hostname:
        raise Refused(f"{url}: expected ws://HOST:PORT or wss://HOST, with a path and query or not")
    return urlunsplit(parts._replace(scheme=scheme, path=parts.path.rstrip("/") or "/turbostream"))


def _refusal(error: trio_websocket.ConnectionRejected) -> Exception:
    body = (error.body or b"").decode("utf-8", "replace")
    text = f"the server answered {error.status_code}: {body or 'nothing more'}"
    return Refused(text) if error.status_code in _FOR_GOOD else OSError(text)


def _cause(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error.__cause__ or error) or type(error).__name__
