"""One simulated Jetstream host: `/subscribe` over a real WebSocket, from the shared history."""

import time
from collections.abc import Callable
from zlib import crc32

import structlog
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from turbod.simulation.faults import BROKEN, POISON, Faults
from turbod.simulation.frame_stream import FrameStream, frame
from turbod.simulation.history import EVERY_HOST, Entry, History
from turbod.simulation.loopback import LoopbackServer
from turbod.simulation.stamps import Stamps
from turbod.simulation.subscription import BadRequest, Subscription

log = structlog.get_logger()

_BATCH_ENTRIES = 256
_POLL_SECONDS = 0.02  # while a fault holds back what is there
_IDLE_SECONDS = 1.0
_PING_SECONDS = 30.0
_PONG_SECONDS = 5.0  # enforced by v2 only
_WRITE_SECONDS = 5.0  # v2
_SEQUENCE_LIMIT = 10**15  # a cursor below is a v2 host's own number
_FRACTIONS = 1_000_000


def clock_us() -> int:
    """Return the microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class JetstreamHost(LoopbackServer):
    """Serves the history; several hosts share one, each with its own stamps, numbers and faults.

    Attributes:
        faults: what is wrong with it; change at will.
        connects: the query of every handshake that was accepted, oldest first.
        messages_sent: events put on the wire, over all connections.
    """

    def __init__(
        self,
        history: History,
        number: int = 0,
        *,
        version: str = "v1",
        port: int = 0,
        stamp_offset_us: int = 0,
        now_us: Callable[[], int] = clock_us,
    ) -> None:
        super().__init__(port)
        self.faults = Faults()
        self.connects: list[Subscription] = []
        self.messages_sent = 0
        self._history = history
        self._number = number
        self._v2 = version == "v2"
        self._now_us = now_us
        self._stamps = Stamps(offset_us=stamp_offset_us, host=number)
        self._floor = 0
        self._retention_us: int | None = None
        self._released = 0
        self._connections: set[trio.CancelScope] = set()

    @property
    def url(self) -> str:
        """What to give to `--upstream`."""
        return f"ws://127.0.0.1:{self.port}/subscribe"

    # What can be done to it at run time, beside its faults.

    def drop_connections(self) -> None:
        """Cut every connection, without a close frame; new ones are taken at once."""
        for connection in self._connections:
            connection.cancel()

    def renumber(self) -> None:
        """Count anew, as a v2 host does that was set up again, and cut every connection."""
        self._stamps.renumber(self._oldest())
        self.drop_connections()

    def lose_history(self) -> None:
        """Forget everything up to now: the retention window has passed over it."""
        self._floor = self._history.end

    def retain(self, seconds: float | None) -> None:
        """Keep only the newest `seconds` of the history; None for all that there is."""
        self._retention_us = None if seconds is None else int(seconds * 1_000_000)

    def stamp(self, offset_seconds: float) -> None:
        """From the next event on, stamp times that are off by this much."""
        self._stamps.change(self._history.end, int(offset_seconds * 1_000_000))

    def release(self, count: int = 1) -> None:
        """Let `count` more entries of the history go, under `faults.hold`."""
        self._released += count
        self._history.wake()

    def message(self, index: int, entry: Entry) -> bytes:
        """Return an event as this host prints it."""
        if not entry.tail:
            return entry.verbatim
        offset_us = self._stamps.offset_us(index)
        if self._v2:
            number = self._stamps.number(index)
            return b'%b%d,"cursor":%d%b' % (
                entry.head,
                entry.commit_us + offset_us,
                number,
                entry.tail,
            )
        return b"%b%d%b" % (entry.head, entry.time_us + offset_us, entry.tail)

    def has(self, entry: Entry) -> bool:
        """Tell whether this host ever sends an event, its faults being as they are."""
        faults = self.faults
        if entry.only not in (EVERY_HOST, self._number):
            return False
        if faults.blind_fraction:
            draw = crc32(f"{self._number} {entry.did}".encode()) % _FRACTIONS
            if draw < faults.blind_fraction * _FRACTIONS:
                return False
        return faults.misses is None or not faults.misses(entry.did)

    # One connection.

    async def _serve(self, stream: trio.SocketStream) -> None:
        scope = trio.CancelScope()
        self._connections.add(scope)
        try:
            with scope:
                await self._connection(stream)
        except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except* Exception as errors:  # noqa: BLE001 - one client's sin must not end the others
            log.debug("simulated_jetstream_connection_failed", errors=repr(errors))
        finally:
            self._connections.remove(scope)
            await trio.aclose_forcefully(stream)

    async def _connection(self, stream: trio.SocketStream) -> None:
        if self.faults.hang_up:
            return
        if self.faults.mute_handshake:
            while await stream.receive_some():
                pass
            return
        async with trio.open_nursery() as nursery:
            frames = FrameStream(stream, muted=lambda: self.faults.dead)
            request = await wrap_server_stream(nursery, frames)
            try:
                subscription = Subscription.parse(request.path, v2=self._v2)
            except BadRequest as refusal:
                await request.reject(400, body=str(refusal).encode())
            else:
                if self.faults.refuse_status:
                    await request.reject(self.faults.refuse_status, body=b"not now\n")
                else:
                    socket = await request.accept()
                    nursery.start_soon(self._drain, socket, nursery.cancel_scope)
                    nursery.start_soon(self._ping, socket, nursery.cancel_scope)
                    await self._deliver(frames, subscription)
            nursery.cancel_scope.cancel()

    async def _drain(self, socket: WebSocketConnection, scope: trio.CancelScope) -> None:
        """Take what the client says, which means nothing here, until it goes."""
        try:
            while True:
                await socket.get_message()
        except ConnectionClosed:
            scope.cancel()

    async def _ping(self, socket: WebSocketConnection, scope: trio.CancelScope) -> None:
        """Ping as the real hosts do; v2 drops a client that does not answer."""
        try:
            while True:
                await trio.sleep(_PING_SECONDS)
                with trio.move_on_after(_PONG_SECONDS) as patience:
                    await socket.ping()
                if patience.cancelled_caught and self._v2:
                    break
        except ConnectionClosed:
            pass
        scope.cancel()

    async def _deliver(self, frames: FrameStream, subscription: Subscription) -> None:
        position = self._start(subscription.cursor)
        self.connects.append(subscription)
        live = False
        while not (live and self._too_far_behind(position)):
            position = max(position, self._oldest())
            limit = self._limit()
            if position >= limit:
                live = True
                faults = self.faults
                held = faults.silent or faults.dead or faults.lag_seconds or faults.hold
                with trio.move_on_after(_POLL_SECONDS if held else _IDLE_SECONDS):
                    await self._history.wait()
                continue
            batch, position = self._batch(position, limit, subscription)
            await self._send(frames, batch)

    def _too_far_behind(self, position: int) -> bool:
        most = self.faults.outbox_events
        return 0 < most < self._history.end - position

    async def _send(self, frames: FrameStream, batch: list[bytes]) -> None:
        if not batch:
            await trio.lowlevel.checkpoint()
            return
        with trio.fail_after(_WRITE_SECONDS if self._v2 else float("inf")):
            await frames.send_all(b"".join(batch))
        if self.faults.messages_per_second:
            await trio.sleep(len(batch) / self.faults.messages_per_second)

    def _batch(
        self, position: int, limit: int, subscription: Subscription
    ) -> tuple[list[bytes], int]:
        """Return the frames of the next entries that are for this subscription."""
        faults = self.faults
        size = _BATCH_ENTRIES
        if faults.messages_per_second:
            size = max(1, min(size, int(faults.messages_per_second / 50)))
        stop = min(position + size, limit)
        batch: list[bytes] = []
        for index, entry in enumerate(self._history.slice(position, stop), position):
            if subscription.wants(entry.did, entry.collection) and self.has(entry):
                batch.append(frame(self.message(index, entry)))
                self.messages_sent += 1
                if faults.poison_every and self.messages_sent % faults.poison_every == 0:
                    which = self.messages_sent // faults.poison_every
                    batch.append(frame(POISON[which % len(POISON)]))
                if faults.break_every and self.messages_sent % faults.break_every == 0:
                    which = self.messages_sent // faults.break_every
                    batch.append(BROKEN[which % len(BROKEN)])
        return batch, stop

    # Positions.

    def _start(self, cursor: int | None) -> int:
        history, repeat_us = self._history, int(self.faults.repeat_seconds * 1_000_000)
        if cursor is None:
            start = history.at(self._now_us() - repeat_us) if repeat_us else history.end
        elif self._v2 and cursor < _SEQUENCE_LIMIT:
            start = self._stamps.index(cursor)
        else:
            start = self._stamps.at(cursor - repeat_us, end=history.end, find=history.at)
        return min(max(start, self._oldest()), history.end)

    def _oldest(self) -> int:
        oldest = max(self._floor, self._history.first)
        if self._retention_us is not None:
            oldest = max(oldest, self._history.at(self._now_us() - self._retention_us))
        return oldest

    def _limit(self) -> int:
        """Return the index before which everything may be sent now."""
        faults, history = self.faults, self._history
        if faults.silent or faults.dead:
            return 0
        limit = history.end
        if faults.lag_seconds:
            limit = history.at(self._now_us() - int(faults.lag_seconds * 1_000_000))
        return min(limit, self._released) if faults.hold else limit
