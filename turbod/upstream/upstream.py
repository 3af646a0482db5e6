"""The upstream as the daemon sees it: sessions, what may be saved, how it is doing."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from turbod import heartbeat
from turbod.config import UpstreamSettings
from turbod.upstream.gaps import VERDICT_SECONDS
from turbod.upstream.intake import Intake, OlderEvents
from turbod.upstream.jetstream import HostStatistics, Session
from turbod.upstream.merge import Take
from turbod.upstream.position import Position
from turbod.upstream.subscription import Subscription

STALLED_SECONDS: Final = 5.0  # without any connection; a reconnect is quicker


class UpstreamStatistics(msgspec.Struct, frozen=True):
    """All hosts as of now.

    Attributes:
        intake: the newest intake number given.
        identities: events remembered to recognise second copies.
        gaps: gaps told since the start.
    """

    state: str
    hosts: tuple[HostStatistics, ...]
    intake: int
    identities: int
    gaps: int


class Upstream:
    """Reads all hosts and hands each event on once.

    Args:
        settings: timeouts and bounds.
        urls: the hosts' /subscribe addresses, each once.
        collections: what is logged.
        positions: what `positions()` gave before, by URL.
        fallback: where to begin on a host without a position, because there is a log: its anchors
            are the log's last events. None: live.
        older: the log, to recognise events that were logged by an earlier process.
        take: called with each new event, its intake number, and whether it is for the log.
        has_room: whether `take` may be called on.
        room: waits until there is room.
        gap: awaited before the first event behind a gap is taken.
        now_us: our clock.
        verdict_seconds: how long a hole in one host waits for another host to cover it.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        urls: Sequence[str],
        collections: Iterable[str],
        positions: Mapping[str, Position],
        fallback: Position | None,
        older: OlderEvents,
        take: Take,
        has_room: Callable[[], bool],
        room: Callable[[], Awaitable[None]],
        gap: Callable[[str], Awaitable[None]],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        verdict_seconds: float = VERDICT_SECONDS,
    ) -> None:
        hosts = tuple(dict.fromkeys(urls))
        self._intake = Intake(
            hosts=hosts,
            positions=[positions.get(url) for url in hosts],
            subscription=Subscription(collections),
            limit=settings.identities,
            older=older,
            take=take,
            has_room=has_room,
            room=room,
            gap=gap,
            now_us=now_us,
            verdict_seconds=verdict_seconds,
        )
        self._sessions = tuple(
            Session(
                url,
                host=host,
                settings=settings,
                intake=self._intake,
                fallback=fallback,
                now_us=now_us,
            )
            for host, url in enumerate(hosts)
        )
        self._began_at = trio.current_time()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read all hosts until cancelled. Ready at once; the hosts are asked when the log was."""
        task_status.started()
        with heartbeat.beating("upstream"):
            await self._intake.remember_newest()
        async with trio.open_nursery() as nursery:
            for session in self._sessions:
                nursery.start_soon(session.run)

    def subscribe(self, collections: Iterable[str]) -> None:
        """Log these from now on, and ask all hosts for them, each from where it stands."""
        before, subscription = self._intake.subscription, Subscription(collections)
        self._intake.subscribe(subscription)
        if subscription.wanted != before.wanted:
            for session in self._sessions:
                session.renew()

    def done(self, intakes: Sequence[int]) -> None:
        """Say that these events are on disk, or were dropped after intake. Twice does no harm."""
        self._intake.done(intakes)

    def positions(self) -> dict[str, Position]:
        """Return what may be saved now, by URL."""
        return self._intake.savable()

    def state(self) -> str:
        """Return `live`, `catching_up` or `stalled`, as `#cursor` says it."""
        states = {session.state for session in self._sessions if session.is_answering}
        answered_at = max(self._began_at, *(session.answered_at for session in self._sessions))
        if not states and trio.current_time() - answered_at >= STALLED_SECONDS:
            return "stalled"
        return "live" if "live" in states else "catching_up"

    def statistics(self) -> UpstreamStatistics:
        """Return a snapshot."""
        return UpstreamStatistics(
            state=self.state(),
            hosts=tuple(session.statistics() for session in self._sessions),
            intake=self._intake.merge.intake,
            identities=len(self._intake.identities),
            gaps=self._intake.gaps,
        )
