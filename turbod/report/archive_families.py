"""Metrics of the archive, and of what is read from it."""

from collections.abc import Iterator
from typing import Final, get_args

from prometheus_client.core import Metric

from turbod.archive.archive import ArchiveStatistics
from turbod.archive.upload.archiver import ArchiverStatistics
from turbod.archive.upload.condition import State
from turbod.cursor import SECOND_US
from turbod.report.families import counter, gauge, gauges, histogram, states

HOUR_SECONDS: Final = 3600


def archive_families(
    archive: ArchiveStatistics, *, now_us: int, drops_oldest: bool
) -> Iterator[Metric]:
    """Yield them all; an archive that drops its oldest hours is never full."""
    yield states("turbod_archive_state", "state", get_args(State), {(): archive.archiver.state})
    yield gauge("turbod_archive_floor", "Everything above it is retained.", archive.floor)
    yield from _place_families(archive)
    yield from _waiting_families(archive.archiver, now_us)
    yield _room_family(archive.archiver, drops_oldest=drops_oldest)
    yield from _work_families(archive)
    yield from _history_families(archive)


def _place_families(archive: ArchiveStatistics) -> Iterator[Metric]:
    archiver, local = archive.archiver, archive.local
    count = {
        "plain": archive.sealer.waiting,
        "waiting": local.sealed,
        "verified": local.verified,
        "stored": archiver.stored_hours,
    }
    yield gauges("turbod_archive_objects", "Hours, by where they are.", "place", count)
    size = {
        "waiting": local.sealed_bytes,
        "verified": local.verified_bytes,
        "stored": archiver.stored_bytes,
    }
    yield gauges("turbod_archive_bytes", "Their bytes.", "place", size)


def _waiting_families(archiver: ArchiverStatistics, now_us: int) -> Iterator[Metric]:
    oldest = archiver.oldest_waiting
    age = (now_us - oldest) / SECOND_US if oldest else 0.0
    yield gauge("turbod_archive_oldest_waiting_seconds", "Age of the oldest not verified.", age)
    text = "What is free on the data folder's disk."
    yield gauge("turbod_disk_free_bytes", text, archiver.disk_free_bytes)


def _room_family(archiver: ArchiverStatistics, *, drops_oldest: bool) -> Metric:
    hours = {
        "archive": None if drops_oldest else archiver.hours_left,
        "disk": archiver.disk_hours_left,
    }
    seconds = {what: left and left * HOUR_SECONDS for what, left in hours.items()}
    text = "Until it is full, at the last day's rate."
    return gauges("turbod_archive_room_seconds", text, "what", seconds)


def _work_families(archive: ArchiveStatistics) -> Iterator[Metric]:
    archiver, sealer = archive.archiver, archive.sealer
    yield counter("turbod_archive_sealed", "Hours sealed.", sealer.sealed)
    yield counter("turbod_archive_sealed_bytes", "Bytes of their objects.", sealer.sealed_bytes)
    fault = float(sealer.fault is not None)
    yield gauge("turbod_archive_seal_fault", "1 while an hour cannot be sealed.", fault)
    yield histogram("turbod_archive_seal_seconds", "How long an hour took.", sealer.seconds)
    yield counter("turbod_archive_uploaded", "Hours stored and verified.", archiver.uploaded)
    yield counter("turbod_archive_uploaded_bytes", "Their bytes.", archiver.uploaded_bytes)
    text = "How long an hour took, reading it back included."
    yield histogram("turbod_archive_upload_seconds", text, archiver.upload_seconds)
    yield gauge("turbod_archive_foreign", "Objects that are none of ours.", archiver.foreign)
    yield gauge("turbod_archive_conflicts", "Hours in conflict.", archiver.conflicts)


def _history_families(archive: ArchiveStatistics) -> Iterator[Metric]:
    history = archive.history
    yield counter("turbod_history_holes", "Places where hours are missing.", history.holes)
    yield counter("turbod_history_damaged", "Objects and frames not read.", history.damaged)
    away = float(history.fault is not None)
    yield gauge("turbod_history_fault", "1 while the archive does not answer readers.", away)
    yield gauge("turbod_history_frames_bytes", "Read ahead.", history.frames.bytes)
