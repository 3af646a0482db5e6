"""Every hour of the last weeks: where it lies, and whether something of it is missing. Pure."""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Final, Literal

import msgspec

from turbod.archive.catalogue import Held
from turbod.archive.format.names import Name
from turbod.cursor import HOUR_US, hour_name
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hours import PlainHour

HOURS: Final = 42 * 24  # that are shown
MAX_GAPS: Final = 20  # of one hour

# `plain` is in the log's own file; `waiting` is sealed, and nowhere but on this disk; `verified` is
# in the archive; `missing` was there once; `damaged` cannot be read.
State = Literal["plain", "waiting", "verified", "missing", "damaged", "conflict"]


class Contents(msgspec.Struct, frozen=True):
    """What the index of an object says.

    Attributes:
        previous: the cursor before its first record, 0 where there was none.
    """

    records: int
    previous: int
    gaps: Sequence[Gap]


class Hour(msgspec.Struct, frozen=True, omit_defaults=True):
    """One hour.

    Attributes:
        hour: `2026-11-20T08`, UTC.
        is_here: whether it lies on this disk.
        size: in bytes, as it lies.
        records: where that is known.
        gaps: what may be missing in it or, where it is nowhere, around it.
    """

    hour: str
    state: State
    is_here: bool = False
    size: int = 0
    records: int | None = None
    gaps: Sequence[Gap] = ()


def shown_since(now_us: int) -> int:
    """Return the first hour that is shown."""
    return now_us - now_us % HOUR_US - (HOURS - 1) * HOUR_US


def hours(
    objects: Sequence[Held],
    plain: Sequence[PlainHour],
    contents: Mapping[Name, Contents | None],
    *,
    conflicts: Container[int],
    now_us: int,
) -> list[Hour]:
    """Return the hours of which there is something to say, newest first.

    Args:
        objects: of the hours that are shown, newest first.
        plain: hours in the log's own files; one that is an object too is passed over.
        contents: what is known of objects; None for one that cannot be read.
        conflicts: hours of which there are two different objects.
        now_us: our clock.
    """
    shown = {held.name.hour: _sealed(held, contents, conflicts) for held in objects}
    for hour in plain:
        shown.setdefault(hour.hour, _plain(hour))
    since = shown_since(now_us)
    gaps = [gap for hour in shown.values() for gap in hour.gaps]
    wide = [gap for gap in gaps if gap.after < gap.before - gap.before % HOUR_US]
    for at in _missing(objects, contents, wide, since=since, now_us=now_us):
        if at not in shown:
            within = (gap for gap in wide if gap.after < at + HOUR_US and gap.before > at)
            shown[at] = Hour(hour_name(at), "missing", gaps=list(islice(within, MAX_GAPS)))
    return [shown[at] for at in sorted(shown, reverse=True) if at >= since]


def _sealed(
    held: Held, contents: Mapping[Name, Contents | None], conflicts: Container[int]
) -> Hour:
    known = contents.get(held.name)
    state: State = "verified" if held.is_stored else "waiting"
    if held.name in contents and known is None:
        state = "damaged"
    if held.name.hour in conflicts:
        state = "conflict"
    return Hour(
        hour_name(held.name.hour),
        state,
        is_here=held.path is not None,
        size=held.size,
        records=known.records if known else None,
        gaps=known.gaps[:MAX_GAPS] if known else (),
    )


def _plain(hour: PlainHour) -> Hour:
    name, gaps = hour_name(hour.hour), hour.gaps[:MAX_GAPS]
    return Hour(name, "plain", is_here=True, size=hour.size, gaps=gaps)


def _missing(
    objects: Sequence[Held],
    contents: Mapping[Name, Contents | None],
    gaps: Sequence[Gap],
    *,
    since: int,
    now_us: int,
) -> Iterator[int]:
    """Yield each hour of which there is nothing, once, however many stretches it lies in."""
    for first, last in sorted(_absences(objects, contents, gaps)):
        yield from range(max(first, since), min(last, now_us), HOUR_US)
        since = max(since, last)


def _absences(
    objects: Sequence[Held], contents: Mapping[Name, Contents | None], gaps: Sequence[Gap]
) -> Iterator[tuple[int, int]]:
    """Yield stretches of hours of which there is nothing: from, to."""
    for gap in gaps:
        yield gap.after - gap.after % HOUR_US + HOUR_US, gap.before - gap.before % HOUR_US
    for held, older in pairwise(objects):
        known = contents.get(held.name)
        if known and known.previous > older.name.last:
            yield older.name.end, held.name.hour
