"""A subscriber that is not ours: websockets' protocol over trio, keeping all it is told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import msgspec
import trio
from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
AGAIN_SECONDS = 0.05
_records = msgspec.json.Decoder(list[msgspec.Raw]).decode
_cursor_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Lost(Exception):
    """The connection ended without a close frame, or was not made."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A filter, and what it means by protocol.md, in plain words of our own."""

    collections: tuple[str, ...] = ()
    dids: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    most_bytes: int = 0
    shard: tuple[int, int] | None = None

    def query(self) -> list[tuple[str, str]]:
        """Return it as query parameters."""
        pairs = [(name, value) for name, values in self._lists() for value in values]
        if self.most_bytes:
            pairs.append(("maxMessageSizeBytes", str(self.most_bytes)))
        if self.shard:
            pairs.append(("shard", f"{self.shard[0]}/{self.shard[1]}"))
        return pairs

    def options_update(self) -> str:
        """Return it as a client's message."""
        payload: dict[str, Any] = {name: list(values) for name, values in self._lists()}
        payload["maxMessageSizeBytes"] = self.most_bytes
        return json.dumps({"type": "options_update", "payload": payload})

    def selects(self, line: bytes) -> bool:
        """Tell whether a record is delivered."""
        return self.selects_event(json.loads(line)["message"], size=len(line))

    def selects_event(self, event: dict[str, Any], *, size: int) -> bool:
        """Tell it by the event in a record and the record's length."""
        if self.kinds and event["kind"] not in self.kinds:
            return False
        if self.most_bytes and size > self.most_bytes:
            return False
        if event["kind"] == "commit" and not self._selects_commit(event["commit"]):
            return False
        if self.shard and shard_of(event["did"], self.shard[1]) != self.shard[0]:
            return False
        if self.dids or self.about:
            return event["did"] in self.dids or not concerned(event).isdisjoint(self.about)
        return True

    def _selects_commit(self, commit: dict[str, Any]) -> bool:
        if self.operations and commit["operation"] not in self.operations:
            return False
        return not self.collections or any(
            commit["collection"].startswith(name[:-1])
            if name.endswith(".*")
            else commit["collection"] == name
            for name in self.collections
        )

    def _lists(self) -> list[tuple[str, tuple[str, ...]]]:
        return [
            ("wantedCollections", self.collections),
            ("wantedDids", self.dids),
            ("aboutDids", self.about),
            ("kinds", self.kinds),
            ("operations", self.operations),
        ]


def shard_of(did: str, count: int) -> int:
    """Return which shard of so many a DID is in."""
    return int.from_bytes(sha256(did.encode()).digest()[:8], "big") % count


def concerned(event: dict[str, Any]) -> set[str]:
    """Return whom an event is about: mentioned, answered, quoted, or its subject."""
    record = (event.get("commit") or {}).get("record") or {}
    found = set()
    for facet in record.get("facets", ()):
        found |= {feature["did"] for feature in facet["features"] if "did" in feature}
    reply, embed = record.get("reply", {}), record.get("embed", {})
    uris = [reply.get(name, {}).get("uri") for name in ("parent", "root")]
    if embed.get("$type") == "app.bsky.embed.record":
        uris.append(embed["record"]["uri"])
    if embed.get("$type") == "app.bsky.embed.recordWithMedia":
        uris.append(embed["record"]["record"]["uri"])
    found |= {uri.split("/")[2] for uri in uris if uri and "/app.bsky.feed.post/" in uri}
    subject = record.get("subject")
    if isinstance(subject, dict):
        found.add(subject["uri"].split("/")[2])
    elif isinstance(subject, str):
        found.add(subject)
    return found


