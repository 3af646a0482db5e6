"""Six hours of figures as a busy server would tell them, for the page."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from turbod.lookback.samples import COUNTS, KEPT, LEVELS

STEP: Final = 10
HOSTS: Final = (
    "wss://jetstream1.us-east.example/subscribe",
    "wss://jetstream2.us-west.example/subscribe",
)


def _wave(at: int, mean: float, swing: float, hours: float) -> float:
    noise = math.sin(at * 12.9898) * 43758.5453 % 1 - 0.5
    return round(
        max(0.0, mean + swing * math.sin(at * STEP / 3600 / hours * 6.28) + noise * mean / 6), 2
    )


def _is_away(at: int) -> bool:
    return 900 <= at < 960


def _is_stalled(at: int) -> bool:
    return 1500 <= at < 1530


FIGURES: Final[dict[str, Callable[[int], float]]] = {
    "state": lambda at: 2 if _is_stalled(at) else 1 if 1530 <= at < 1560 else 0,
    "lag_seconds": lambda at: (at - 1500) * STEP if _is_stalled(at) else _wave(at, 0.35, 0.1, 2),
    "waiting_events": lambda at: (
        _wave(at, 12_000, 4000, 1) if _is_away(at) else _wave(at, 60, 20, 3)
    ),
    "calls_allowed": lambda _: 10,
    "appview_down": lambda at: float(_is_away(at)),
    "subscribers": lambda at: round(38 + 20 * math.sin(at / 300) + at % 5),
    "farthest_behind_seconds": lambda at: (
        _wave(at, 2, 1, 4) if at % 700 > 40 else _wave(at, 90, 30, 1)
    ),
    "hours_waiting": lambda _: 1,
    "events": lambda at: 0 if _is_stalled(at) else _wave(at, 410, 140, 6),
    "memory": lambda at: _wave(at, 640, 200, 6),
    "disk": lambda at: _wave(at, 80, 20, 6),
    "asked": lambda at: _wave(at, 110, 30, 6),
    "unresolved": lambda at: _wave(at, 30, 10, 1) if _is_away(at) else 0,
    "calls": lambda at: 0 if _is_away(at) else _wave(at, 5.5, 1.6, 6),
    "failed_calls": lambda at: _wave(at, 1.5, 0.2, 1) if _is_away(at) else 0,
    "records_sent": lambda at: _wave(at, 14_000, 5000, 6),
    "bytes_sent": lambda at: _wave(at, 48_000_000, 15_000_000, 6),
}


def samples(now: datetime) -> bytes:
    """Return what `/status/samples` answers when it is full."""
    assert FIGURES.keys() == LEVELS.keys() | COUNTS.keys()
    first = int(now.timestamp()) - KEPT * STEP
    hosts: dict[str, Callable[[int], float]] = {
        "events": lambda at: _wave(at, 400, 130, 6),
        "lag_seconds": lambda at: _wave(at, 0.3, 0.1, 1),
    }
    return json.dumps(
        {
            "step_seconds": STEP,
            "seconds": [first + at * STEP for at in range(KEPT)],
            "figures": {
                name: [figure(at) for at in range(KEPT)] for name, figure in FIGURES.items()
            },
            "hosts": {
                url: {
                    name: [figure(at + 7) for at in range(KEPT)] for name, figure in hosts.items()
                }
                for url in HOSTS
            },
            "incidents": [_incident(now, *each) for each in INCIDENTS],
        }
    ).encode()


INCIDENTS: Final = (
    (
        "archive failing",
        35,
        None,
        1,
        "The archive does not take hours; they wait on this disk: HTTP 503",
    ),
    ("host", 100, 96, 3, f"{HOSTS[1]} is away: the host closed the connection"),
    ("gap", 110, 110, 1, "1 gap in the stream: no host had what came in between"),
    ("upstream", 110, 105, 1, "No Jetstream host sends anything"),
    (
        "appview",
        210,
        200,
        1,
        "The AppView does not answer, so events wait for their views: timeout",
    ),
)


def _incident(
    now: datetime, what: str, began: int, ended: int | None, times: int, words: str
) -> Any:
    def ago(minutes: int) -> int:
        return int((now - timedelta(minutes=minutes)).timestamp() * 1_000_000)

    return {
        "what": what,
        "words": words,
        "began": ago(began),
        "ended": None if ended is None else ago(ended),
        "times": times,
    }


def hours(now: datetime) -> bytes:
    """Return what `/status/hours` answers for forty days, with one of each kind of trouble."""
    told = [_hour(now.astimezone(UTC) - timedelta(hours=ago), ago) for ago in range(40 * 24)]
    return json.dumps({"now": 0, "is_whole": True, "hours": told}).encode()


def _hour(at: datetime, ago: int) -> dict[str, Any]:
    began = int(at.replace(minute=0, second=0, microsecond=0).timestamp() * 1_000_000)
    gap = {
        "after": began + 540_000_000,
        "before": began + 2_400_000_000,
        "message": "no host had it",
    }
    told: dict[str, Any] = {
        "hour": f"{at:%Y-%m-%dT%H}",
        "state": "verified",
        "size": 48_211_034 + ago,
    }
    told |= {"records": 131_207 + 100 * ago, "is_here": ago < 7 * 24}
    match ago:
        case 0:
            return {"hour": told["hour"], "state": "plain", "is_here": True, "size": 300_000_000}
        case 1 | 2 | 3:
            return told | {"state": "waiting"}
        case 30 | 200:
            return told | {"gaps": [gap]}
        case 75 | 76 | 77:
            return {"hour": told["hour"], "state": "missing", "gaps": [gap]}
        case 130:
            return told | {"state": "damaged"}
        case 180:
            return told | {"state": "conflict"}
    return told
