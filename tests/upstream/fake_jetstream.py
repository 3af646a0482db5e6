"""A Jetstream host for tests: history, inclusive cursors, every fault by the flip of a field."""

import json
import struct
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.utilities import RemoteProtocolError

from turbod.config import UpstreamSettings
from turbod.cursor import following
from turbod.event import Event
from turbod.upstream.position import Position
from turbod.upstream.upstream import Upstream

BASE_US = 1_795_000_000_000_000
SECOND = 1_000_000
POST = "app.bsky.feed.post"


def did(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "did:plc:" + "".join(letters[number >> 5 * i & 31] for i in range(24))


def post(
    number: int,
    *,
    at: int,
    account: int = 0,
    cursor: int = 0,
    text: str = "x",
    collection: str = POST,
) -> bytes:
    """A post, as Jetstream prints it; `number` makes it what it is, the rest may differ by host."""
    event: dict[str, Any] = {"did": did(account), "time_us": at}
    if cursor:
        event["cursor"] = cursor
    event["kind"] = "commit"
    event["commit"] = {
        "rev": f"3m{number:011d}",
        "operation": "create",
        "collection": collection,
        "rkey": f"r{number}",
        "record": {"$type": collection, "text": text},
        "cid": f"bafy{number}",
    }
    return json.dumps(event, separators=(",", ":")).encode()


def frame(text: bytes, opcode: int = 0x81) -> bytes:
    if len(text) < 126:
        return bytes((opcode, len(text))) + text
    if len(text) < 65536:
        return bytes((opcode, 126)) + struct.pack("!H", len(text)) + text
    return bytes((opcode, 127)) + struct.pack("!Q", len(text)) + text


class FakeJetstream:
    """One host on loopback.

    Attributes:
        answer: what a connect gets: "serve", "mute", "hang up", "garbage", "half", a status line.
        history: the messages it has; a request's cursor is answered from here.
        hears: whether it answers pings.
        is_silent: new messages stay in the history and are not sent.
        rewinds_us: begins so much before what was asked for.
        picks: sends only collections that were asked for, as real ones do.
        requests: the query of every upgrade.
    """

    def __init__(self) -> None:
        self.answer = "serve"
        self.history: list[bytes] = []
        self.hears = True
        self.is_silent = False
        self.rewinds_us = 0
        self.picks = False
        self.requests: list[dict[str, list[str]]] = []
        self.connects = 0
        self.port = 0
        self._streams: set[trio.SocketStream] = set()
        self._sent: dict[trio.SocketStream, int] = {}
        self._news = trio.Event()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/subscribe"

    def emit(self, *messages: bytes) -> None:
        self.history.extend(messages)
        self._wake()

    def speak(self) -> None:
        self.is_silent = False
        self._wake()

    async def send_raw(self, data: bytes) -> None:
        for stream in list(self._streams):
            await stream.send_all(data)

    async def drop(self, *, reset: bool = False) -> None:
        for stream in list(self._streams):
            if reset:
                linger = struct.pack("ii", 1, 0)
                stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
            await trio.aclose_forcefully(stream)

    def lose(self) -> None:
        """Forget all history, as where it is older than what is retained."""
        self.history.clear()
        self._sent = dict.fromkeys(self._sent, 0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, self._serve, self.port, host="127.0.0.1")
            )
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connects += 1
        self._streams.add(stream)
        try:
            await self._answer(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
            pass
        finally:
            self._streams.discard(stream)
            self._sent.pop(stream, None)

    async def _answer(self, stream: trio.SocketStream) -> None:
        if self.answer == "hang up":
            return
        if self.answer == "mute":
            await trio.sleep_forever()
        web = WSConnection(ConnectionType.SERVER)
        while True:
            web.receive_data(await stream.receive_some())
            request = next(web.events(), None)
            if request is not None:
                break
        assert isinstance(request, ws.Request)
        if self.answer == "garbage":
            await stream.send_all(b"\x15\x03\x01\x00\x02\x02\x16 garbage \xff\r\n\r\n")
        elif self.answer == "half":
            await stream.send_all(
                b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 100\r\n\r\nno"
            )
            await trio.sleep_forever()
        elif self.answer != "serve":
            await stream.send_all(f"HTTP/1.1 {self.answer}\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            await stream.send_all(web.send(ws.AcceptConnection()))
            query = parse_qs(urlsplit(request.target).query)
            self._sent[stream] = self._start(query)
            self.requests.append(query)
            wanted = query["wantedCollections"] if self.picks else None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, stream, wanted)
                await self._listen(stream, web)
                nursery.cancel_scope.cancel()

    async def _listen(self, stream: trio.SocketStream, web: WSConnection) -> None:
        while True:
            data = await stream.receive_some()
            if not data:
                return
            web.receive_data(data)
            for event in web.events():
                if isinstance(event, ws.Ping) and self.hears:
                    await stream.send_all(web.send(event.response()))
                if isinstance(event, ws.CloseConnection):
                    return

    async def _send(self, stream: trio.SocketStream, wanted: list[str] | None) -> None:
        while True:
            news = self._news
            if not self.is_silent:
                at = self._sent[stream]
                batch = self.history[at : at + 500]
                self._sent[stream] = at + len(batch)
                if batch:
                    chosen = [each for each in batch if wanted is None or is_of(each, wanted)]
                    await stream.send_all(b"".join(frame(message) for message in chosen))
                    continue
            await news.wait()

    def _start(self, query: dict[str, list[str]]) -> int:
        """Where an inclusive cursor begins: silently at the oldest, or live."""
        if "cursor" not in query:
            return len(self.history)
        asked = int(query["cursor"][0])
        name = "time_us" if asked >= 10**15 else "cursor"
        asked -= self.rewinds_us
        for index, message in enumerate(self.history):
            try:
                value = json.loads(message).get(name, 0)
            except (ValueError, AttributeError, RecursionError):
                continue
            if value >= asked:
                return index
        return len(self.history)


def is_of(message: bytes, wanted: Iterable[str]) -> bool:
    return json.loads(message)["commit"]["collection"] in wanted


class FakeLog:
    """The log, as far as the upstream asks it."""

    def __init__(self) -> None:
        self.records: list[tuple[int, Event]] = []
        self.floor = 0
        self.reads: list[tuple[int, int]] = []

    @property
    def head(self) -> int:
        return self.records[-1][0] if self.records else 0

    def append(self, event: Event, *, now_us: int) -> None:
        cursor = following(self.head, time_us=event.time_us, now_us=now_us)
        self.records.append((cursor, event))

    async def read_identities(self, *, after: int, until: int) -> "array[int]":
        await trio.lowlevel.checkpoint()
        assert after >= self.floor, "that has been deleted"
        self.reads.append((after, until))
        return array("q", [e.identity for cursor, e in self.records if after < cursor <= until])


@dataclass
class Reading:
    """An upstream at work, and what came out of it."""

    log: FakeLog
    upstream: Upstream = field(init=False)
    taken: list[tuple[Event, int, bool]] = field(default_factory=list)
    gaps: list[tuple[int, str]] = field(default_factory=list)
    has_room: bool = True
    is_done_at_once: bool = True
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def rkeys(self) -> list[str]:
        return [event.rkey for event, _, logged in self.taken if logged]

    def take(self, event: Event, intake: int, logged: bool) -> None:  # noqa: FBT001 - the contract
        self.taken.append((event, intake, logged))
        if self.is_done_at_once:
            if logged:
                self.log.append(event, now_us=event.time_us)
            self.upstream.done([intake])
        self._news.set()
        self._news = trio.Event()

    def make_room(self) -> None:
        self.has_room = True
        self._news.set()
        self._news = trio.Event()

    async def room(self) -> None:
        while not self.has_room:
            await self._news.wait()

    async def gap(self, message: str) -> None:
        await trio.lowlevel.checkpoint()
        self.gaps.append((len(self.taken), message))

    async def until(self, holds: Callable[[], bool], *, seconds: float = 20) -> None:
        with trio.fail_after(seconds):
            while not holds():  # noqa: ASYNC110 - what is waited for has no event
                await trio.sleep(0.005)

    async def until_taken(self, count: int) -> None:
        await self.until(lambda: len(self.taken) >= count)


QUICK = UpstreamSettings(
    handshake_seconds=0.5,
    silence_seconds=0.4,
    ping_seconds=0.3,
    longest_backoff_seconds=0.1,
    identities=10_000,
)


@asynccontextmanager
async def reading(
    *hosts: FakeJetstream,
    settings: UpstreamSettings = QUICK,
    collections: Iterable[str] = (POST,),
    positions: Mapping[str, Position] | None = None,
    fallback: Position | None = None,
    log: FakeLog | None = None,
    now_us: Callable[[], int] = lambda: BASE_US + 3600 * SECOND,
    verdict_seconds: float = 1.0,
) -> AsyncIterator[Reading]:
    """Read these hosts (started here where they are not) for as long as the block lasts."""
    log = log or FakeLog()
    async with trio.open_nursery() as nursery:
        for host in hosts:
            if not host.port:
                await nursery.start(host.run)
        read = Reading(log)
        read.upstream = Upstream(
            settings,
            urls=[host.url for host in hosts],
            collections=collections,
            positions=positions or {},
            fallback=fallback,
            older=log,
            take=read.take,
            has_room=lambda: read.has_room,
            room=read.room,
            gap=read.gap,
            now_us=now_us,
            verdict_seconds=verdict_seconds,
        )
        assert read.upstream.state() == "catching_up", "it has not even begun"
        scope = trio.CancelScope()
        with scope:
            async with trio.open_nursery() as inner:
                await inner.start(read.upstream.run)
                yield read
                scope.cancel()
        nursery.cancel_scope.cancel()
