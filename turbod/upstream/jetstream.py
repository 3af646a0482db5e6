"""One Jetstream host: connect for ever, read, notice silence, hold back, reconnect where it was."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.backoff import Backoff
from turbod.config import UpstreamSettings
from turbod.cursor import SECOND_US
from turbod.envelope import Malformed
from turbod.event import Event, parse
from turbod.upstream.connection import Address, Connection, Disconnected, address_of, connect
from turbod.upstream.gaps import REORDER_US, Resumption, Seen
from turbod.upstream.intake import Intake
from turbod.upstream.merge import Verdict
from turbod.upstream.position import Position, cursor_to_ask
from turbod.upstream.repeats import Repeats

FIRST_BACKOFF_SECONDS: Final = 0.25
PROGRESS_SECONDS: Final = 15.0  # connected so long: the next wait is short again
HOLD_SECONDS: Final = 3.0  # a v2 host wants its pong within 5 s, and a held connection sends none
TICK_SECONDS: Final = 1.0
LIVE_LAG_US: Final = 5 * SECOND_US
LIVE_PACE: Final = 1.5
LIVE_TICKS: Final = 5
STUCK_EVENTS: Final = 10
LONGEST_PATIENCE_SECONDS: Final = 600.0

log = structlog.get_logger()


class HostStatistics(msgspec.Struct, frozen=True):
    """One host as of now.

    Attributes:
        state: connecting, replaying, live, catching_up (held back by us) or waiting (to reconnect).
        lag_seconds: our clock less the newest event's stamp; None before the first.
        last_event_age_seconds: since an event was last received; None before the first.
        malformed: events dropped, by reason.
    """

    url: str
    state: str
    lag_seconds: float | None
    last_event_age_seconds: float | None
    connects: int
    last_error: str | None
    received: int
    accepted: int
    feeds_cache: int
    duplicate: int
    unwanted: int
    malformed: dict[str, int]
    bytes: int


class Session:
    """One host's connection, whenever there is one."""

    def __init__(
        self,
        url: str,
        *,
        host: int,
        settings: UpstreamSettings,
        intake: Intake,
        fallback: Position | None,
        now_us: Callable[[], int],
    ) -> None:
        self.url = url
        self.state = "connecting"
        self.is_answering = False
        self.answered_at = float("-inf")
        self._host = host
        self._settings = settings
        self._intake = intake
        self._fallback = fallback
        self._now_us = now_us
        self._address: Address = address_of(url)
        self._backoff = Backoff(
            first_seconds=FIRST_BACKOFF_SECONDS, longest_seconds=settings.longest_backoff_seconds
        )
        self._renewal = trio.Event()
        self._by_time_once = False
        self._resumption: Resumption | None = None
        self._is_first = True
        self._is_held = False
        self._patience = settings.silence_seconds
        self._last_heard = self._last_alive = self._opened_at = 0.0
        self._logged_elsewhere = self._accepted_before = 0
        self._newest_us = self._newest_us_before = 0
        self._ticked_us = self._slow_ticks = 0
        self._last_event: Event | None = None
        self._last_event_at = 0.0
        self._connects = self._received = self._bytes = 0
        self._last_error: str | None = None
        self._malformed: dict[str, int] = {}
        self._malformed_here = 0
        self._failures = Repeats()

    async def run(self) -> None:
        """Read this host until cancelled, whatever it does."""
        with heartbeat.beating(f"upstream {self._address.host}"):
            while True:
                await self._until_room()
                wait = 0.0
                try:
                    await self._connected()
                except Disconnected as error:
                    wait = self._wait_after(error)
                except _Held:
                    continue
                self.state = "waiting"
                await heartbeat.sleep(wait)

    def renew(self) -> None:
        """Ask for what is wanted now, from where this host stands: hang up, and connect again."""
        self._renewal.set()

    def statistics(self) -> HostStatistics:
        """Return a snapshot."""
        verdicts = self._intake.verdicts[self._host]
        event = self._last_event
        age = trio.current_time() - self._last_event_at
        return HostStatistics(
            url=self.url,
            state=self.state,
            lag_seconds=None if event is None else (self._now_us() - event.time_us) / SECOND_US,
            last_event_age_seconds=None if event is None else age,
            connects=self._connects,
            last_error=self._last_error,
            received=self._received,
            accepted=verdicts[Verdict.ACCEPTED],
            feeds_cache=verdicts[Verdict.FEEDS_CACHE],
            duplicate=verdicts[Verdict.DUPLICATE],
            unwanted=verdicts[Verdict.UNWANTED],
            malformed=dict(self._malformed),
            bytes=self._bytes,
        )

    # ---- connecting

    async def _connected(self) -> None:
        self.state = "connecting"
        self._renewal = trio.Event()
        position = self._position()
        query = [("wantedCollections", item) for item in self._intake.subscription.wanted]
        if position is not None:
            query.append(("cursor", str(cursor_to_ask(position, self._now_us()))))
        longest = self._settings.handshake_seconds
        with heartbeat.allowing(longest):
            connection = await connect(self._address, query=query, deadline_seconds=longest)
        self._opened(position)
        try:
            await self._converse(connection)
        finally:
            self._left()
            await connection.aclose()

    def _position(self) -> Position | None:
        position = self._intake.position(self._host)
        if position is None:
            return self._fallback
        if self._by_time_once:
            # Maybe another instance, whose stamps are others: as far apart as stamps may be.
            since_us = position.time_us - REORDER_US
            position = msgspec.structs.replace(position, cursor=0, time_us=since_us)
        return position

    def _opened(self, position: Position | None) -> None:
        now = trio.current_time()
        self._connects += 1
        self._last_heard = self._last_alive = self._opened_at = now
        self._malformed_here = 0
        self._is_first = True
        self._resumption = None
        self._newest_us_before = self._newest_us
        self._ticked_us = self._slow_ticks = 0
        self._accepted_before = self._accepted()
        self._logged_elsewhere = self._intake.merge.logged
        self.is_answering = True
        if position is None:
            # Should it break before the first event, the next connect begins here, not at its now.
            self._fallback = Position(self._now_us())
            self.state = "live"
        else:
            self._resumption = self._intake.resumption(position, by_number=position.cursor > 0)
            self._intake.order.replay(self._host)
            self.state = "replaying"
        self._by_time_once = False
        log.info("upstream_connected", host=self.url, position=position and position.time_us)

    def _left(self) -> None:
        self.is_answering = False
        self.answered_at = trio.current_time()
        if (
            self._accepted() > self._accepted_before
            or trio.current_time() - self._opened_at >= PROGRESS_SECONDS
        ):
            self._backoff.reset()
            self._failures.over()
        self._intake.leave(self._host)

    def _accepted(self) -> int:
        return self._intake.verdicts[self._host][Verdict.ACCEPTED]

    async def _converse(self, connection: Connection) -> None:
        end: list[Exception] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guard, self._watch, connection, nursery, end)
            nursery.start_soon(self._guard, self._until_renewed, connection, nursery, end)
            await self._guard(self._read, connection, nursery, end)
        raise end[0]

    async def _guard(
        self,
        part: Callable[[Connection], Awaitable[None]],
        connection: Connection,
        nursery: trio.Nursery,
        end: list[Exception],
    ) -> None:
        # Not raised through the nursery, which would wrap it in a group; our own faults may be.
        try:
            await part(connection)
        except (Disconnected, _Held) as error:
            end.append(error)
        nursery.cancel_scope.cancel()

    async def _until_renewed(self, _: Connection) -> None:
        await self._renewal.wait()
        raise _Renewed

    def _wait_after(self, error: Disconnected) -> float:
        words = str(error)
        self._last_error = words
        self._backoff.longest_seconds = self._settings.longest_backoff_seconds
        wait = 0.0 if isinstance(error, _Renumbered) else self._backoff.next_seconds()
        wait = max(wait, error.retry_after_seconds)
        if times := self._failures.due(words, trio.current_time()):
            log.warning(
                "upstream_disconnected",
                host=self.url,
                error=words,
                retry_seconds=round(wait, 2),
                times=times,
            )
        return wait

    # ---- reading

    async def _read(self, connection: Connection) -> None:
        unreadable = connection.reader.unreadable
        while True:
            messages = await connection.receive()
            while unreadable:
                self._dropped(unreadable.pop())
            if messages:
                self._last_heard = trio.current_time()
                await self._receive(messages)

    async def _receive(self, messages: Sequence[bytes]) -> None:
        intake, host = self._intake, self._host
        identities, order = intake.identities, intake.order
        last: Event | None = None
        self._received += len(messages)
        self._bytes += sum(map(len, messages))
        for message in messages:
            try:
                event = parse(message)
            except Malformed as error:
                self._dropped(error.reason)
                continue
            last = event
            if event.time_us <= identities.edge_us and intake.lacks(event):
                with self._held():
                    await intake.lend(event)
            if self._is_first or self._resumption is not None:
                moves_on = await self._resumed(event)
                intake.deliver(host, event, moves_on=moves_on)
            else:
                intake.deliver(host, event)
            if order.waiting and order.is_full(host):
                with self._held():
                    await intake.until_drained(host)
            if intake.is_telling:  # a gap, before anything that comes behind it
                await self._hold()
        if last is not None:
            self._heard(last)
        if not intake.has_room():  # asked once a read: 64 KiB more or less
            await self._hold()

    def _heard(self, event: Event) -> None:
        now = trio.current_time()
        self._last_event, self._last_event_at = event, now
        self._last_alive = self._last_heard = now
        self._logged_elsewhere = self._intake.merge.logged
        self._malformed_here = 0
        if event.time_us > self._newest_us:
            self._newest_us = min(event.time_us, self._now_us())
            if self._newest_us > self._newest_us_before:
                # Not by what it only repeats after a reconnect.
                self._patience = self._settings.silence_seconds
        if self.state == "replaying" and self._now_us() - event.time_us < LIVE_LAG_US:
            self._is_live()

    def _is_live(self) -> None:
        self.state = "live"
        self._intake.order.live(self._host)
        self._intake.drain()

    async def _resumed(self, event: Event) -> bool:
        """Judge the first events; True where the position moves on with this one."""
        is_first, self._is_first = self._is_first, False
        if self._resumption is None:
            if is_first:
                self._intake.begins(self._host, event)
            return True
        with self._held():
            seen = await self._intake.judge(self._host, self._resumption, event)
        if seen is Seen.BEYOND and self._resumption.by_number:
            self._by_time_once = True
            raise _Renumbered("it numbers its events anew: asking by time")
        if seen is Seen.UNSURE:
            if self._intake.position(self._host) is not None:
                return False
            # A host that we never read, and that has what is older than our log's end.
            self._intake.begins(self._host, event)
        self._resumption = None
        return True

    def _dropped(self, reason: str) -> None:
        self._malformed[reason] = self._malformed.get(reason, 0) + 1
        self._malformed_here += 1
        log.warning("upstream_malformed", host=self.url, reason=reason)

    # ---- holding back

    async def _hold(self) -> None:
        with self._held(), trio.move_on_after(HOLD_SECONDS):
            before, self.state = self.state, "catching_up"
            await self._intake.room()
            self.state = before
            self._intake.drain()
            return
        raise _Held

    async def _until_room(self) -> None:
        if not self._intake.has_room():
            self.state = "catching_up"
            self.is_answering = True
            log.info("upstream_waits_for_room", host=self.url)
            while not self._intake.has_room():
                await self._intake.room()
            self.is_answering = False

    @contextmanager
    def _held(self) -> Iterator[None]:
        """While we do not read, silence says nothing about the host."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            self._last_heard = self._last_alive = trio.current_time()

    # ---- watching

    @property
    def _tick(self) -> float:
        return min(TICK_SECONDS, self._settings.silence_seconds / 4)

    async def _watch(self, connection: Connection) -> None:
        with heartbeat.beating(f"upstream_silence {self._address.host}"):
            await self._watch_silence(connection)

    async def _watch_silence(self, connection: Connection) -> None:
        while True:
            await trio.sleep(self._tick)
            heartbeat.beat()
            now = trio.current_time()
            if now - self._last_heard >= self._tick or self._is_held:
                self._intake.order.excuse(self._host)
                self._intake.drain()
            if self._is_held:
                continue
            if self.state == "replaying":
                self._look_whether_live(now)
            silent = now - self._last_alive
            if silent < self._settings.silence_seconds:
                continue
            self._raise_if_stuck(now)
            await self._raise_unless_pong(connection)

    def _look_whether_live(self, now: float) -> None:
        """Live is also who sends no faster than time goes by, whatever our clock says of its."""
        advance, self._ticked_us = self._newest_us - self._ticked_us, self._newest_us
        is_slow = advance < LIVE_PACE * self._tick * SECOND_US
        self._slow_ticks = self._slow_ticks + 1 if is_slow else 0
        if now - self._last_heard >= TICK_SECONDS or self._slow_ticks >= LIVE_TICKS:
            self._is_live()

    def _raise_if_stuck(self, now: float) -> None:
        silence = now - max(self._opened_at, self._last_event_at)
        if self._malformed_here:
            raise Disconnected(f"nothing but malformed messages for {silence:.0f} s")
        elsewhere = self._intake.merge.logged - self._logged_elsewhere
        if elsewhere >= STUCK_EVENTS and silence >= self._patience:
            # A host that is blind to what others see is not asked again and again.
            self._patience = min(2 * self._patience, LONGEST_PATIENCE_SECONDS)
            raise Disconnected(f"silent for {silence:.0f} s, {elsewhere} events elsewhere")

    async def _raise_unless_pong(self, connection: Connection) -> None:
        reader = connection.reader
        pongs, heard = reader.pongs, self._last_heard
        await connection.ping()
        deadline = trio.current_time() + self._settings.ping_seconds
        while trio.current_time() < deadline:
            await trio.sleep(self._settings.ping_seconds / 20)
            heartbeat.beat()
            if reader.pongs > pongs or self._last_heard > heard or self._is_held:
                self._last_alive = trio.current_time()
                return
        raise Disconnected(f"silent, and no pong within {self._settings.ping_seconds:g} s")


class _Held(Exception):
    """We had no room for too long: hang up, and come back when there is."""


class _Renewed(_Held):
    """What is wanted has changed: hang up, and ask for that at once."""


class _Renumbered(Disconnected):
    """We hang up to ask by time: at once, since nothing failed."""
