"""Metrics of the log."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from turbod.eventlog.log import LogStatistics
from turbod.report.families import counter, gauge, histogram


def log_families(log: LogStatistics) -> Iterator[Metric]:
    """Yield them all."""
    yield gauge("turbod_log_head", "The newest cursor.", log.head)
    yield gauge("turbod_log_floor", "Everything above it is retained.", log.floor)
    yield counter("turbod_log_records", "Records written and synced.", log.records)
    yield counter("turbod_log_stores", "Writes with a sync.", log.stores)
    text = "How long a write with its sync took."
    yield histogram("turbod_log_store_seconds", text, log.store_seconds)
    text = "From having a record to having it on disk and published."
    yield histogram("turbod_log_commit_seconds", text, log.commit_seconds)
    yield gauge("turbod_log_queued_records", "Records waiting to be written.", log.queued_records)
    yield gauge("turbod_log_queued_bytes", "Their memory.", log.queued_bytes)
    yield gauge("turbod_log_memory_records", "Newest records in memory.", log.memory_records)
    yield gauge("turbod_log_memory_bytes", "Their memory.", log.memory_bytes)
    yield gauge("turbod_log_disk_bytes", "The log's files.", log.disk_bytes)
    yield gauge("turbod_log_gaps", "Gaps in the log's files.", log.gaps)
