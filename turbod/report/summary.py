"""How turbod is, in one line, as `systemctl status` shows it."""

from collections.abc import Iterator

from turbod.report.snapshot import Snapshot


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
    return "" if seen.lag_seconds is None else f", {seen.lag_seconds:,.0f} s behind"
