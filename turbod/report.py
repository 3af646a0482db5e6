"""What `/status` and `/metrics` say: snapshots of the parts, put into words and numbers.

Nothing is counted here, and nothing on the hot path knows of any of this.
"""

import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, get_args

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from turbod import __version__
from turbod.archive.archive import ArchiveStatistics
from turbod.archive.upload.condition import State
from turbod.eventlog.log import LogStatistics
from turbod.hydration.appview import AppViewStatistics
from turbod.hydration.cache import CacheStatistics
from turbod.hydration.hydrator import HydratorStatistics
from turbod.server.server import ServerStatistics
from turbod.upstream.upstream import UpstreamStatistics

SECOND_US: Final = 1_000_000
_ITEMS_A_CALL: Final = 25


class Snapshot(msgspec.Struct, frozen=True):
    """All parts at one moment; those that have not begun are None."""

    now_us: int
    started_us: int
    state: str
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


def status(seen: Snapshot) -> dict[str, Any]:
    """Return what `/status` answers: plain names, units at their ends."""
    log = seen.log
    return {
        "turbod": __version__,
        "now": seen.now_us,
        "uptime_seconds": round((seen.now_us - seen.started_us) / SECOND_US),
        "upstream": seen.state,
        "events_per_minute": round(seen.events_per_minute, 1),
        "lag_seconds": None if not log or not log.head else _seconds(seen.now_us - log.head),
        "hosts": [] if seen.upstream is None else msgspec.to_builtins(seen.upstream.hosts),
        "hydration": msgspec.to_builtins(seen.hydration),
        "appview": _appview(seen.appview),
        "cache": msgspec.to_builtins(seen.cache) | {"fault": seen.cache_fault},
        "log": None if log is None else msgspec.to_builtins(log) | {"fault": seen.log_fault},
        "archive": None if seen.archive is None else msgspec.to_builtins(seen.archive),
        "server": msgspec.to_builtins(seen.server),
        "process": _process(),
    }


def summary(seen: Snapshot) -> str:
    """Return in one line how it is: what is wrong first, then how far behind, for how many."""
    return "; ".join([*_faults(seen), *_well(seen)])


def _faults(seen: Snapshot) -> Iterator[str]:
    if seen.log_fault is not None:
        yield f"The log cannot be written: {seen.log_fault}"
    if seen.state == "stalled" and seen.log_fault is None:
        yield "No Jetstream host answers"
    if seen.appview.down:
        yield f"The AppView does not answer: {seen.appview.last_error or 'no answer'}"
    if seen.archive and (fault := seen.archive.sealer.fault or seen.archive.archiver.fault):
        yield f"The archive waits: {fault}"
    if seen.cache_fault is not None:
        yield f"The cache cannot be written: {seen.cache_fault}"


def _well(seen: Snapshot) -> Iterator[str]:
    if seen.state == "live":
        yield "Live"
    elif seen.state == "catching_up":
        yield f"Catching up{_behind(seen)}"
    yield f"{seen.events_per_minute:,.0f} events a minute"
    count = seen.server.subscribers
    yield f"{count:,} subscriber{'' if count == 1 else 's'}"


def _behind(seen: Snapshot) -> str:
    if not seen.log or not seen.log.head:
        return ""
    return f", {_seconds(seen.now_us - seen.log.head):,.0f} s behind"


def metrics(seen: Snapshot) -> bytes:
    """Return what `/metrics` answers, in Prometheus' text format."""
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
    yield _gauge(
        "turbod_start_time_seconds", "When the process began.", seen.started_us / SECOND_US
    )
    yield from _upstream_families(seen)
    yield from _hydration_families(seen.hydration, seen.appview, seen.cache)
    if seen.log is not None:
        yield from _log_families(seen.log, seen)
    if seen.archive is not None:
        yield from _archive_families(seen.archive, seen.now_us)
    yield from _server_families(seen.server)
    process = _process()
    yield _gauge("turbod_resident_bytes", "Memory of the process.", process["resident_bytes"])
    yield _counter("turbod_cpu_seconds", "CPU time, all threads.", process["cpu_seconds"])


