"""One subscriber: a position in the log, a filter, a pace. Sends; what it is told comes in by call.

One task alone sends and moves the position. What happens beside it (an options_update, the
server's end, a mistake of the client) is noted and interrupts that task between two frames.
"""

from collections import deque
from math import inf
from typing import Final

import trio

from turbod import frames
from turbod.eventlog.chunk import Chunk, Gap
from turbod.eventlog.reader import HistoryUnavailable, Pruned
from turbod.filter import Filter, InvalidRequest, read_options_update
from turbod.server import news
from turbod.server.interests import Share, TooManyFilters
from turbod.server.packing import PIECE_BYTES, Frames, View
from turbod.server.places import Place
from turbod.server.services import BIG_MESSAGES, Services
from turbod.server.source import Watch
from turbod.server.voice import Voice
from turbod.server.websocket import Close, WebSocket

HELLO_SECONDS: Final = 30.0
TICK_SECONDS: Final = 0.25  # how late a heartbeat may be
LONGEST_WAIT_SECONDS: Final = 5.0  # then the position moves past what the filter leaves out
OPTIONS_UPDATES_PER_MINUTE: Final = 5
HISTORY_PATIENCE_SECONDS: Final = 1.0  # for a slow one while others want its place
QUICK_BYTES_A_SECOND: Final = 256 * 1024  # whoever takes a piece so fast takes a chunk in 2 s
RECORDS_BETWEEN_CHECKPOINTS: Final = 200  # 5 ms where each is a compressed message of its own