class Follower:
    """Follows a stream over any number of connections, each from where the last one ended.

    Attributes:
        wish: the filter.
        start: the position it began at.
        cursor: the position it resumes from.
        lines: the records, as they came.
        news: the objects, as they came.
        wishes: from which position on which filter held.
        ends: the close code of each connection, 1006 where there was no close frame.
        pause_seconds: between two reads of `read_bytes`: a slow client.
        changed: called with each `#cursor` that says that an options_update took effect.
    """

    def __init__(
        self,
        port: int,
        *,
        wish: Wish | None = None,
        cursor: str = "0",
        extra: Sequence[tuple[str, str]] = (),
        read_bytes: int = 65536,
        pause_seconds: float = 0.0,
    ) -> None:
        self.port = port
        self.wish = wish or Wish()
        self.cursor = cursor
        self.start: int | None = None
        self.lines: list[bytes] = []
        self.news: list[dict[str, Any]] = []
        self.wishes: list[tuple[int, Wish]] = []
        self.ends: list[int] = []
        self.pause_seconds = pause_seconds
        self.refusals: list[str] = []
        self.connected = trio.Event()
        self._extra = list(extra)
        self._read_bytes = read_bytes
        self._last = -1
        self._protocol: ClientProtocol | None = None
        self._stream: trio.SocketStream | None = None
        self._scope = trio.CancelScope()
        self._asked: list[Wish] = []
        self._parts: list[bytes] = []

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """The gaps that it was told of."""
        return [told for told in self.news if told.get("name") == "Gap"]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled, connecting again whenever a connection ends."""
        task_status.started()
        while True:
            try:
                await self.session()
            except Lost:
                self.ends.append(1006)
            await trio.sleep(AGAIN_SECONDS)

    async def session(self) -> int:
        """Connect and read to the end of this connection; return its close code.

        Raises:
            Lost: there was no close frame.
        """
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        except OSError as error:
            raise Lost(repr(error)) from error
        async with stream:
            try:
                code = 1006
                with trio.CancelScope() as self._scope:
                    code = await self._converse(stream)
            except (trio.BrokenResourceError, WebSocketException) as error:
                raise Lost(repr(error)) from error
            finally:
                self._protocol = self._stream = None
                self.connected = trio.Event()
        self.ends.append(code)
        return code

    def may_change(self) -> bool:
        """Tell whether it is connected and no options_update of its is under way."""
        return self.connected.is_set() and not self._asked

    async def change(self, wish: Wish) -> None:
        """Send an options_update; it holds from the `#cursor` on that says so."""
        assert self._protocol is not None
        assert self._stream is not None
        wish = replace(wish, shard=self.wish.shard)  # no part of the message: it stays
        self._asked.append(wish)
        self._protocol.send_text(wish.options_update().encode())
        await self._flush(self._stream, self._protocol)

    def hang_up(self) -> None:
        """End the connection without a word; `run` makes another."""
        if self._stream is not None:
            self._scope.cancel()

    def expected(self, log: Sequence[bytes]) -> list[bytes]:
        """Return what a plain scan of all records after its position selects."""
        wanted = []
        for line in log:
            cursor = cursor_of(line)
            if self.start is None or cursor <= self.start:
                continue
            wish = next(wish for since, wish in reversed(self.wishes) if since < cursor)
            if wish.selects(line):
                wanted.append(line)
        return wanted

    async def _converse(self, stream: trio.SocketStream) -> int:
        pairs = [*self.wish.query(), ("cursor", self.cursor), *self._extra]
        url = f"ws://127.0.0.1:{self.port}/turbostream?{urlencode(pairs)}"
        protocol = ClientProtocol(parse_uri(url), max_size=MAX_MESSAGE_BYTES)
        self._protocol, self._stream = protocol, stream
        self._asked, self._parts = [], []
        protocol.send_request(protocol.connect())
        is_first = True
        while True:
            await self._flush(stream, protocol)
            if protocol.close_rcvd is not None:
                return protocol.close_rcvd.code
            data = await stream.receive_some(self._read_bytes)
            if not data:
                raise Lost("hung up")
            if self.pause_seconds:
                await trio.sleep(self.pause_seconds)
            protocol.receive_data(bytes(data))
            for event in protocol.events_received():
                if isinstance(event, Response):
                    if protocol.handshake_exc is not None:
                        self.refusals.append(repr(event.body))
                        raise Lost(repr(event.body))
                elif isinstance(event, Frame) and (message := self._whole(event)) is not None:
                    self._take(message, is_first=is_first)
                    is_first = False

    def _whole(self, frame: Frame) -> bytes | None:
        if frame.opcode not in {Opcode.TEXT, Opcode.CONT}:
            return None
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return None
        message, self._parts = b"".join(self._parts), []
        return message

    async def _flush(self, stream: trio.SocketStream, protocol: ClientProtocol) -> None:
        for data in protocol.data_to_send():
            if data:
                await stream.send_all(data)

    def _take(self, message: bytes, *, is_first: bool) -> None:
        if message[:1] == b"[":
            assert not is_first, "the first message is #cursor"
            for raw in _records(message):
                self._take_line(bytes(raw))
        else:
            self._take_news(json.loads(message), is_first=is_first)

    def _take_line(self, line: bytes) -> None:
        cursor = cursor_of(line)
        assert cursor > self._last, f"cursor {cursor} after {self._last}"
        self._last = cursor
        self.cursor = str(cursor)
        self.lines.append(line)

    def _take_news(self, told: dict[str, Any], *, is_first: bool) -> None:
        self.news.append(told)
        assert not is_first or told["$type"] == "#cursor", told
        if told["$type"] != "#cursor":
            return
        position = int(told["cursor"])
        assert position >= self._last, f"#cursor {position} below the record {self._last}"
        assert position <= told["head"], told
        self._last = position
        self.cursor = str(position)
        if self.start is None:
            self.start = position
            self.wishes.append((position, self.wish))
        if told["reason"] == "options":
            self.wish = self._asked.pop(0)
            self.wishes.append((position, self.wish))
        if is_first:
            self.connected.set()


def cursor_of(line: bytes) -> int:
    """Return a record's cursor."""
    return int(bytes(_cursor_of(line)["cursor"]))
