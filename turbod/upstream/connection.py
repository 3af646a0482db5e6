"""One WebSocket connection to a Jetstream host: TCP, TLS, upgrade, reading, pings.

Every failure is a `Disconnected` that says in words what happened. Frames are read by our own
parser (frames.py) and the upgrade is h11's, because trio-websocket's client waits for ever for a
server that hangs up before the upgrade, loses the cause of TLS errors, and gives a connection up
for one message that is not UTF-8 or too large, which after a resume comes again.
"""

import base64
import hashlib
import os
import ssl
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import h11
import trio

from turbod import __version__, causes, heartbeat
from turbod.redaction import redacted
from turbod.upstream import frames

RECEIVE_BYTES: Final = 64 * 1024
CLOSE_SECONDS: Final = 0.5
SEND_SECONDS: Final = 5.0
MAX_REFUSAL_BYTES: Final = 4096
REFUSAL_SECONDS: Final = 0.25  # what the words of a refusal are worth waiting for
MAX_RETRY_AFTER_SECONDS: Final = 300.0
_MAX_WORDS = 300
_ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_SWITCHING, _TOO_MANY, _UNAVAILABLE = 101, 429, 503


class Disconnected(Exception):
    """No connection, or no longer: the words say what happened.

    Attributes:
        retry_after_seconds: what the host asked for, else 0.
    """

    def __init__(self, words: str, *, retry_after_seconds: float = 0) -> None:
        super().__init__(redacted(words)[:_MAX_WORDS])
        self.retry_after_seconds = retry_after_seconds


class Address(NamedTuple):
    """A host's URL, taken apart."""

    host: str
    port: int
    path: str
    is_tls: bool

    @property
    def authority(self) -> str:
        """What the `Host` header says (RFC 9110, 7.2)."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.is_tls else 80) else f"{name}:{self.port}"


def address_of(url: str) -> Address:
    """Take a `ws` or `wss` URL apart."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "wss"
    assert parts.hostname, "the settings ask for a host"
    return Address(parts.hostname, parts.port or (443 if is_tls else 80), parts.path or "/", is_tls)


class Connection:
    """An upgraded connection. One task reads, any task pings.

    Attributes:
        reader: counts pongs and what could not be read.
    """

    def __init__(self, stream: trio.abc.Stream, first: bytes) -> None:
        self.reader = frames.FrameReader()
        self._stream = stream
        self._first = first
        self._sending = trio.Lock()

    async def receive(self) -> Sequence[bytes]:
        """Wait for data, or a tick, and return the text messages that it completed, maybe none.

        Raises:
            Disconnected: by the host, the network or broken framing.
        """
        self._raise_if_closed()
        data, self._first = self._first, b""
        try:
            if not data:
                with heartbeat.resting():
                    data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
                    if not data:
                        raise Disconnected("the host hung up")
            messages = self.reader.feed(data)
        except frames.ProtocolError as error:
            raise Disconnected(f"broken framing: {error}") from error
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Disconnected(f"lost the connection: {causes.words(error)}") from error
        while self.reader.pings:
            await self._send(frames.pong(self.reader.pings.pop(0)))
        if not messages:
            self._raise_if_closed()
        return messages

    async def ping(self) -> None:
        """Send a ping; `reader.pongs` counts the answers."""
        await self._send(frames.ping(os.urandom(4)))

    async def aclose(self) -> None:
        """Say goodbye where that is quick, and hang up. Idempotent."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            try:
                async with self._sending:
                    await self._stream.send_all(frames.close(1000))
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await trio.aclose_forcefully(self._stream)

    def _raise_if_closed(self) -> None:
        if self.reader.closed is not None:
            code, reason = self.reader.closed
            raise Disconnected(f"closed by the host: {code} {reason}".rstrip())

    async def _send(self, frame: bytes) -> None:
        try:
            with trio.fail_after(SEND_SECONDS):
                async with self._sending:
                    await self._stream.send_all(frame)
        except trio.TooSlowError:
            raise Disconnected("the host takes no data") from None
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Disconnected(f"lost the connection: {causes.words(error)}") from error


async def connect(
    address: Address,
    *,
    query: Sequence[tuple[str, str]],
    deadline_seconds: float,
    tls: ssl.SSLContext | None = None,
) -> Connection:
    """Connect, and upgrade, all of it within the deadline.

    Raises:
        Disconnected: with the cause in words.
    """
    step = ["connect"]
    with trio.move_on_after(deadline_seconds):
        try:
            return await _connect(address, query, tls, step)
        except (OSError, trio.BrokenResourceError, UnicodeError) as error:  # no name as a..b
            raise Disconnected(f"cannot {step[0]}: {causes.words(error)}") from error
        except h11.RemoteProtocolError as error:
            raise Disconnected(f"not an HTTP answer: {causes.words(error)}") from error
    raise Disconnected(f"no answer to {step[0]} within {deadline_seconds:g} s")


@cache
def _trusting_the_system() -> ssl.SSLContext:
    """Return a context with the system's authorities: once, as reading them takes 30 to 70 ms."""
    return ssl.create_default_context()


