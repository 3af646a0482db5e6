"""All parts of turbod at one moment."""

import msgspec

from turbod.archive.archive import ArchiveStatistics
from turbod.config import Settings
from turbod.cursor import SECOND_US
from turbod.eventlog.log import LogStatistics
from turbod.heartbeat import HeartStatistics
from turbod.hydration.appview import AppViewStatistics
from turbod.hydration.cache import CacheStatistics
from turbod.hydration.hydrator import HydratorStatistics
from turbod.server.server import ServerStatistics
from turbod.upstream.upstream import UpstreamStatistics


class Snapshot(msgspec.Struct, frozen=True):
    """All parts at one moment; those that have not begun are None."""

    now_us: int
    started_us: int
    state: str
    settings: Settings
    log: LogStatistics | None
    log_fault: str | None
    archive: ArchiveStatistics | None
    events_per_minute: float
    upstream: UpstreamStatistics | None
    hydration: HydratorStatistics
    appview: AppViewStatistics
    cache: CacheStatistics
    cache_fault: str | None
    server: ServerStatistics
    hearts: HeartStatistics

    @property
    def lag_seconds(self) -> float | None:
        """How far the newest record is behind the clock; None before the first."""
        if not self.log or not self.log.head:
            return None
        return (self.now_us - self.log.head) / SECOND_US

    @property
    def upstream_lag_seconds(self) -> float | None:
        """How far the host that is farthest is behind the clock; None before any event."""
        hosts = self.upstream.hosts if self.upstream else ()
        return min(
            (host.lag_seconds for host in hosts if host.lag_seconds is not None), default=None
        )

    @property
    def behind_upstream_seconds(self) -> float | None:
        """How far the newest record is behind the newest event of any host; None before both.

        Nothing where all that was taken is on disk: the newest event is not for the log then.
        """
        ours, theirs = self.lag_seconds, self.upstream_lag_seconds
        if self.log is None or ours is None or theirs is None:
            return None
        is_under_way = self.hydration.waiting_events or self.log.queued_records
        return max(ours - theirs, 0.0) if is_under_way else 0.0
