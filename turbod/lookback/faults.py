"""What is wrong, in words for whoever looks at the page. Pure."""

from collections.abc import Iterator
from typing import Final

from turbod.archive.archive import ArchiveStatistics
from turbod.report import Snapshot

_DISCONNECTED: Final = frozenset({"connecting", "waiting"})
_ARCHIVE: Final = {
    "failing": "The archive does not take hours; they wait on this disk",
    "conflict": "An hour in the archive is not ours; it waits for a decision",
    "full": "The archive is full; hours wait on this disk",
}


def faults(seen: Snapshot, before: Snapshot) -> dict[str, str]:
    """Return what is wrong now, or has been since an earlier look: which, and its words."""
    found = dict(_faults(seen))
    if seen.hydration.unresolved > before.hydration.unresolved:
        found["unresolved"] = "Events lack views for which the AppView could not be asked in time"
    return found


def moments(seen: Snapshot, before: Snapshot) -> dict[str, str]:
    """Return what happened since an earlier look and is over."""
    return dict(_moments(seen, before))


def _faults(seen: Snapshot) -> Iterator[tuple[str, str]]:
    if seen.log_fault is not None:
        yield "log", f"Nothing can be written: {seen.log_fault}"
    elif seen.state == "stalled":
        yield "upstream", "No Jetstream host sends anything"
    for host in seen.upstream.hosts if seen.upstream else ():
        if host.state in _DISCONNECTED and host.last_error:
            yield f"host {host.url}", f"{host.url} is away: {host.last_error}"
    if seen.appview.down:
        why = seen.appview.last_error or "no answer"
        yield "appview", f"The AppView does not answer, so events wait for their views: {why}"
    if seen.cache_fault is not None:
        yield "cache", f"The cache cannot be saved: {seen.cache_fault}"
    if seen.archive is not None:
        yield from _archive_faults(seen.archive)


def _archive_faults(archive: ArchiveStatistics) -> Iterator[tuple[str, str]]:
    archiver, reading = archive.archiver, archive.history.fault
    if archive.sealer.fault is not None:
        yield "sealing", f"Finished hours cannot be sealed: {archive.sealer.fault}"
    if archiver.state != "ok":
        yield f"archive {archiver.state}", f"{_ARCHIVE[archiver.state]}: {archiver.fault}"
    if reading is not None and reading != archiver.fault:
        yield "history", f"History cannot be read from the archive: {reading}"


def _moments(seen: Snapshot, before: Snapshot) -> Iterator[tuple[str, str]]:
    if gaps := _gaps(seen) - _gaps(before):
        yield "gap", f"{_counted(gaps, 'gap')} in the stream: no host had what came in between"
    if seen.archive and before.archive:
        damaged = seen.archive.history.damaged - before.archive.history.damaged
        if damaged > 0:
            yield "damaged", f"{_counted(damaged, 'part')} of the archive cannot be read"
        if (holes := seen.archive.history.holes - before.archive.history.holes) > 0:
            yield "holes", f"Hours are missing in the archive, at {_counted(holes, 'place')}"
    if errors := seen.server.errors - before.server.errors:
        yield "errors", f"{_counted(errors, 'connection')} ended by a mistake of turbod's own"


def _gaps(seen: Snapshot) -> int:
    return seen.upstream.gaps if seen.upstream else 0


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
