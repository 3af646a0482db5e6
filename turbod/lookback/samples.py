"""Figures of the last hours: one sample every ten seconds, in columns. Pure."""

from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from turbod.cursor import SECOND_US
from turbod.report import Snapshot
from turbod.upstream.jetstream import HostStatistics

SAMPLE_SECONDS: Final = 10.0
KEPT: Final = 2160  # six hours; with thirty columns some 2 MB
STATES: Final = ("live", "catching_up", "stalled")

Column = deque[float | None]
Seen = Callable[[Snapshot], float | None]
Counted = Callable[[Snapshot], float]


def _failed_calls(seen: Snapshot) -> int:
    return sum(count for (_, result), count in seen.appview.calls.items() if result != "ok")


# What is so at the moment of a sample.
LEVELS: Final[Mapping[str, Seen]] = {
    "state": lambda seen: STATES.index(seen.state),
    "lag_seconds": lambda seen: seen.lag_seconds,
    "waiting_events": lambda seen: seen.hydration.waiting_events,
    "calls_allowed": lambda seen: seen.appview.rate,
    "appview_down": lambda seen: seen.appview.down,
    "subscribers": lambda seen: seen.server.subscribers,
    "farthest_behind_seconds": lambda seen: seen.server.farthest_behind_seconds,
    "hours_waiting": lambda seen: seen.archive.archiver.hours_waiting if seen.archive else None,
}
# What is counted since the start: a sample has how much it was a second.
COUNTS: Final[Mapping[str, Counted]] = {
    "events": lambda seen: seen.log.records if seen.log else 0,
    "memory": lambda seen: seen.cache.hits_memory,
    "disk": lambda seen: seen.cache.hits_disk,
    "asked": lambda seen: seen.cache.misses,
    "unresolved": lambda seen: seen.hydration.unresolved,
    "calls": lambda seen: sum(seen.appview.calls.values()),
    "failed_calls": _failed_calls,
    "records_sent": lambda seen: seen.server.records,
    "bytes_sent": lambda seen: seen.server.bytes,
}


class Samples:
    """The last KEPT samples, each of what was so at its moment and of what happened before it."""

    def __init__(self) -> None:
        self._times: deque[int] = deque(maxlen=KEPT)
        self._columns = {name: _column() for name in (*LEVELS, *COUNTS)}
        self._hosts: dict[str, dict[str, Column]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._times)

    def add(self, seen: Snapshot, before: Snapshot) -> None:
        """Take one more, of what is seen now and was seen at the one before.

        Where the clock was set back in between, all before that has no place any more.
        """
        seconds = (seen.now_us - before.now_us) / SECOND_US
        if seconds <= 0:
            self._clear()
            return
        for name, level in LEVELS.items():
            self._columns[name].append(_rounded(level(seen)))
        for name, count in COUNTS.items():
            self._columns[name].append(_rate(count(seen) - count(before), seconds))
        self._add_hosts(seen, before, seconds)
        self._times.append(seen.now_us // SECOND_US)

    def since(self, after: int) -> dict[str, Any]:
        """Return the columns of all samples above a time, in seconds since the epoch."""
        first = next((at for at, time in enumerate(self._times) if time > after), len(self))
        return {
            "seconds": list(islice(self._times, first, None)),
            "figures": _cut(self._columns, first),
            "hosts": {url: _cut(columns, first) for url, columns in self._hosts.items()},
        }

    def _clear(self) -> None:
        self._times.clear()
        self._hosts.clear()
        for column in self._columns.values():
            column.clear()

    def _add_hosts(self, seen: Snapshot, before: Snapshot, seconds: float) -> None:
        """Keep every host's columns as long as the others, whenever it was first seen."""
        now, then = _hosts(seen), _hosts(before)
        for url in now.keys() - self._hosts.keys():
            empty = [None] * len(self)
            self._hosts[url] = {name: _column(empty) for name in ("events", "lag_seconds")}
        for url, columns in self._hosts.items():
            host, old = now.get(url), then.get(url)
            received = (host.received if host else 0) - (old.received if old else 0)
            columns["events"].append(_rate(received, seconds))
            columns["lag_seconds"].append(_rounded(host.lag_seconds if host else None))


def _hosts(seen: Snapshot) -> dict[str, HostStatistics]:
    return {host.url: host for host in seen.upstream.hosts} if seen.upstream else {}


def _column(values: list[None] | None = None) -> Column:
    return deque(values or (), maxlen=KEPT)


def _cut(columns: Mapping[str, Column], first: int) -> dict[str, list[float | None]]:
    return {name: list(islice(column, first, None)) for name, column in columns.items()}


def _rate(count: float, seconds: float) -> float | None:
    return _rounded(max(count, 0) / seconds)


def _rounded(value: float | None) -> float | None:
    """Return it with as many digits as a plot can show."""
    if value is None:
        return None
    return round(value) if abs(value) >= 1000 else round(float(value), 2)  # noqa: PLR2004
