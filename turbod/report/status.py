"""What `/status` answers: plain names, units at their ends."""

from typing import Any, Final

import msgspec

from turbod import __version__
from turbod.cursor import SECOND_US
from turbod.histogram import Distribution
from turbod.hydration.appview import AppViewStatistics
from turbod.report import process
from turbod.report.snapshot import Snapshot

_ITEMS_A_CALL: Final = 25


def status(seen: Snapshot) -> dict[str, Any]:
    """Return all figures as JSON can have them."""
    return {
        "turbod": __version__,
        "now": seen.now_us,
        "uptime_seconds": round((seen.now_us - seen.started_us) / SECOND_US),
        "upstream": seen.state,
        "events_per_minute": round(seen.events_per_minute, 1),
        "lag_seconds": _rounded(seen.lag_seconds),
        "behind_upstream_seconds": _rounded(seen.behind_upstream_seconds),
        "hosts": [] if seen.upstream is None else _plain(seen.upstream.hosts),
        "hydration": _plain(seen.hydration),
        "appview": _plain(seen.appview) | {"fill": _fill(seen.appview)},
        "cache": _plain(seen.cache) | {"fault": seen.cache_fault},
        "log": None if seen.log is None else _plain(seen.log) | {"fault": seen.log_fault},
        "archive": _plain(seen.archive),
        "server": _plain(seen.server),
        "process": _plain(process.statistics()) | _plain(seen.hearts),
    }


def _plain(value: Any) -> Any:
    match value:
        case Distribution():
            return _in_short(value)
        case msgspec.Struct():
            return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        case dict():
            return {_key(key): _plain(each) for key, each in value.items()}
        case tuple():
            return [_plain(each) for each in value]
    return value


def _key(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else " ".join(key)


def _in_short(distribution: Distribution) -> dict[str, float | None]:
    count = distribution.count
    return {
        "count": count,
        "mean": _rounded(distribution.sum / count if count else None),
        "p50": _rounded(distribution.quantile(0.5)),
        "p99": _rounded(distribution.quantile(0.99)),
    }


def _fill(appview: AppViewStatistics) -> float | None:
    """Return which share of the places in all calls was used."""
    calls = sum(appview.calls.values())
    return round(appview.asked_items / (calls * _ITEMS_A_CALL), 3) if calls else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
