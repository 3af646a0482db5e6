"""Metrics of the way from events to records: what was asked, what came of it, how long it took."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from turbod.hydration.appview import AppViewStatistics
from turbod.hydration.cache import CacheStatistics
from turbod.hydration.hydrator import HydratorStatistics
from turbod.report.families import counter, counters, gauge, histogram, histograms


def hydration_families(
    hydration: HydratorStatistics, appview: AppViewStatistics, cache: CacheStatistics
) -> Iterator[Metric]:
    """Yield them all."""
    yield from _event_families(hydration)
    yield from _view_families(hydration, cache)
    yield from _appview_families(appview)


def _event_families(hydration: HydratorStatistics) -> Iterator[Metric]:
    outcomes = {
        (kind, outcome): count
        for outcome, kinds in hydration.events.items()
        for kind, count in kinds.items()
    }
    text = "Events, each once, by kind and by what became of them."
    yield counters("turbod_events", text, "kind outcome", outcomes)
    yield counter("turbod_records", "Records passed to the log.", hydration.hydrated)
    yield counter("turbod_records_at_once", "Those that needed no call.", hydration.at_once)
    yield counter("turbod_events_excluded", "Dropped by the exclusion list.", hydration.excluded)
    yield counter("turbod_events_too_long", "Dropped: over 1 MiB as records.", hydration.too_long)
    yield gauge("turbod_waiting_events", "Events waiting for views.", hydration.waiting_events)
    yield gauge("turbod_waiting_bytes", "Their memory.", hydration.waiting_bytes)
    text = "For how long the oldest of them waits."
    yield gauge("turbod_oldest_waiting_seconds", text, hydration.oldest_waiting_seconds)
    text = "From taking an event to having its record."
    yield histogram("turbod_hydration_seconds", text, hydration.hydration_seconds)


def _view_families(hydration: HydratorStatistics, cache: CacheStatistics) -> Iterator[Metric]:
    answers = {"memory": cache.hits_memory, "sqlite": cache.hits_disk}
    for source in ("appview", "missing", "stream", "unresolved"):
        answers[source] = hydration.answers.get(source, 0)
    text = "Views looked for, by where they were found, or why not."
    yield counters("turbod_views", text, "source", answers)
    yield counter("turbod_views_unresolved", "Views that records lack.", hydration.unresolved)
    text = "Views in records, built from events."
    yield counter("turbod_views_from_stream", text, hydration.from_stream)
    hits = {"memory": cache.hits_memory, "disk": cache.hits_disk, "none": cache.misses}
    yield counters("turbod_cache_lookups", "Where views were found.", "where", hits)
    yield gauge("turbod_cache_entries", "Views in memory.", cache.memory_entries)
    yield gauge("turbod_cache_memory_bytes", "Their memory.", cache.memory_bytes)
    yield gauge("turbod_cache_disk_bytes", "The cache's file.", cache.disk_bytes)


def _appview_families(appview: AppViewStatistics) -> Iterator[Metric]:
    text = "Calls that ended, by how."
    yield counters("turbod_appview_calls", text, "kind result", appview.calls)
    text = "Profiles and posts asked for, by what came of it."
    yield counters("turbod_appview_items", text, "kind outcome", appview.items)
    yield counter("turbod_appview_asked_items", "Places used in calls.", appview.asked_items)
    text = "How long calls took, whatever came of them."
    yield histograms("turbod_appview_call_seconds", text, "kind", appview.call_seconds)
    yield gauge("turbod_appview_rate", "Calls a second that the budget allows.", appview.rate)
    text = "Calls left in the AppView's window, where it says."
    yield gauge("turbod_appview_remaining_calls", text, appview.remaining)
    text = "Until that window ends."
    yield gauge("turbod_appview_reset_seconds", text, appview.reset_seconds)
    text = "Until the end of a pause that it asked for."
    yield gauge("turbod_appview_paused_seconds", text, appview.paused_seconds)
    yield gauge("turbod_appview_pending", "Items wanted, not answered.", appview.pending)
    yield gauge("turbod_appview_flying_calls", "Calls under way.", appview.flying)
    yield gauge("turbod_appview_down", "1 while it does not answer.", float(appview.down))
    yield counter("turbod_appview_retries", "Calls made again.", appview.retries)
