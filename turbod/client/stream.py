"""One subscription to a turbod: connect, resume, reconnect, notice a dead line."""

import math
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import h11
import msgspec
import structlog
import trio
import trio_websocket
import wsproto.utilities
import zstandard

from turbod import __version__, causes
from turbod.backoff import Backoff

CONNECT_SECONDS: Final = 10.0
AFTER_BYE_SECONDS: Final = 5.0
LONGEST_RETRY_AFTER_SECONDS: Final = 600.0
# The server sends `#cursor` after 15 s without another message: silence means a dead line.
SILENCE_SECONDS: Final = 45.0
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024


class _Stopped(Exception):
    """What ends it for good was noted."""


# What a network and a server that is none of ours can bring about.
_LOST: Final = (
    _Stopped,
    OSError,
    UnicodeError,  # of a host's name
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio_websocket.HandshakeError,
    trio_websocket.ConnectionClosed,
    h11.ProtocolError,
    wsproto.utilities.ProtocolError,
    msgspec.MsgspecError,
    RecursionError,  # of a message that nests too deep
    zstandard.ZstdError,
)
_NOT_NOW: Final = frozenset({408, 425, 429})
_SERVER_ERRORS: Final = 500  # and all above: not now either
_SHOWN_BYTES: Final = 200  # of a stranger's answer
_SHOWN_CHARACTERS: Final = 1000  # of one that is worded as a turbod's
# What the server would say again to the same client.
_FINAL_ERRORS: Final = frozenset({"InvalidMessage", "AuthRevoked"})

_is_seconds = re.compile(rb"[0-9]{1,6}").fullmatch

log = structlog.get_logger()

_decode_records = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_record = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode

Transport = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Refused(Exception):
    """The server said no, for a reason that trying again cannot change."""


class BadAddress(Refused):
    """What was given is no address of a stream."""


class Stream:
    """One subscription that is kept up, whatever the network does.

    `records` is called with the lines of each message, `told` with each object (`#cursor`,
    `#info`, `#error`). `cursor` is always safe to resume from once they returned. What they raise
    ends `run`, but for msgspec's errors: by these they say that the message is none of a turbod's.

    Args:
        url: where, as `ws://HOST:PORT` and with filters or not.
        cursor: where to begin; None for now.
        records: takes lines.
        told: takes objects.
        ready: awaited before each message is read, so that whoever is full holds the server up.
        token: sent as `Authorization: Bearer`; None for none.
        hello: sent first: an options_update, for a URL that says `requireHello=true`.

    Raises:
        BadAddress: the URL is none of a stream.
    """

    def __init__(
        self,
        url: str,
        *,
        cursor: str | None = None,
        records: Callable[[Sequence[bytes]], None],
        told: Callable[[dict[str, Any]], None],
        ready: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
        token: str | None = None,
        hello: str | None = None,
    ) -> None:
        self._url = stream_url(url)
        self._token = token
        self.cursor = cursor
        self._records = records
        self._told = told
        self._ready = ready
        self._hello = hello
        self._is_connected = False
        self._was_told_bye = False
        self._retry_after_seconds = 0.0
        self._failure: Exception | None = None
        self._backoff = Backoff(first_seconds=0.5, longest_seconds=30)

    # Ctrl-C in the middle of trio's or trio-websocket's own doings may be lost, or break them; so
    # while they are at work it waits for the main task's next checkpoint.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Follow the stream until cancelled.

        Raises:
            Refused: with the server's own words.
        """
        while True:
            error = await self.attempt()
            wait = self.wait_seconds()
            log.warning("stream_lost", error=error, retry_seconds=round(wait, 1))
            await trio.sleep(wait)

    def wait_seconds(self) -> float:
        """Return how long to wait before the next attempt.

        After a goodbye all clients come back: each at its own moment, as the protocol asks.
        """
        if self._was_told_bye:
            self._was_told_bye = False
            return random.uniform(0, AFTER_BYE_SECONDS)  # noqa: S311 - no secret
        return max(self._backoff.next_seconds(), self._retry_after_seconds)

    @trio.lowlevel.enable_ki_protection
    async def attempt(self) -> str:
        """Connect once and read until the connection ends; return why it did.

        Raises:
            Refused: with the server's own words.
        """
        self._failure = None
        self._retry_after_seconds = 0.0
        error: BaseException = TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} s")
        try:
            with trio.CancelScope() as patience:
                await self._session(patience)
        except* _LOST as group:
            error = first(group)
        else:
            if self._is_connected:
                error = TimeoutError(f"nothing heard for {SILENCE_SECONDS:.0f} s")
        if self._failure is not None:
            raise self._failure
        if isinstance(error, trio_websocket.ConnectionRejected):
            self._retry_after_seconds = _retry_after_seconds(error)
        return _words(error)

    async def _session(self, patience: trio.CancelScope) -> None:
        """Connect and read; `patience` is cancelled by its deadline, which every message moves."""
        self._is_connected = False
        patience.deadline = trio.current_time() + CONNECT_SECONDS
        parts = urlsplit(self._at_cursor())
        stream = await _open(parts)
        try:
            async with trio.open_nursery() as nursery:
                websocket = await _upgrade(nursery, stream, parts, self._token)
                self._is_connected = True
                if self._hello is not None:
                    await websocket.send_message(self._hello)
                while True:
                    patience.deadline = math.inf
                    await self._ready()
                    patience.deadline = trio.current_time() + SILENCE_SECONDS
                    self._take(_text(await websocket.get_message()))
        finally:
            await trio.aclose_forcefully(stream)

    def _take(self, message: bytes) -> None:
        if message[:1] == b"[":
            records = [bytes(raw) for raw in _decode_records(message)]
            self._give(self._records, records)
            if records and "cursor" in (last := _decode_record(records[-1])):
                self.cursor = bytes(last["cursor"]).decode()
            self._backoff.reset()
        else:
            told = _decode_object(message)
            self._give(self._told, dict(told))
            if told.get("error") in _FINAL_ERRORS:
                self._failure = Refused(_shown(f"{told['error']}: {told.get('message', '')}"))
                raise _Stopped
            if told.get("$type") == "#cursor" and "cursor" in told:
                cursor = str(told["cursor"])
                if self.cursor not in {None, cursor}:  # a stream without records moves on too
                    self._backoff.reset()
                self.cursor = cursor
                self._was_told_bye = told.get("reason") == "bye"

    def _give(self, taker: Callable[[Any], None], what: object) -> None:
        """Hand on; what the taker raises is never taken for a lost connection."""
        try:
            taker(what)
        except msgspec.MsgspecError:
            raise
        except Exception as error:
            self._failure = error
            raise _Stopped from error

    def _at_cursor(self) -> str:
        parts = urlsplit(self._url)
        # Without `#cursor` a quiet stream has nothing to resume from, and looks like a dead line.
        chosen = {"metadata": "true"} | ({} if self.cursor is None else {"cursor": self.cursor})
        given = parse_qsl(parts.query, keep_blank_values=True)
        query = [pair for pair in given if pair[0] not in chosen] + list(chosen.items())
        return urlunsplit(parts._replace(query=urlencode(query)))


async def _open(parts: SplitResult) -> Transport:
    is_secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if is_secure else 80)
    stream = await trio.open_tcp_stream(host, port)
    if not is_secure:
        return stream
    secure = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure


class _Protecting:
    """Starts the library's reader as a task that Ctrl-C does not interrupt."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(self, reader: Callable[[], Awaitable[object]]) -> None:
        """Start it."""
        self._nursery.start_soon(_protected, reader)


