"""Everything that is bounded beside its bound."""

from collections.abc import Iterator

import msgspec
from prometheus_client.core import Metric

from turbod.archive.reading.objects import INDEX_BYTES
from turbod.eventlog.writer import MAX_QUEUED_BYTES
from turbod.hydration import recent
from turbod.hydration.cache import MAX_GONE, MAX_INVALIDATED
from turbod.hydration.hydrator import MAX_WAITING_EVENTS
from turbod.report.families import gauges
from turbod.report.process import ProcessStatistics
from turbod.report.snapshot import Snapshot
from turbod.server.websocket import MAX_UNFINISHED_BYTES


class Bounded(msgspec.Struct, frozen=True):
    """What one thing takes, and may take."""

    what: str
    used: int
    limit: int


def bound_families(seen: Snapshot, used: ProcessStatistics) -> Iterator[Metric]:
    """Yield what is used and what is allowed, in bytes and in numbers."""
    for unit, things in (("bytes", _in_bytes(seen)), ("items", _in_items(seen, used))):
        all_of = list(things)
        text = f"What is taken of what is bounded, in {unit}."
        taken = {each.what: each.used for each in all_of}
        yield gauges(f"turbod_bound_used_{unit}", text, "what", taken)
        text = f"How much that may be, in {unit}."
        limits = {each.what: each.limit for each in all_of}
        yield gauges(f"turbod_bound_limit_{unit}", text, "what", limits)


def _in_bytes(seen: Snapshot) -> Iterator[Bounded]:
    settings, hydration, log, archive = seen.settings, seen.hydration, seen.log, seen.archive
    most_waiting = settings.hydration.max_pending_bytes
    yield Bounded("waiting_events", hydration.waiting_bytes, most_waiting)
    yield Bounded("recent_posts", hydration.recent_posts_bytes, recent.MAX_BYTES)
    yield Bounded("cache_memory", seen.cache.memory_bytes, settings.cache.memory_bytes)
    yield Bounded("cache_file", seen.cache.disk_bytes, settings.cache.disk_bytes)
    yield Bounded("unfinished_messages", seen.server.unfinished_bytes, MAX_UNFINISHED_BYTES)
    if log is not None:
        yield Bounded("log_queue", log.queued_bytes, MAX_QUEUED_BYTES)
        in_memory = log.memory_bytes + log.text_bytes
        yield Bounded("log_memory", in_memory, settings.log.memory_bytes)
    if log is not None and archive is not None:
        on_disk = log.disk_bytes + archive.local.sealed_bytes + archive.local.verified_bytes
        yield Bounded("log_disk", on_disk, settings.log.max_bytes)
        frames, indexes = archive.history.frames.bytes, archive.history.indexes.bytes
        yield Bounded("object_frames", frames, settings.archive.read_ahead_bytes)
        yield Bounded("object_indexes", indexes, INDEX_BYTES)


def _in_items(seen: Snapshot, used: ProcessStatistics) -> Iterator[Bounded]:
    settings, hydration, server = seen.settings, seen.hydration, seen.server
    yield Bounded("waiting_events", hydration.waiting_events, MAX_WAITING_EVENTS)
    yield Bounded("recent_posts", hydration.recent_posts, recent.MAX_POSTS)
    yield Bounded("invalidations", seen.cache.outdated, MAX_INVALIDATED)
    yield Bounded("gone", seen.cache.gone, MAX_GONE)
    if seen.upstream is not None:
        yield Bounded("identities", seen.upstream.identities, settings.jetstream.identities)
    yield Bounded("filter_dids", server.filter_dids, settings.server.max_filter_dids)
    yield Bounded("connections", server.connections, settings.server.max_connections)
    yield Bounded("handshakes", server.handshakes, settings.server.max_handshakes)
    yield Bounded("archive_readers", server.archive_readers, settings.server.max_history_readers)
    yield Bounded("open_files", used.open_files, used.max_open_files)
