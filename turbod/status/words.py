"""A turbod's state in words, on one screen, what is wrong first. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from turbod.amounts import DAY, HOUR, size, span
from turbod.cursor import LIMIT
from turbod.status.told import Host, Told

FULL_HOURS: Final = 24.0  # a day's notice that an archive will be full
_NAME_WIDTH: Final = 11
_SECOND_US: Final = 1_000_000
_MOST_WORDS: Final = 300  # characters of an error that came from elsewhere
_AT_WORK: Final = frozenset({"live", "replaying", "catching_up"})  # what a connected host does


def faults(told: Told) -> list[tuple[str, str]]:
    """Return what an operator must look at: where it is, and what it is."""
    found: list[tuple[str, str | None]] = [
        ("log", told.log.fault),
        ("cache", told.cache.fault),
        ("upstream", _upstream_fault(told)),
        ("appview", _appview_fault(told)),
        *_archive_faults(told),
    ]
    return [(name, words) for name, words in found if words]


def _upstream_fault(told: Told) -> str | None:
    if told.upstream in {"live", "catching_up", None}:
        return None
    return "no host makes progress" if told.upstream == "stalled" else f"is {told.upstream}"


def _appview_fault(told: Told) -> str | None:
    if not told.appview.down:
        return None
    return f"does not answer: {told.appview.last_error or 'no reason known'}"


def _archive_faults(told: Told) -> list[tuple[str, str | None]]:
    archiver = told.archiver
    state = archiver.state or "ok"
    why = (
        None if state == "ok" else f"{state}: {archiver.fault or archiver.url or 'no reason known'}"
    )
    soon = archiver.hours_left is not None and archiver.hours_left < FULL_HOURS
    left = (
        f"full in {span((archiver.hours_left or 0) * HOUR)}" if soon and state != "full" else None
    )
    reading = told.history.fault
    return [
        ("sealing", told.sealer.fault),
        ("archive", why),
        ("archive", left),
        ("history", reading if reading != archiver.fault else None),
    ]


def screen(told: Told, *, url: str) -> list[str]:
    """Return the lines that tell how it is."""
    lines = [_title(told, url)]
    lines += [_line(f"! {name}", words) for name, words in faults(told)]
    lines += [_line(name, words) for name, words in _parts(told) if words]
    return ["".join(each if each.isprintable() else "?" for each in line) for line in lines]


def _title(told: Told, url: str) -> str:
    up = "" if told.uptime_seconds is None else f", up {span(told.uptime_seconds)}"
    return f"turbod {told.turbod} at {url}{up}"


def _line(name: str, words: str) -> str:
    return f"{name:<{_NAME_WIDTH}} {words[:_MOST_WORDS]}"


def _parts(told: Told) -> Iterator[tuple[str, str]]:
    yield "stream", _stream(told)
    for host in told.hosts:
        yield "host", _host(host)
    yield "hydration", _hydration(told)
    yield "appview", _appview(told)
    yield "log", _log(told)
    yield "archive", _archive(told)
    yield "clients", _clients(told)
    yield "process", _process(told)


def _stream(told: Told) -> str:
    state = (told.upstream or "").replace("_", " ")
    return _joined(
        state,
        None if told.lag_seconds is None else f"{span(max(0, told.lag_seconds))} behind now",
        _counted(told.events_per_minute, "event", " a minute"),
    )


def _host(host: Host) -> str:
    state = host.state or ""
    error = host.last_error if state not in _AT_WORK else None
    return f"{host.url or '?'}: " + _joined(
        state.replace("_", " "),
        None if host.lag_seconds is None else f"{span(max(0, host.lag_seconds))} behind",
        _counted(host.connects, "connect"),
        error and f"last error: {error}",
    )


def _hydration(told: Told) -> str:
    hydration = told.hydration
    oldest = hydration.oldest_waiting_seconds
    unresolved = None
    if hydration.unresolved and hydration.hydrated:
        share = 100 * hydration.unresolved / hydration.hydrated
        unresolved = f"{hydration.unresolved:,} views not had in time ({share:.2g} a 100 records)"
    return _joined(
        _counted(hydration.hydrated, "record"),
        f"{hydration.waiting_events:,} wait for views" if hydration.waiting_events else None,
        f"the oldest {span(oldest)}" if hydration.waiting_events and oldest else None,
        unresolved,
    )


def _appview(told: Told) -> str:
    appview = told.appview
    calls = None if appview.calls is None else sum(appview.calls.values())
    bad = calls and calls - sum(
        n for name, n in (appview.calls or {}).items() if name[-3:] == " ok"
    )
    return _joined(
        _counted(calls, "call"),
        f"{bad:,} of them in vain" if bad else None,
        None if appview.rate is None else f"{appview.rate:.3g} a second allowed",
        None if appview.remaining is None else f"{appview.remaining:,} left",
        f"asked to pause for {span(appview.paused_seconds)}" if appview.paused_seconds else None,
        None
        if appview.answered_seconds is None
        else f"last answer {span(appview.answered_seconds)} ago",
    )


def _log(told: Told) -> str:
    log = told.log
    return _joined(
        f"newest record {_time(log.head)}" if log.head and log.head > 0 else None,
        None if log.disk_bytes is None else f"{size(log.disk_bytes)} on disk",
        _counted(log.gaps, "gap") if log.gaps else None,
    )


def _archive(told: Told) -> str:
    archiver = told.archiver
    stored = None
    if archiver.stored_hours is not None:
        stored = f"{archiver.stored_hours:,} hours stored ({size(archiver.stored_bytes or 0)})"
    return _joined(
        archiver.state,
        archiver.url,
        stored,
        _waiting(told),
        f"{archiver.conflicts} in conflict" if archiver.conflicts else None,
        None if archiver.hours_left is None else f"full in {_long(archiver.hours_left)}",
        None
        if archiver.disk_hours_left is None
        else f"this disk in {_long(archiver.disk_hours_left)} if none left it",
    )


def _waiting(told: Told) -> str | None:
    archiver = told.archiver
    if archiver.hours_waiting is None:
        return None
    age = ""
    if archiver.oldest_waiting and told.now:
        age = f", the oldest from {span((told.now - archiver.oldest_waiting) / _SECOND_US)} ago"
    return f"{archiver.hours_waiting} wait{age}"


def _long(hours: float) -> str:
    return "over 3 years" if hours * HOUR > 3 * 365 * DAY else span(hours * HOUR)


def _clients(told: Told) -> str:
    server = told.server
    refused = sum((server.refused or {}).values())
    return _joined(
        _counted(server.subscribers, "subscriber"),
        f"{server.on_disk:,} behind what is in memory" if server.on_disk else None,
        f"{server.archive_readers:,} read the archive" if server.archive_readers else None,
        _counted(server.connections, "connection"),
        f"{refused:,} requests refused" if refused else None,
        f"{server.wrong_tokens:,} wrong tokens" if server.wrong_tokens else None,
        f"{server.errors:,} failed by our mistake" if server.errors else None,
    )


def _process(told: Told) -> str:
    process = told.process
    return _joined(
        None if process.resident_bytes is None else f"{size(process.resident_bytes)} of memory",
        None if process.cpu_seconds is None else f"{span(process.cpu_seconds)} of CPU",
    )


def _counted(number: float | None, noun: str, more: str = "") -> str | None:
    return None if number is None else f"{number:,.0f} {noun}{'s' * (number != 1)}{more}"


def _time(cursor: int) -> str:
    """Return the time that a cursor is about."""
    whole = datetime.fromtimestamp(min(cursor, LIMIT) // _SECOND_US, UTC)
    return whole.isoformat(timespec="seconds").replace("+00:00", "Z")


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)
