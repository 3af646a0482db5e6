"""A log of objects that the tests command, and a client that is no more than a pace."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import trio

from tests.server.harness import did, post, record
from turbod.eventlog.chunk import Chunk, Gap, Stretch
from turbod.filter import Filter
from turbod.server.endpoints import TURBOSTREAM_JSON
from turbod.server.interests import Account, Interests, Share
from turbod.server.packing import Packer, View
from turbod.server.services import Services
from turbod.server.subscriber import TICK_SECONDS, Subscriber
from turbod.server.websocket import Close

FIRST = 1_795_168_800_000_000
NOBODY = did(31_000)


async def _at_once(_: int) -> None:
    await trio.lowlevel.checkpoint()


class FakeWatch:
    """Nothing is ever published."""

    async def wait(self) -> None:
        await trio.sleep_forever()

    def change(self, dids: frozenset[str] | None) -> None:
        pass

    def close(self) -> None:
        pass


class FakeLog:
    """Records with the cursors FIRST + 1 and on, those up to `archived_until` in objects.

    Attributes:
        memory_start: all above is in memory.
        before_read: is awaited with the position before each read; may raise what a read may.
        reads: positions from which was read.
        gaps: stand alone before the chunk that they end in.
    """

    def __init__(
        self,
        count: int,
        *,
        per_chunk: int = 10,
        padding: int = 0,
        gaps: Sequence[Gap] = (),
        gaps_in_chunks: Sequence[Gap] = (),
    ) -> None:
        self.chunks = [
            _chunk(start, per_chunk, padding=padding, gaps=gaps_in_chunks)
            for start in range(0, count, per_chunk)
        ]
        self.gaps = gaps
        self.floor = FIRST
        self.head = self.chunks[-1].last
        self.memory_start = self.chunks[-2].last
        self.archived_until = self.chunks[-4].last
        self.events_per_minute = 0.0
        self.before_read: Callable[[int], Awaitable[None]] = _at_once
        self.reads: list[int] = []
        self.chunks_a_read = 2

    def in_memory(self, after: int) -> bool:
        return after >= self.memory_start

    def is_archived(self, after: int) -> bool:
        return after < self.archived_until

    def events_behind(self, after: int) -> int | None:
        return self.head - after if self.in_memory(after) else None

    def next_chunk(self, after: int) -> Chunk | None:
        return next((chunk for chunk in self.chunks if chunk.last > after), None)

    def watch(self, _: frozenset[str] | None) -> FakeWatch:
        return FakeWatch()

    async def read(self, after: int, chosen: Filter) -> Stretch:
        self.reads.append(after)
        await self.before_read(after)
        items: list[Chunk | Gap] = []
        ahead = [chunk for chunk in self.chunks if chunk.last > after][: self.chunks_a_read]
        for chunk in ahead:
            items += [gap for gap in self.gaps if chunk.after < gap.before <= chunk.last]
            if any(map(chosen.matches, chunk.heads, map(chunk.size, range(len(chunk))))):
                items.append(chunk)
            elif chunk.gap is not None:
                items.append(chunk.gap)
        return Stretch(items, ahead[-1].last)


def gap(before: int, *, width: int = 1) -> Gap:
    """Return a gap before the record of this number."""
    return Gap(FIRST + before - width, FIRST + before, f"before {before}")


def _chunk(start: int, count: int, *, padding: int, gaps: Sequence[Gap]) -> Chunk:
    records = [record(post(n, author=did(n)), padding=padding) for n in range(start, start + count)]
    cursors = range(FIRST + start + 1, FIRST + start + count + 1)
    lines = [one.pieces(cursor) for one, cursor in zip(records, cursors, strict=True)]
    before = next((one for one in gaps if one.before == cursors[0]), None)
    return Chunk(lines, after=FIRST + start, last=cursors[-1], gap=before)


class FakeClient:
    """Takes what a subscriber sends, at `bytes_a_second`.

    Attributes:
        messages: what came, decoded, with the time at which all of it had come.
        sizes: of each send.
    """

    def __init__(self, *, bytes_a_second: float = float("inf")) -> None:
        self.bytes_a_second = bytes_a_second
        self.messages: list[tuple[float, Any]] = []
        self.sizes: list[int] = []

    async def send(self, *parts: bytes) -> None:
        data = b"".join(parts)
        self.sizes.append(len(data))
        await trio.sleep(len(data) / self.bytes_a_second)
        while data:
            text, data = _unframed(data)
            self.messages.append((trio.current_time(), msgspec.json.decode(text)))

    async def ping(self) -> None:
        self.messages.append((trio.current_time(), "ping"))

    @property
    def all(self) -> list[str | int]:
        """Numbers of records, messages of gaps, reasons of `#cursor`, names of errors."""
        found: list[str | int] = []
        for _, message in self.messages:
            if isinstance(message, list):
                found += [one["cursor"] - FIRST for one in message]
            elif isinstance(message, str):
                found.append(message)
            else:
                kind = message["$type"]
                key = {"#cursor": "reason", "#info": "message", "#error": "error"}[kind]
                found.append(message[key])
        return found

    @property
    def records(self) -> list[int]:
        """Numbers of records."""
        return [one for one in self.all if isinstance(one, int)]

    def times(self, reason: str) -> list[float]:
        """When each `#cursor` with this reason had come."""
        return [
            time
            for time, message in self.messages
            if isinstance(message, dict) and message.get("reason") == reason
        ]


def _unframed(data: bytes) -> tuple[bytes, bytes]:
    start, size = 2, data[1]
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(data[2:start], "big")
    return data[start : start + size], data[start + size :]


def services(log: FakeLog, *, archive_readers: int = 8) -> Services:
    """Return what subscribers of a server over this log share."""
    return Services(
        log,
        packer=Packer(),
        interests=Interests(max_dids=1000),
        served=("app.bsky.feed.*",),
        archive_readers=archive_readers,
        upstream_state=lambda: "live",
        now_us=lambda: FIRST,
    )


def subscriber(
    shared: Services,
    client: FakeClient,
    *,
    position: int = 0,
    chosen: Filter | None = None,
    metadata: bool = True,
    require_hello: bool = False,
) -> Subscriber:
    """Return a subscriber whose client this is, from the record of this number on."""
    interests = Share(shared.interests, Account())
    interest = interests.acquire(Filter() if chosen is None else chosen)
    return Subscriber(
        client,  # type: ignore[arg-type]  # all of a WebSocket that a subscriber uses
        shared,
        interests=interests,
        view=View(interest, framing=TURBOSTREAM_JSON, batch=100, compress=False),
        position=FIRST + position,
        asked=FIRST + position,
        metadata=metadata,
        require_hello=require_hello,
    )


async def served(one: Subscriber, *, seconds: float) -> Close | None:
    """Let a subscriber run for so long, with the server's clock; how it ended, if it did."""
    end: Close | None = None

    async def tick() -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            one.tick(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        with trio.move_on_after(seconds):
            end = await one.run()
        nursery.cancel_scope.cancel()
    one.close()
    return end
