"""Cursors: how the server gives them and what a client may write for one. Pure.

A cursor is an integer of 16 digits, microseconds since the Unix epoch, strictly increasing on one
server. `cursor=N` means after N. 0 stands for an empty log.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

SECOND_US: Final = 1_000_000
HOUR_US: Final = 3600 * SECOND_US
LEAST: Final = 10**15  # the smallest of 16 digits: 2001-09-09
LIMIT: Final = 2**53  # what JavaScript's numbers hold exactly
AHEAD_OF_CLOCK_US: Final = 5 * SECOND_US
FUTURE_US: Final = 60 * SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[1-9][0-9]{15}", re.ASCII)
_AGO = re.compile(r"-([0-9]{1,6})([smhd])", re.ASCII)
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    r"([Zz]|[+ -][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class BadCursor(ValueError):
    """What a client asked for is not a cursor in any of the accepted forms."""


class FutureCursor(ValueError):
    """What a client asked for lies too far ahead of this server's head and clock."""


def following(last: int, *, time_us: int, now_us: int, sealed_end: int = 0) -> int:
    """Return the cursor of the next event, above `last`, the newest ever given.

    An event's own time is taken up to five seconds ahead of the clock; an event that comes late
    goes behind everything already written, and none goes into an hour that was sealed.
    """
    return max(min(time_us, now_us + AHEAD_OF_CLOCK_US), last + 1, sealed_end, LEAST)


def parse(text: str, *, now_us: int) -> int:
    """Read a client's cursor: 0, 16 digits, `-15m`, or an RFC 3339 time with a zone.

    A time means "at or after", so it becomes the cursor before it.

    Raises:
        BadCursor: with the forms that are accepted.
    """
    if text == "0":
        return 0
    if _NUMBER.fullmatch(text) and int(text) < LIMIT:
        return int(text)
    if ago := _AGO.fullmatch(text):
        return max(now_us - int(ago[1]) * _UNIT_S[ago[2]] * SECOND_US, 1)
    if time := _TIME.fullmatch(text):
        return max(_microseconds(time) - 1, 1)
    raise BadCursor(
        "cursor is 0, a cursor of 16 digits, a time before now such as -30s, -15m, -2h or -7d, "
        "or an RFC 3339 time with a zone such as 2026-11-20T08:00:00Z"
    )


def position(asked: int | None, *, head: int, now_us: int) -> int:
    """Return where a client begins: after `asked`, or at the head where it asked for nothing.

    Raises:
        FutureCursor: more than a minute above both the head and the clock.
    """
    if asked is None:
        return head
    if asked > max(head, now_us) + FUTURE_US:
        raise FutureCursor(
            f"cursor {asked} is in the future: the head is {head}, the clock {now_us}; "
            "another server's cursor, or this one lost its log"
        )
    return min(asked, head)


def hour_name(cursor: int) -> str:
    """Return the UTC hour that a cursor belongs to, as `2026-11-20T08`."""
    return (_EPOCH + timedelta(microseconds=cursor)).strftime("%Y-%m-%dT%H")


def hour_start(name: str) -> int:
    """Return the first microsecond of an hour named as by hour_name."""
    start = datetime.strptime(name, "%Y-%m-%dT%H").replace(tzinfo=UTC)
    return (start - _EPOCH) // timedelta(microseconds=1)


def _microseconds(time: re.Match[str]) -> int:
    date_time, fraction, zone = time.groups()
    zone = "+00:00" if zone in "Zz" else zone.replace(" ", "+")
    try:
        whole = datetime.fromisoformat(date_time.upper() + zone)
    except ValueError as error:
        raise BadCursor(f"cursor: {error}") from None
    return (whole - _EPOCH) // timedelta(microseconds=1) + int((fraction or "0").ljust(6, "0")[:6])