def _upstream_families(seen: Snapshot) -> Iterator[Metric]:
    states = {name: float(name == seen.state) for name in ("live", "catching_up", "stalled")}
    yield _labelled(GaugeMetricFamily, "turbod_upstream_state", "1 for the state.", "state", states)
    hosts = seen.upstream.hosts if seen.upstream is not None else ()
    lag = {host.url: host.lag_seconds for host in hosts if host.lag_seconds is not None}
    text = "Our clock less the stamp of the newest event of a host."
    yield _labelled(GaugeMetricFamily, "turbod_upstream_lag_seconds", text, "host", lag)
    connects = {host.url: host.connects for host in hosts}
    text = "Connections to a host."
    yield _labelled(CounterMetricFamily, "turbod_upstream_connects", text, "host", connects)
    family = CounterMetricFamily(
        "turbod_upstream_events",
        "Events received, by what became of them.",
        labels=["host", "fate"],
    )
    for host in hosts:
        fates = {
            "accepted": host.accepted,
            "cache_only": host.feeds_cache,
            "duplicate": host.duplicate,
            "unwanted": host.unwanted,
            **{f"malformed_{reason}": count for reason, count in host.malformed.items()},
        }
        for fate, count in fates.items():
            family.add_metric([host.url, fate], count)
    yield family
    gaps = seen.upstream.gaps if seen.upstream is not None else 0
    yield _counter("turbod_upstream_gaps", "Gaps that no upstream could fill.", gaps)


def _hydration_families(
    hydration: HydratorStatistics, appview: AppViewStatistics, cache: CacheStatistics
) -> Iterator[Metric]:
    yield _counter("turbod_records", "Records passed to the log.", hydration.hydrated)
    yield _counter("turbod_records_at_once", "Those that needed no call.", hydration.at_once)
    yield _counter("turbod_events_excluded", "Dropped by the exclusion list.", hydration.excluded)
    yield _counter("turbod_events_too_long", "Dropped: over 1 MiB as records.", hydration.too_long)
    yield _counter("turbod_views_unresolved", "Views not asked in time.", hydration.unresolved)
    yield _counter("turbod_views_from_stream", "Views built from events.", hydration.from_stream)
    yield _gauge("turbod_waiting_events", "Events waiting for views.", hydration.waiting_events)
    yield _gauge("turbod_waiting_bytes", "Their memory.", hydration.waiting_bytes)
    calls = CounterMetricFamily("turbod_appview_calls", "Calls.", labels=["kind", "result"])
    for (kind, result), count in appview.calls.items():
        calls.add_metric([kind, result], count)
    yield calls
    items = CounterMetricFamily("turbod_appview_items", "Items asked.", labels=["kind", "outcome"])
    for (kind, outcome), count in appview.items.items():
        items.add_metric([kind, outcome], count)
    yield items
    yield _gauge("turbod_appview_rate", "Calls a second that the budget allows.", appview.rate)
    yield _gauge("turbod_appview_pending", "Items wanted, not answered.", appview.pending)
    yield _gauge("turbod_appview_down", "1 while it does not answer.", float(appview.down))
    hits = {"memory": cache.hits_memory, "disk": cache.hits_disk, "none": cache.misses}
    text = "Where views were found."
    yield _labelled(CounterMetricFamily, "turbod_cache_lookups", text, "where", hits)
    yield _gauge("turbod_cache_memory_bytes", "Views in memory.", cache.memory_bytes)
    yield _gauge("turbod_cache_disk_bytes", "The cache's file.", cache.disk_bytes)


def _log_families(log: LogStatistics, seen: Snapshot) -> Iterator[Metric]:
    yield _gauge("turbod_log_head", "The newest cursor.", log.head)
    yield _gauge("turbod_log_floor", "Everything above it is retained.", log.floor)
    yield _counter("turbod_log_records", "Records written and synced.", log.records)
    yield _counter("turbod_log_stores", "Writes with a sync.", log.stores)
    yield _gauge("turbod_log_queued_bytes", "Waiting to be written.", log.queued_bytes)
    yield _gauge("turbod_log_memory_bytes", "Newest records in memory.", log.memory_bytes)
    yield _gauge("turbod_log_disk_bytes", "The log's files.", log.disk_bytes)
    yield _gauge("turbod_log_fault", "1 while it cannot write.", float(seen.log_fault is not None))


