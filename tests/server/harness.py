"""A server on loopback over a real log, and clients that know nothing of its insides."""

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
import trio_websocket

from turbod.archive.catalogue import Catalogue
from turbod.archive.format.names import parse_key
from turbod.archive.reading.history import History
from turbod.archive.reading.whole_log import WholeLog
from turbod.archive.stores.store import open_store
from turbod.config import ArchiveSettings, LogSettings, S3Settings, ServerSettings
from turbod.event import parse
from turbod.eventlog.log import EventLog
from turbod.record import Record
from turbod.server.archive_listing import ArchiveListing
from turbod.server.packing import Withhold
from turbod.server.server import Server
from turbod.server.status import Lookback
from turbod.server.tokens import Tokens

DID = "did:plc:skgh7tzgwbtzz4zieiy6zlfz"
POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
SERVED = (POST, LIKE, "app.bsky.graph.*")
NOTHING_LATELY: Mapping[str, Lookback] = {
    "/status/samples": lambda _: b'{"seconds":[],"figures":{},"hosts":{},"incidents":[]}',
    "/status/hours": lambda _: b'{"is_whole":true,"hours":[]}',
}
UPGRADE = (
    "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def did(number: int) -> str:
    """Return one of many DIDs."""
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "did:plc:" + "".join(letters[number >> shift & 31] for shift in range(115, -1, -5))


def post(
    number: int,
    *,
    author: str = DID,
    mentions: Sequence[str] = (),
    text: str = "",
    collection: str = POST,
    operation: str = "create",
) -> bytes:
    """Return an upstream message of a post of its own."""
    facets = [
        {"features": [{"$type": "app.bsky.richtext.facet#mention", "did": name}]}
        for name in mentions
    ]
    commit = {
        "rev": f"r{number}",
        "operation": operation,
        "collection": collection,
        "rkey": f"k{number}",
        "cid": f"c{number}",
        "record": {"text": text or f"post {number}", "facets": facets},
    }
    if operation == "delete":
        del commit["record"]
    event = {"did": author, "time_us": time.time_ns() // 1000, "kind": "commit", "commit": commit}
    return json.dumps(event).encode()


def notice(number: int, kind: str, *, author: str = DID) -> bytes:
    """Return an upstream message of an identity or account event."""
    payload = {"did": author, "seq": number, "time": f"2026-11-20T08:00:{number:06d}Z"}
    payload |= {"active": True} if kind == "account" else {}
    event = {"did": author, "time_us": time.time_ns() // 1000, "kind": kind, kind: payload}
    return json.dumps(event).encode()


def record(message: bytes, intake: int = 1, *, padding: int = 0) -> Record:
    """Return the record of an upstream message, `padding` bytes longer than it must be."""
    event = parse(message)
    metadata = b'{"user":null,"mentions":{},"parent_post":null,"reply_post":null,"quote_post":'
    metadata += b'"%b"}' % (b"x" * padding) if padding else b"null}"
    body = b',"at_uri":"%b","did":"%b","time_us":%d,"message":%b,"hydrated_metadata":%b}' % (
        event.at_uri.encode(),
        event.did.encode(),
        event.time_us,
        event.message,
        metadata,
    )
    return Record(event, body, intake)


class Harness:
    """A running server, its log, and ways to reach it."""

    def __init__(
        self,
        server: Server,
        log: EventLog,
        whole_log: WholeLog,
        *,
        port: int,
        nursery: trio.Nursery,
    ) -> None:
        self.server = server
        self.log = log
        self.whole_log = whole_log
        self.port = port
        self.nursery = nursery
        self.upstream = "live"
        self.is_ready = True
        self._intake = 0

    async def publish(self, *messages: bytes, padding: int = 0) -> int:
        """Append records of these messages, wait until they are served; return the head."""
        for message in messages:
            self._intake += 1
            self.log.append(record(message, self._intake, padding=padding))
        await self.log.flush()
        return self.log.head

    async def fill(self, count: int, *, padding: int = 0) -> int:
        """Publish many posts of different authors."""
        start = self._intake
        messages = [post(start + n, author=did((start + n) % 97)) for n in range(count)]
        for first in range(0, count, 100):
            await self.publish(*messages[first : first + 100], padding=padding)
        return self.log.head

    async def connect(self) -> trio.SocketStream:
        """Open a plain TCP connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def exchange(self, request: bytes | str, *, seconds: float = 5) -> bytes:
        """Send bytes, and return all that comes until the server closes."""
        async with await self.connect() as stream:
            return await exchange(stream, request, seconds=seconds)

    async def get(self, target: str, *, method: str = "GET", more: str = "") -> "Answer":
        """Ask with a plain HTTP request."""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"
        return Answer(await self.exchange(head))

    async def upgrade(self, target: str = "/turbostream", *, more: str = "") -> "Answer":
        """Ask for a WebSocket that is expected to be refused."""
        return Answer(await self.exchange(f"GET {target} HTTP/1.1\r\n{UPGRADE}{more}\r\n"))

    @asynccontextmanager
    async def subscribe(
        self,
        query: str = "",
        *,
        path: str = "/turbostream",
        subprotocols: Sequence[str] = (),
        token: str | None = None,
    ) -> AsyncIterator["Subscription"]:
        """Connect with trio-websocket, as a client that does everything right."""
        target = f"{path}?{query}" if query else path
        async with await self.connect() as stream, trio.open_nursery() as nursery:
            with trio.fail_after(5):
                connection = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    "localhost",
                    target,
                    subprotocols=subprotocols,
                    extra_headers=[]
                    if token is None
                    else [(b"Authorization", b"Bearer " + token.encode())],
                    max_message_size=4 * 1024 * 1024,
                )
            yield Subscription(connection)
            with trio.move_on_after(2):
                await connection.aclose()
            nursery.cancel_scope.cancel()

    async def settled(self, condition: Callable[[], bool], *, seconds: float = 5) -> None:
        """Wait until something is so."""
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - nothing tells of what is looked at
                await trio.sleep(0.005)


class Answer:
    """An HTTP answer, taken apart."""

    def __init__(self, raw: bytes) -> None:
        assert raw, "the server closed without a word"
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    def json_lines(self) -> list[Any]:
        """The body's lines, decoded."""
        return [msgspec.json.decode(line) for line in self.body.splitlines()]

    @property
    def error(self) -> tuple[int, str]:
        """Status and name of a refusal, whose form is checked."""
        assert self.headers["connection"] == "close"
        assert self.headers["content-type"] == "application/json"
        assert set(self.json) == {"error", "message"}
        return self.status, self.json["error"]


class Subscription:
    """A subscriber as a client sees it."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self.connection = connection

    async def message(self, *, seconds: float = 5) -> Any:
        """Return the next message, decoded."""
        with trio.fail_after(seconds):
            return json.loads(await self.connection.get_message())

    async def news(self, *, seconds: float = 5) -> dict[str, Any]:
        """Return the next message, which must be about the connection."""
        message = await self.message(seconds=seconds)
        assert isinstance(message, dict), f"records came: {message!r:.200}"
        return message

    async def records(self, count: int, *, seconds: float = 10) -> list[dict[str, Any]]:
        """Return the next records, passing over what is said about the connection."""
        found: list[dict[str, Any]] = []
        with trio.fail_after(seconds):
            while len(found) < count:
                message = await self.message(seconds=seconds)
                found += message if isinstance(message, list) else []
        assert len(found) == count
        return found

    async def end(self, *, seconds: float = 5) -> tuple[int, list[Any]]:
        """Return the close code and the messages before it."""
        messages = []
        with trio.fail_after(seconds):
            try:
                while True:
                    messages.append(json.loads(await self.connection.get_message()))
            except trio_websocket.ConnectionClosed as closed:
                return closed.reason.code if closed.reason else 0, messages

    async def update(self, **payload: Any) -> None:
        """Send an options_update."""
        update = {"type": "options_update", "payload": payload}
        await self.connection.send_message(json.dumps(update))


async def open_stream(
    harness: Harness, target: str = "/turbostream", *, more: str = ""
) -> trio.SocketStream:
    """Complete a handshake by hand; whatever follows is left unread."""
    stream = await harness.connect()
    await stream.send_all(f"GET {target} HTTP/1.1\r\n{UPGRADE}{more}\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some(1)
    assert received.startswith(b"HTTP/1.1 101 ")
    return stream


async def exchange(stream: trio.SocketStream, request: bytes | str, *, seconds: float = 5) -> bytes:
    """Send bytes, and return all that comes until the server closes."""
    received = b""
    with trio.fail_after(seconds):
        try:
            await stream.send_all(request.encode() if isinstance(request, str) else request)
            async for data in stream:
                received += data
        except trio.BrokenResourceError:
            pass
    return received


@asynccontextmanager
async def serving(
    data: Path,
    *,
    settings: ServerSettings | None = None,
    log_settings: LogSettings | None = None,
    withhold: Withhold | None = None,
    status: Callable[[], Mapping[str, Any]] | None = None,
    lookback: Mapping[str, Lookback] = NOTHING_LATELY,
    archive: ArchiveListing | None = None,
    tokens: Tokens | None = None,
) -> AsyncIterator[Harness]:
    """Run a server over a log in this folder, and over the objects in its archive."""
    log = EventLog(data, log_settings or LogSettings(), written=lambda _: None)
    async with trio.open_nursery() as nursery:
        whole_log = await _whole_log(data, log, nursery)
        await nursery.start(log.run)
        harness: Harness | None = None

        def state() -> Harness:
            assert harness is not None
            return harness

        server = Server(
            settings or ServerSettings(),
            log=whole_log,
            collections=SERVED,
            upstream_state=lambda: state().upstream,
            status=status or (lambda: {"version": "0"}),
            metrics=lambda: b"turbod_up 1\n",
            ready=lambda: (state().is_ready, {"disk": "ok"}),
            withhold=withhold,
            now_us=lambda: time.time_ns() // 1000,
            lookback=lookback,
            archive=archive,
            tokens=tokens,
        )
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        harness = Harness(server, log, whole_log, port=port, nursery=nursery)
        await nursery.start(server.run, listeners)
        yield harness
        nursery.cancel_scope.cancel()


async def _whole_log(data: Path, log: EventLog, nursery: trio.Nursery) -> WholeLog:
    """Let the log begin behind the objects that the data folder's archive holds."""
    (data / "archive").mkdir(parents=True, exist_ok=True)
    catalogue, store = Catalogue(), open_store(ArchiveSettings(), S3Settings(), data)

    async def relist() -> None:
        keys = [(parse_key(listed.key), listed.size) for listed in await store.list()]
        catalogue.listed((name, size) for name, size in keys if name is not None)

    await relist()
    log.after, log.ended = catalogue.last, catalogue.end
    read_ahead_bytes = ArchiveSettings().read_ahead_bytes
    history = History(catalogue, store, read_ahead_bytes=read_ahead_bytes, relist=relist)
    await nursery.start(history.run)
    return WholeLog(log, history)


def open_descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself opens one
