"""What the sessions share: order, merge, positions, identities of older hours, gaps, room."""

from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog
import trio

from turbod import heartbeat
from turbod.cursor import HOUR_US, SECOND_US
from turbod.event import Event
from turbod.upstream.gaps import Coverage, Resumption, Seen, can_judge
from turbod.upstream.identities import SPAN_US, Identities
from turbod.upstream.merge import Merge, Take, TimeOrder, Verdict
from turbod.upstream.position import Position
from turbod.upstream.progress import Progress
from turbod.upstream.subscription import Subscription

MAX_START_US: Final = 3 * HOUR_US
REMEMBERED_AT_ONCE: Final = 5000  # 2 ms of work without a checkpoint

_ACCEPTED, _FEEDS_CACHE, _, _UNWANTED = Verdict  # by name, as in merge.py

log = structlog.get_logger()


class OlderEvents(Protocol):
    """The log, as far as recognising second copies needs it."""

    @property
    def head(self) -> int:
        """The newest cursor on disk, 0 for an empty log."""

    @property
    def floor(self) -> int:
        """Everything above it is retained."""

    async def read_identities(self, *, after: int, until: int) -> "array[int]":
        """Return the identities of all records with after < cursor <= until.

        Raises:
            LookupError: records above `after` are no longer retained.
        """