def _archive_families(archive: ArchiveStatistics, now_us: int) -> Iterator[Metric]:
    archiver, local, history = archive.archiver, archive.local, archive.history
    states = {name: float(name == archiver.state) for name in get_args(State)}
    text = "1 for the state."
    yield _labelled(GaugeMetricFamily, "turbod_archive_state", text, "state", states)
    yield _gauge("turbod_archive_floor", "Everything above it is retained.", archive.floor)
    hours = {"waiting": local.sealed, "verified": local.verified, "stored": archiver.stored_hours}
    text = "Hours, by where they are."
    yield _labelled(GaugeMetricFamily, "turbod_archive_hours", text, "place", hours)
    size = {
        "waiting": local.sealed_bytes,
        "verified": local.verified_bytes,
        "stored": archiver.stored_bytes,
    }
    yield _labelled(GaugeMetricFamily, "turbod_archive_bytes", "Their bytes.", "place", size)
    oldest = archiver.oldest_waiting
    age = (now_us - oldest) / SECOND_US if oldest else 0.0
    yield _gauge("turbod_archive_oldest_waiting_seconds", "Age of the oldest not verified.", age)
    yield _counter("turbod_archive_sealed_hours", "Hours sealed.", archive.sealer.sealed)
    yield _counter("turbod_archive_uploaded_hours", "Hours stored, verified.", archiver.uploaded)
    yield _counter("turbod_archive_uploaded_bytes", "Their bytes.", archiver.uploaded_bytes)
    yield _gauge("turbod_archive_foreign", "Objects that are none of ours.", archiver.foreign)
    yield _gauge("turbod_archive_conflicts", "Hours in conflict.", archiver.conflicts)
    left = {"archive": archiver.hours_left, "disk": archiver.disk_hours_left}
    known = {name: hours for name, hours in left.items() if hours is not None}
    text = "Hours until it is full."
    yield _labelled(GaugeMetricFamily, "turbod_archive_hours_left", text, "what", known)
    yield _counter("turbod_history_holes", "Places where hours are missing.", history.holes)
    yield _counter("turbod_history_damaged", "Objects and frames not read.", history.damaged)
    yield _gauge("turbod_history_frames_bytes", "Read ahead.", history.frames.bytes)


def _server_families(server: ServerStatistics) -> Iterator[Metric]:
    yield _gauge("turbod_connections", "Open connections.", server.connections)
    places = {"memory": server.in_memory, "disk": server.on_disk}
    text = "Subscribers, by where their next record lies."
    yield _labelled(GaugeMetricFamily, "turbod_subscribers", text, "reading", places)
    yield _counter("turbod_messages_sent", "WebSocket messages.", server.messages)
    yield _counter("turbod_records_sent", "Records in them.", server.records)
    yield _counter("turbod_bytes_sent", "Their bytes.", server.bytes)
    text = "Requests refused, by the name of the error."
    yield _labelled(CounterMetricFamily, "turbod_refused", text, "error", server.refused)
    text = "Of trusted proxies, without the client's address."
    yield _counter("turbod_untold_clients", text, server.untold)
    yield _counter("turbod_resets", "Clients reset: stuck, or holding too much.", server.resets)
    yield _counter("turbod_connection_errors", "Mistakes of our own.", server.errors)
    text = "Connections open with a token, by its name."
    yield _labelled(GaugeMetricFamily, "turbod_token_connections", text, "token", server.tokens)
    yield _counter("turbod_wrong_tokens", "Wrong tokens sent.", server.wrong_tokens)
    yield _gauge("turbod_filter_dids", "DIDs in all filters.", server.filter_dids)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _labelled(
    family: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    made = family(name, text, labels=[label])
    for value, number in values.items():
        made.add_metric([value], number)
    return made


def _appview(seen: AppViewStatistics) -> dict[str, Any]:
    """Return the AppView's part: keys that JSON can have, and the fill of a call."""
    fields = {name: getattr(seen, name) for name in seen.__struct_fields__}
    fields["calls"] = {f"{kind} {result}": count for (kind, result), count in seen.calls.items()}
    fields["items"] = {f"{kind} {outcome}": count for (kind, outcome), count in seen.items.items()}
    calls = sum(seen.calls.values())
    fields["fill"] = round(seen.asked_items / (calls * _ITEMS_A_CALL), 3) if calls else None
    return fields


def _seconds(microseconds: int) -> float:
    return round(microseconds / SECOND_US, 3)


def _process() -> dict[str, float]:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - one read, no path
        pages = int(statm.read().split()[1])
    return {
        "resident_bytes": pages * resource.getpagesize(),
        "cpu_seconds": round(time.process_time(), 3),
    }
