"""What `/metrics` answers, in Prometheus' text format."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from turbod import __version__
from turbod.cursor import SECOND_US
from turbod.report import process
from turbod.report.archive_families import archive_families
from turbod.report.bounds import bound_families
from turbod.report.families import counter, gauge, gauges, histogram
from turbod.report.hydration_families import hydration_families
from turbod.report.log_families import log_families
from turbod.report.server_families import server_families
from turbod.report.snapshot import Snapshot
from turbod.report.upstream_families import upstream_families


def metrics(seen: Snapshot) -> bytes:
    """Return all families; those of parts that have not begun are left out."""
    registry = CollectorRegistry()
    registry.register(_Once(_families(seen)))
    return generate_latest(registry)


class _Once(Collector):
    """Gives the registry families that were made beforehand."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(seen: Snapshot) -> Iterator[Metric]:
    used = process.statistics()
    yield gauges("turbod_info", "1 for the version that runs.", "version", {__version__: 1})
    yield from _process_families(seen, used)
    yield from upstream_families(seen)
    yield from hydration_families(seen.hydration, seen.appview, seen.cache)
    yield gauge("turbod_cache_fault", "1 while its file is not written.", _flag(seen.cache_fault))
    if seen.log is not None:
        yield from log_families(seen.log)
        yield gauge("turbod_log_fault", "1 while it cannot write.", _flag(seen.log_fault))
    if seen.archive is not None:
        drops_oldest = seen.settings.archive.when_full == "drop_oldest"
        yield from archive_families(seen.archive, now_us=seen.now_us, drops_oldest=drops_oldest)
    yield from server_families(seen.server)
    yield from bound_families(seen, used)


def _process_families(seen: Snapshot, used: process.ProcessStatistics) -> Iterator[Metric]:
    hearts, started = seen.hearts, seen.started_us / SECOND_US
    yield gauge("turbod_start_time_seconds", "When the process began, Unix time.", started)
    yield gauge("turbod_resident_bytes", "Memory of the process.", used.resident_bytes)
    yield counter("turbod_cpu_seconds", "CPU time, all threads.", used.cpu_seconds)
    yield gauge("turbod_tasks", "Tasks of the event loop.", hearts.tasks)
    yield gauge("turbod_hearts", "Tasks that are watched.", hearts.hearts)
    text = "Silence of the watched tasks that hang."
    yield gauges("turbod_heart_late_seconds", text, "task", hearts.late)
    text = "How late the event loop comes round."
    yield histogram("turbod_event_loop_lag_seconds", text, hearts.loop_lag_seconds)


def _flag(fault: str | None) -> float:
    return float(fault is not None)