@trio.lowlevel.enable_ki_protection
async def _protected(reader: Callable[[], Awaitable[object]]) -> None:
    await reader()


async def _upgrade(
    nursery: trio.Nursery, stream: Transport, parts: SplitResult, token: str | None
) -> trio_websocket.WebSocketConnection:
    bearer = [] if token is None else [(b"Authorization", f"Bearer {token}".encode("ascii"))]
    # The library's own timeout waits for its reader for ever: the deadline is the caller's.
    return await trio_websocket.wrap_client_stream(
        cast("trio.Nursery", _Protecting(nursery)),
        stream,
        parts.netloc.rpartition("@")[2],
        f"{parts.path}?{parts.query}",
        extra_headers=[(b"User-Agent", f"turbod/{__version__}".encode()), *bearer],
        max_message_size=MAX_MESSAGE_BYTES,
        receive_buffer_size=65536,
    )


def _text(message: str | bytes) -> bytes:
    """Return a message's text; a binary one is a zstd frame of it."""
    if isinstance(message, str):
        return message.encode()
    if zstandard.frame_content_size(message) > MAX_MESSAGE_BYTES:
        raise zstandard.ZstdError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
    return zstandard.ZstdDecompressor().decompress(message)


def stream_url(url: str) -> str:
    """Complete what a person types: http is ws, and an empty path is the stream's.

    Raises:
        BadAddress: it is no URL of a host.
    """
    expected = f"{url}: expected ws://HOST:PORT or wss://HOST, with a path and query or not"
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise BadAddress(expected) from None
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in {"ws", "wss"} or not is_whole:
        raise BadAddress(expected)
    return urlunsplit(parts._replace(scheme=scheme, path=parts.path.rstrip("/") or "/turbostream"))


def first(error: BaseException) -> BaseException:
    """Return what was raised, out of the groups that nurseries put it into."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    """Say why a connection ended.

    Raises:
        Refused: where the server would say the same again.
    """
    if isinstance(error, trio_websocket.ConnectionClosed):
        return (error.reason and error.reason.reason) or "the connection broke"
    if not isinstance(error, trio_websocket.ConnectionRejected):
        return causes.words(error)
    text = f"the server answered {error.status_code}: {_said(error.body or b'')}"
    if error.status_code < _SERVER_ERRORS and error.status_code not in _NOT_NOW:
        raise Refused(text)
    return text


def _retry_after_seconds(rejected: trio_websocket.ConnectionRejected) -> float:
    """Return how long the server asks to wait, within reason; 0 where it does not say."""
    for name, value in rejected.headers or ():
        if name.lower() == b"retry-after" and _is_seconds(value):
            return min(float(value), LONGEST_RETRY_AFTER_SECONDS)
    return 0.0


def _said(body: bytes) -> str:
    """Return what a refusal says, as turbod words it or as it stands."""
    try:
        return _shown(str(_decode_object(body)["message"]))
    except (msgspec.MsgspecError, KeyError):
        shown = body[:_SHOWN_BYTES].decode("utf-8", "replace")
        return shown if shown.isprintable() and shown else "not what a turbod says"


def _shown(text: str) -> str:
    """Return a stranger's words fit for one line of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:_SHOWN_CHARACTERS])