async def _connect(
    address: Address,
    query: Sequence[tuple[str, str]],
    tls: ssl.SSLContext | None,
    step: list[str],
) -> Connection:
    stream: trio.abc.Stream = await trio.open_tcp_stream(address.host, address.port)
    try:
        if address.is_tls:
            step[0] = "agree on TLS"
            secure = trio.SSLStream(
                stream,
                tls or _trusting_the_system(),
                server_hostname=address.host,
                https_compatible=True,
            )
            stream = secure
            await secure.do_handshake()
        step[0] = "upgrade"
        return Connection(stream, await _upgrade(stream, address, query))
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _upgrade(
    stream: trio.abc.Stream, address: Address, query: Sequence[tuple[str, str]]
) -> bytes:
    key = base64.b64encode(os.urandom(16))
    http = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET",
        target=f"{address.path}?{urlencode(query)}",
        headers=[
            (b"Host", address.authority.encode("idna" if not address.host.isascii() else "ascii")),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", key),
            (b"Sec-WebSocket-Version", b"13"),
            (b"User-Agent", f"turbod/{__version__}".encode()),
        ],
    )
    await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    answer = await _next_event(stream, http)
    if isinstance(answer, h11.InformationalResponse) and answer.status_code == _SWITCHING:
        _check_accept(answer, key)
        return http.trailing_data[0]
    if isinstance(answer, h11.Response):
        raise await _refusal(stream, http, answer)
    raise Disconnected("hung up before the upgrade")


async def _next_event(stream: trio.abc.Stream, http: h11.Connection) -> object:
    while True:
        event = http.next_event()
        if event is not h11.NEED_DATA:
            if isinstance(event, h11.InformationalResponse) and event.status_code != _SWITCHING:
                continue
            return event
        http.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))


def _check_accept(answer: h11.InformationalResponse, key: bytes) -> None:
    # RFC 6455, 4.1; SHA-1 is the protocol's, and proves only that this is a WebSocket server.
    digest = hashlib.sha1(key + _ACCEPT_KEY, usedforsecurity=False).digest()
    headers = dict(answer.headers)
    if headers.get(b"sec-websocket-accept") != base64.b64encode(digest):
        raise Disconnected("not a WebSocket server: its accept key is wrong")
    if b"sec-websocket-extensions" in headers or b"sec-websocket-protocol" in headers:
        raise Disconnected("not a WebSocket server: it chose what was not offered")


async def _refusal(
    stream: trio.abc.Stream, http: h11.Connection, answer: h11.Response
) -> Disconnected:
    headers = dict(answer.headers)
    body = b""
    with trio.move_on_after(REFUSAL_SECONDS):
        while len(body) < MAX_REFUSAL_BYTES:
            try:
                event = await _next_event(stream, http)
            except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
                break
            if not isinstance(event, h11.Data):
                break
            body += event.data
    text = " ".join(body.decode("utf-8", "replace").split())
    location = headers.get(b"location", b"").decode("latin-1")
    words = f"refused: {answer.status_code} {location} {text}".rstrip()
    wait = 0.0
    if answer.status_code in {_TOO_MANY, _UNAVAILABLE}:
        wait = retry_after_seconds(headers.get(b"retry-after", b""))
    return Disconnected(words, retry_after_seconds=wait)


def retry_after_seconds(value: bytes) -> float:
    """Read a Retry-After header in seconds; a date or anything else counts as none said."""
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_SECONDS)
    return 0.0