class Subscriber:
    """Serves one connection from `position` on.

    Attributes:
        is_live: all from its position to the head is in memory.
    """

    def __init__(
        self,
        websocket: WebSocket,
        services: Services,
        *,
        interests: Share,
        view: View,
        position: int,
        asked: int | None,
        metadata: bool,
        require_hello: bool,
    ) -> None:
        self._voice = Voice(websocket, services, view=view, metadata=metadata)
        self._services = services
        self._interests = interests
        self._log = services.log
        self._view = view
        self._position = position
        self._asked = asked
        self._require_hello = require_hello
        self._shard = view.interest.filter.shard
        self._watch: Watch | None = None
        self._sleep = trio.CancelScope()
        self._is_asleep = False
        self._place: Place | None = None
        self._items: deque[Chunk | Gap] = deque()
        self._is_quick = False
        self._sending_since: float | None = None
        self._following_since = trio.current_time()
        self._level_at = inf  # when it first had all that there was
        self._is_interrupted = False
        self._is_stopping = False
        self._is_revoked = False
        self._failure: Pruned | HistoryUnavailable | None = None
        self._mistake: str | None = None
        self._update: View | None = None
        self._updated_at: deque[float] = deque(maxlen=OPTIONS_UPDATES_PER_MINUTE)
        self.is_live = False
        if services.is_archived(max(position, self._log.floor)) and not require_hello:
            self._take_place()

    @property
    def behind_us(self) -> int:
        """How far it is behind the log's newest record; 0 before it stands anywhere."""
        return max(self._log.head - self._position, 0) if self._watch is not None else 0

    # What happens beside the sending task.

    def stop(self) -> None:
        """Say bye after the frame that is being sent."""
        self._is_stopping = True
        self._interrupt()

    def revoke(self) -> None:
        """Say after the frame that is being sent that its token is one no longer."""
        self._is_revoked = True
        self._interrupt()

    def give_way(self) -> None:
        """Leave the place among the readers of history, with all that was read."""
        if self._place is not None:
            self._place.leave()
        self._items.clear()

    def tick(self, now: float) -> None:
        """Wake it where a heartbeat is due, or its position should move past what is left out."""
        if (
            self._sending_since is not None
            and now >= self._sending_since + HISTORY_PATIENCE_SECONDS
            and self._place is not None
            and self._place.given.is_set()
            and self._place.places.is_wanted
        ):
            self.give_way()
        if (
            self._is_asleep
            and self._watch is not None
            and (
                self._voice.is_beat_due(now) or now >= self._following_since + LONGEST_WAIT_SECONDS
            )
        ):
            self._sleep.cancel()

    def take_message(self, message: bytes | None) -> None:
        """Take a message of the client's, None for a binary one.

        A filter for which the server has no room is answered as a mistake is: by then there is no
        other way to say no than to close, and the text says what was full.
        """
        if self._mistake is not None:
            return
        try:
            self._take_update(message)
        except (InvalidRequest, TooManyFilters) as error:
            self._mistake = str(error)
        self._interrupt()

    def close(self) -> None:
        """Give back what is held."""
        self.give_way()
        if self._watch is not None:
            self._watch.close()
        if self._update is not None:
            self._interests.release(self._update.interest)
        self._interests.release(self._view.interest)

    def _take_update(self, message: bytes | None) -> None:
        if message is None:
            raise InvalidRequest("a message is text, not binary")
        now = trio.current_time()
        if len(self._updated_at) == self._updated_at.maxlen and now < self._updated_at[0] + 60:
            raise InvalidRequest(
                f"at most {OPTIONS_UPDATES_PER_MINUTE} options_updates a minute are allowed"
            )
        self._updated_at.append(now)
        chosen: Filter = read_options_update(
            message, served=self._services.served, shard=self._shard
        )
        if self._update is not None:
            self._interests.release(self._update.interest)
            self._update = None
        interest = self._interests.acquire(chosen, replacing=self._view.interest)
        self._update = self._view.with_interest(interest)

    def _interrupt(self) -> None:
        self._is_interrupted = True
        if self._is_asleep:
            self._sleep.cancel()

    # The sending task.

    async def run(self) -> Close:
        """Send until the server ends it; return how.

        Raises:
            Gone: the client is no longer there.
        """
        if self._require_hello and not await self._hello():
            return Close(1008, f"no options_update within {HELLO_SECONDS:.0f} seconds")
        self._watch = self._log.watch(self._view.interest.all_dids)
        if not (self._is_revoked or self._is_stopping or self._mistake is not None):
            await self._begin()
        while True:
            if (end := await self._attend()) is not None:
                return end
            await self._advance()
            if not self._is_interrupted:
                await self._follow()

    async def _hello(self) -> bool:
        """Sleep until interrupted, by the first options_update as a rule; False for too long."""
        with trio.move_on_after(HELLO_SECONDS) as self._sleep:
            self._is_asleep = True
            if not self._is_interrupted:
                await trio.sleep_forever()
        self._is_asleep = False
        self._apply_update()
        return self._is_interrupted

    async def _begin(self) -> None:
        """Send the first `#cursor`, and say where the stream begins later than was asked."""
        if self._asked is None:
            self._position = self._log.head
        asked, floor = self._position, self._log.floor
        self._position = max(asked, floor)
        self.is_live = self._log.in_memory(self._position)
        await self._tell_cursor("connect")
        if asked < floor and self._asked != 0:
            await self._voice.say(news.outdated_cursor(asked, floor))

    async def _attend(self) -> Close | None:
        """See to what interrupted."""
        self._is_interrupted = False
        if self._is_revoked:
            return await self._fail("AuthRevoked", news.AUTH_REVOKED)
        if self._mistake is not None:
            return await self._fail("InvalidMessage", self._mistake)
        if self._is_stopping:
            await self._tell_cursor("bye")
            return Close(1001, "the server shuts down")
        if self._apply_update():
            await self._tell_cursor("options")
        if isinstance(self._failure, HistoryUnavailable):
            return await self._fail("HistoryUnavailable", news.ARCHIVE_AWAY, code=1011)
        if self._failure is not None:
            return await self._fail(
                "ConsumerTooSlow",
                f"what follows {self._position} is no longer retained; "
                f"the oldest is after {self._log.floor}",
            )
        return None

    async def _fail(self, name: str, message: str, *, code: int = 1008) -> Close:
        await self._voice.say(news.error(name, message, self._position))
        return Close(code, name)

    def _apply_update(self) -> bool:
        """Let a new filter hold from the next event on; tell whether there was one."""
        if self._update is None:
            return False
        self._interests.release(self._view.interest)
        self._view, self._update = self._update, None
        if self._watch is not None:
            self._watch.change(self._view.interest.all_dids)
        return True

    async def _advance(self) -> None:
        """Send what there is up to the head, unless interrupted."""
        records = 0
        while not self._is_interrupted:
            if not self._log.in_memory(self._position):
                self.is_live = False
                await self._send_history()
                continue
            if not self.is_live:
                self.is_live = True
                await self._tell_cursor("cutover")
                continue  # memory may have moved on while the client took that
            if self._position >= self._log.head:
                return
            records += await self._send_live()
            if records >= RECORDS_BETWEEN_CHECKPOINTS:
                records = 0
                await trio.lowlevel.checkpoint()

    async def _send_live(self) -> int:
        """Send the next chunk in memory, or a piece; return how many records were looked at."""
        chunk = self._log.next_chunk(self._position)
        assert chunk is not None, "the head is above the position, and all is in memory"
        await self._voice.gap(chunk.gap, self._position)
        records = self._services.packer.live(chunk, self._position, self._view)
        if records is None:
            self._position = chunk.last
        else:
            await self._send_records(records)
            if chunk.published_at is not None and chunk.published_at >= self._level_at:
                seconds = trio.current_time() - chunk.published_at
                self._services.traffic.delivery_seconds.add(seconds)
        return len(chunk)

    def _take_place(self) -> Place:
        """Return the place to read from here: the one it has, or one to wait for."""
        services = self._services
        is_archived = services.is_archived(self._position)
        places = services.archive if is_archived else services.history
        if self._place is None or self._place.is_left or self._place.places is not places:
            self.give_way()
            self._place = places.ask()
        return self._place

    async def _send_history(self) -> None:
        """Send what one read finds, or less where `give_way` takes it back."""
        place = self._take_place()
        try:
            await self._wait_for(place.given)
            await self._services.pace.turn()
            if not self._is_interrupted and not place.is_left:
                last = await self._read(place)
                await self._send_items()
                if not self._is_interrupted and not place.is_left:
                    self._position = max(self._position, last)
                    await self._tell_progress()
        finally:
            self._sending_since = None
            self._items.clear()
            # Among objects it stays, but lets who waits have its turn.
            if not self._services.is_archived(self._position) or place.places.is_wanted:
                self.give_way()

    async def _read(self, place: Place) -> int:
        """Read on, and say so while that takes long; return the position behind what was read."""
        last, is_done = self._position, trio.Event()

        async def read() -> None:
            nonlocal last
            reading = self._log.read(self._position, self._view.interest.filter)
            try:
                stretch = await self._services.pace.measured(reading)
            except (Pruned, HistoryUnavailable) as error:
                self._failure = error
                self._is_interrupted = True
            else:
                last = stretch.last
                assert last > self._position or self._log.in_memory(last), "a read moves on"
                if not place.is_left:
                    self._items.extend(stretch.items)
            is_done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await self._wait_for(is_done)
            nursery.cancel_scope.cancel()
        return last

    async def _wait_for(self, event: trio.Event) -> None:
        """Wait, not in silence, until it is set, or something interrupts."""
        while not event.is_set() and not self._is_interrupted:
            with trio.CancelScope() as self._sleep:
                self._is_asleep = True
                await event.wait()
            self._is_asleep = False
            await self._tell_progress()

    async def _send_items(self) -> None:
        """Send what was read, up to what interrupts or takes the place back.

        Nothing but `_items` holds what was read, so that a slow client can be rid of it.
        """
        pace = self._services.pace
        while self._items and not self._is_interrupted:
            await pace.turn()
            self._sending_since = trio.current_time()
            await pace.measured(self._send_item())
            await self._tell_progress()

    async def _send_item(self) -> None:
        """Send the first of what was read: a gap, or the next messages of a chunk."""
        await self._voice.gap(_gap_at(self._items[0]), self._position)
        if not self._items:
            return  # it gave way meanwhile
        if isinstance(self._items[0], Gap):
            self._items.popleft()
        else:
            await self._send_piece(self._items[0])

    async def _send_piece(self, chunk: Chunk) -> None:
        """Send the next messages of the first chunk: all of it to who takes that at once.

        What many slow clients hold is bounded by sending pieces while many chunks are on their way.
        """
        services = self._services
        is_big = self._is_quick and services.big_messages < BIG_MESSAGES
        max_bytes = frames.MAX_MESSAGE_BYTES if is_big else PIECE_BYTES
        piece = services.packer.piece(chunk, self._position, self._view, max_bytes=max_bytes)
        if piece is None or piece.last >= chunk.last:
            self._items.popleft()
        if piece is None:
            self._position = chunk.last
            return
        del chunk
        sent = await services.compression.framed(self._view, piece)
        started = trio.current_time()
        services.big_messages += is_big
        try:
            await self._send_records(sent)
        finally:
            services.big_messages -= is_big
        self._is_quick = trio.current_time() - started < len(sent) / QUICK_BYTES_A_SECOND

    async def _send_records(self, records: Frames) -> None:
        await self._voice.records(records)
        self._position = records.last

    async def _follow(self) -> None:
        """Send what is published, as it comes, until interrupted or woken by the clock.

        One scope serves many waits, for at 10,000 waits a second one each costs a tenth of a core.
        So it is cancelled only while this task waits: a cancelled send would break its frame.
        """
        assert self._watch is not None, "run() begins to watch before anything else"
        self._following_since = trio.current_time()
        self._level_at = min(self._level_at, self._following_since)
        if self._voice.is_beat_due(self._following_since):
            await self._voice.beat(self._position, is_live=self.is_live)
        with trio.CancelScope() as self._sleep:
            while not self._is_interrupted:
                self._is_asleep = True
                await self._watch.wait()
                self._is_asleep = False
                if self._sleep.cancel_called:
                    break
                await self._advance()
        self._is_asleep = False

    async def _tell_progress(self) -> None:
        """Say where it stands during history, if that is due."""
        self._sending_since = trio.current_time()
        await self._voice.progress(self._position, is_live=self.is_live)
        self._sending_since = None

    async def _tell_cursor(self, reason: news.Reason) -> None:
        await self._voice.cursor(reason, self._position, is_live=self.is_live)


def _gap_at(item: Chunk | Gap) -> Gap | None:
    return item if isinstance(item, Gap) else item.gap
