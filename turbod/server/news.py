"""What the server says about a connection: `#cursor`, `#info`, `#error`. Pure."""

from typing import Any, Final, Literal

import msgspec

from turbod.eventlog.chunk import Gap

# What a store says of itself names the operator's folder or bucket, and stands in the log.
ARCHIVE_AWAY: Final = "the archive does not answer; come again later"
AUTH_REVOKED: Final = "the token that you connected with is no longer known here"

Reason = Literal["connect", "progress", "heartbeat", "cutover", "options", "bye"]


class Standing(msgspec.Struct, frozen=True):
    """Where a connection and the log stand, as `#cursor` tells it."""

    cursor: int
    head: int
    floor: int
    now_us: int
    live: bool
    upstream: str
    events_behind: int | None
    events_per_minute: float


def cursor(reason: Reason, standing: Standing) -> dict[str, Any]:
    """Every matching event up to this cursor has been sent."""
    behind: dict[str, int] = {"ms": (standing.head - standing.cursor) // 1000}
    if standing.events_behind is not None:
        behind["events"] = standing.events_behind
    return {
        "$type": "#cursor",
        "reason": reason,
        "cursor": standing.cursor,
        "head": standing.head,
        "floor": standing.floor,
        "now": standing.now_us,
        "live": standing.live,
        "upstream": standing.upstream,
        "behind": behind,
        "eventsPerMinute": round(standing.events_per_minute),
    }


def outdated_cursor(asked: int, floor: int) -> dict[str, Any]:
    """Say that what was asked for is no longer there, and where the stream begins instead."""
    message = f"cursor {asked} is older than what is retained; the stream begins after {floor}"
    return {"$type": "#info", "name": "OutdatedCursor", "message": message}


def gap(gap: Gap) -> dict[str, Any]:
    """Say that events between two cursors may be missing."""
    return {
        "$type": "#info",
        "name": "Gap",
        "after": gap.after,
        "before": gap.before,
        "message": gap.message,
    }


def error(name: str, message: str, cursor: int) -> dict[str, Any]:
    """Say why the connection is about to be closed, and where to resume."""
    return {"$type": "#error", "error": name, "message": message, "cursor": cursor}
