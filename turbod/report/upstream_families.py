"""Metrics of the Jetstream hosts, and of how far behind we are."""

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import Metric

from turbod.report.families import counter, counters, gauge, gauges, states
from turbod.report.snapshot import Snapshot
from turbod.upstream.jetstream import HostStatistics

_HOST_STATES: Final = ("connecting", "replaying", "live", "catching_up", "waiting")
_STATES: Final = ("live", "catching_up", "stalled")


def upstream_families(seen: Snapshot) -> Iterator[Metric]:
    """Yield them; without hosts before they are read."""
    text = "How far the newest record is behind our clock."
    yield gauge("turbod_lag_seconds", text, seen.lag_seconds)
    text = "How far the newest record is behind the newest event of any host."
    yield gauge("turbod_behind_upstream_seconds", text, seen.behind_upstream_seconds)
    yield states("turbod_upstream_state", "state", _STATES, {(): seen.state})
    gaps = seen.upstream.gaps if seen.upstream is not None else 0
    yield counter("turbod_upstream_gaps", "Gaps that no host could fill.", gaps)
    yield from _host_families(seen.upstream.hosts if seen.upstream is not None else ())


def _host_families(hosts: Sequence[HostStatistics]) -> Iterator[Metric]:
    now = {(host.url,): host.state for host in hosts}
    yield states("turbod_upstream_host_state", "host state", _HOST_STATES, now)
    text = "Our clock less the stamp of the newest event of a host."
    lags = {host.url: host.lag_seconds for host in hosts}
    yield gauges("turbod_upstream_lag_seconds", text, "host", lags)
    text = "Since a host last sent an event."
    ages = {host.url: host.last_event_age_seconds for host in hosts}
    yield gauges("turbod_upstream_silent_seconds", text, "host", ages)
    text = "Connections made to a host."
    connects = {host.url: host.connects for host in hosts}
    yield counters("turbod_upstream_connects", text, "host", connects)
    text = "Bytes of messages received from a host."
    yield counters("turbod_upstream_bytes", text, "host", {host.url: host.bytes for host in hosts})
    text = "Events received from a host, by what became of them."
    fates = {(host.url, fate): count for host in hosts for fate, count in _fates(host).items()}
    yield counters("turbod_upstream_events", text, "host fate", fates)


def _fates(host: HostStatistics) -> dict[str, int]:
    return {
        "accepted": host.accepted,
        "cache_only": host.feeds_cache,
        "duplicate": host.duplicate,
        "unwanted": host.unwanted,
        **{f"malformed_{reason}": count for reason, count in host.malformed.items()},
    }