class Intake:
    """The sessions' events, made one stream; every event goes through `deliver`.

    Attributes:
        verdicts: per host, how many events met which verdict.
        gaps: how many gaps were told.
        is_telling: a gap is being told: nothing may be taken on until it was.
    """

    def __init__(
        self,
        *,
        hosts: Sequence[str],
        positions: Sequence[Position | None],
        subscription: Subscription,
        limit: int,
        older: OlderEvents,
        take: Take,
        has_room: Callable[[], bool],
        room: Callable[[], Awaitable[None]],
        gap: Callable[[str], Awaitable[None]],
        now_us: Callable[[], int],
        verdict_seconds: float,
    ) -> None:
        self._hosts = hosts
        self._older = older
        self._gap = gap
        self._now_us = now_us
        self._verdict_seconds = verdict_seconds
        self._has_room = has_room
        self._room = room
        self._telling: trio.Event | None = None
        self.is_telling = False
        self.identities = Identities(limit=limit)
        self.merge = Merge(
            subscription=subscription, identities=self.identities, take=take, now_us=now_us
        )
        self.order = TimeOrder(len(hosts))
        self.verdicts = [[0] * len(Verdict) for _ in hosts]
        self.gaps = 0
        self._limit = limit
        self._progress = Progress(positions, now_us=now_us)
        self._notes = tuple(trail.note for trail in self._progress.trails)
        self._coverage = Coverage(len(hosts))
        for host, position in enumerate(positions):
            if position is not None:
                latest_us = position.latest_us or position.time_us
                self._coverage.begin(host, min(latest_us, now_us()))
        self._coverage_changed = trio.Event()
        self._drained = trio.Event()
        self._lending = trio.Lock()

    async def remember_newest(self) -> None:
        """Load what was logged since an hour before the oldest position, as far as it is bounded.

        What is older, or beyond the bounds, is loaded when an event that old comes.
        """
        head, floor = self._older.head, self._older.floor
        oldest = min(
            (position.time_us for position in self._progress.savable if position), default=head
        )
        least = max(min(oldest, head) - HOUR_US, head - MAX_START_US, floor)
        until = head
        while until > least:
            after = max(least, until - SPAN_US)
            found = await self._read(after, until)
            # More would push out what is newer, and live events need their half.
            if len(self.identities) + len(found) > self._limit // 2:
                break
            await self._remember(found, until)
            until = after
        self.identities.complete_above(0 if until <= floor else until)

    @property
    def subscription(self) -> Subscription:
        """What is asked for, and what of it is for the log."""
        return self.merge.subscription

    def subscribe(self, subscription: Subscription) -> None:
        """Take what comes from now on by another subscription, by which hosts are asked anew."""
        self.merge.subscription = subscription
        self._progress.subscribe(subscription.wants)

    def has_room(self) -> bool:
        """Tell whether events may be taken on."""
        return self._has_room() and self._telling is None

    async def room(self) -> None:
        """Wait until events may be taken on."""
        await self._told()
        await self._room()

    def position(self, host: int) -> Position | None:
        """Return where this host's stream stands: to go on from, in this process."""
        return self._progress.position(host)

    def resumption(self, position: Position, *, by_number: bool) -> Resumption | None:
        """Return the judge of a connect from here; None where it cannot be judged."""
        if can_judge(position, self.subscription.wanted):
            return Resumption(position, by_number=by_number)
        return None

    def deliver(self, host: int, event: Event, *, moves_on: bool = True) -> None:
        """Take one event, in its place. While `order.is_full(host)`, wait before the next."""
        if self.order.active or self.order.waiting:
            self.order.push(host, event, moves_on=moves_on)
            self.drain()
        else:
            self._process(host, event, moves_on)

    async def until_drained(self, host: int) -> None:
        """Wait until this host may deliver on: another host had to be heard first."""
        while self.order.is_full(host):
            with heartbeat.resting():
                await self._drained.wait()

    def drain(self) -> None:
        """Take what may be taken from the hosts' buffers."""
        while self.has_room() and (item := self.order.pop()) is not None:
            host, event, moves_on = item
            self.order.told(host, self._process(host, event, moves_on))
        self._drained.set()
        self._drained = trio.Event()

    def lacks(self, event: Event) -> bool:
        """Tell whether the log must be asked before this event can be told from a copy."""
        return bool(self._missing(event))

    async def lend(self, event: Event) -> None:
        """Load the spans of the log that may hold a copy of this old event."""
        async with heartbeat.holding(self._lending):
            for after, until in self._missing(event):
                self.identities.lend(after, until, await self._read(after, until))

    def _missing(self, event: Event) -> list[tuple[int, int]]:
        older = self._older
        return self.identities.missing_spans(event.time_us, floor=older.floor, head=older.head)

    async def _read(self, after: int, until: int) -> "array[int]":
        while True:
            heartbeat.beat()
            try:
                return await self._older.read_identities(after=after, until=until)
            except LookupError:
                # The log has let its oldest hour go meanwhile: what is left is asked for.
                floor = self._older.floor
                if floor <= after:
                    raise
                after = min(floor, until)

    # ---- gaps

    def begins(self, host: int, event: Event) -> None:
        """The first event of a connect that cannot be judged."""
        before = self.position(host)
        at = min(event.time_us, self._now_us())
        if before is None:
            self._coverage.follow(host, at)
        else:
            self._coverage.restart(host, min(before.latest_us or before.time_us, at), at)
        self._announce()

    async def judge(self, host: int, resumption: Resumption, event: Event) -> Seen:
        """Judge an event against the position asked for; tells the gap where there is one."""
        known = self.identities.known(event.identity, event.time_us)
        seen = resumption.observe(event, known=known)
        if seen is Seen.REPEATED:
            self._coverage.follow(host, event.time_us)
            self._announce()
        elif seen is Seen.BEYOND and not resumption.by_number:
            await self._judge_hole(host, resumption.position, event)
        return seen

    def leave(self, host: int) -> None:
        """The host is no longer connected."""
        self.order.leave(host)
        position = self.position(host)
        # A host that stamps ahead of time has not covered what is to come.
        self._coverage.leave(host, min(position.latest_us, self._now_us()) if position else 0)
        self._announce()
        self.drain()

    async def _judge_hole(self, host: int, position: Position, event: Event) -> None:
        before = min(event.time_us, self._now_us())
        after = min(position.latest_us, before)
        self._coverage.hole(host, after, before)
        self._announce()
        log.warning("upstream_hole", host=self._hosts[host], after_us=after, before_us=before)
        verdict: bool | None = None
        with trio.move_on_after(self._verdict_seconds):
            while (verdict := self._coverage.is_gap(host, after, before)) is None:
                with heartbeat.resting():
                    await self._coverage_changed.wait()
        if self._telling is not None:
            await self._told()
            verdict = self._coverage.is_gap(host, after, before)
        if verdict is False:
            return
        await self._tell(
            f"{self._hosts[host]} no longer has the events between "
            f"{_time(after)} and {_time(before)}, and no other upstream has shown that it has"
        )
        self._coverage.told(after, before)
        self._announce()

    async def _told(self) -> None:
        """Wait until no gap is being told."""
        while self._telling is not None:
            with heartbeat.resting():
                await self._telling.wait()

    async def _tell(self, message: str) -> None:
        """Pass a gap on; nobody begins to read meanwhile, so that it stands at its place.

        Where it is cancelled nothing was told: the next connect finds the same hole.
        """
        log.error("upstream_gap", gap=message)
        self._telling, self.is_telling = trio.Event(), True
        try:
            await self._gap(message)
            self._progress.gap_told()
            self.gaps += 1
        finally:
            self._telling.set()
            self._telling, self.is_telling = None, False

    def _announce(self) -> None:
        self._coverage_changed.set()
        self._coverage_changed = trio.Event()

    # ---- positions

    def done(self, intakes: Iterable[int]) -> None:
        """Take these as on disk, or not for the log."""
        self._progress.done(intakes)

    def savable(self) -> dict[str, Position]:
        """Return, per host, the newest position that covers only what is done with."""
        self._progress.promote(self.merge.intake)
        return {
            url: position
            for url, position in zip(self._hosts, self._progress.savable, strict=True)
            if position is not None
        }

    def _process(self, host: int, event: Event, moves_on: bool) -> Verdict:  # noqa: FBT001 - hot
        verdict = self.merge.accept(event)
        self.verdicts[host][verdict] += 1
        if verdict is _FEEDS_CACHE:
            self._progress.done((self.merge.intake,))
        elif self._progress.record_awaited and verdict is _ACCEPTED:
            self._progress.record_taken(self.merge.intake)
        if moves_on and verdict is not _UNWANTED:
            self._notes[host](event)
        return verdict

    async def _remember(self, identities: "array[int]", until: int) -> None:
        for start in range(0, len(identities), REMEMBERED_AT_ONCE):
            for identity in identities[start : start + REMEMBERED_AT_ONCE]:
                self.identities.remember(identity, time_us=until, logged_until=until)
            heartbeat.beat()
            await trio.lowlevel.checkpoint()


def _time(time_us: int) -> str:
    try:
        return datetime.fromtimestamp(time_us / SECOND_US, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(time_us)
