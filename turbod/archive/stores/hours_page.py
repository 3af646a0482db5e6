"""What /archive of a running turbod says: the server writes it, whoever fetches reads it. Pure."""

from typing import Final

import msgspec

from turbod.archive.format.index import FORMAT, Index
from turbod.archive.format.names import Name, parse_key
from turbod.cursor import hour_name
from turbod.eventlog.chunk import Gap

MAX_HOURS: Final = 1000  # on one page


class Foreign(ValueError):
    """What was fetched is no such page, or none that this turbod reads."""


class ListedHour(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One object of the store.

    Attributes:
        name: its key below the archive's prefix.
        hour: `2026-11-20T08`, UTC.
        first: its first record's cursor.
        last: its last record's cursor.
        size: its bytes.
        url: where it is to be had, a path on the same server.
        damaged: its index cannot be read, so nothing more is known of it.
    """

    name: str
    hour: str
    first: int
    last: int
    size: int
    url: str
    damaged: bool = False


class HourDetails(ListedHour, frozen=True, kw_only=True, rename="camel"):
    """One object of the store, and what its index says of it.

    Attributes:
        previous: the cursor before the first, 0 where there never was one: a hole shows by it.
        raw_bytes: all lines, each with its line break.
        sha256: of those, in hexadecimal.
        collections: how many records of each; `#identity` and `#account` for such events.
        gaps: those that stand before records in here.
    """

    previous: int
    records: int
    raw_bytes: int
    sha256: str
    collections: dict[str, int]
    gaps: list[Gap]


def listed_hour(name: Name, size: int, *, below: str) -> ListedHour:
    """Return what an object's name tells; its URL begins with `below`."""
    return ListedHour(
        name=name.key,
        hour=hour_name(name.hour),
        first=name.first,
        last=name.last,
        size=size,
        url=f"{below}/{name.key}",
    )


def with_details(hour: ListedHour, index: Index) -> HourDetails:
    """Return what its index tells as well."""
    return HourDetails(
        **msgspec.structs.asdict(hour),
        previous=index.previous,
        records=index.records,
        raw_bytes=index.raw_bytes,
        sha256=index.sha256,
        collections=index.collections,
        gaps=index.gaps,
    )


class HoursPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Some hours in order, each a ListedHour or HourDetails as JSON.

    Attributes:
        instance: who writes the cursors.
        format: of the objects; where one has OTHERS among its collections, its index tells its own.
        floor: nothing up to here is in the archive.
        archived_until: the newest cursor in the store.
        cursor: where to go on; absent at the end.
    """

    instance: str
    format: int
    floor: int
    archived_until: int
    hours: list[msgspec.Raw]
    cursor: int | None = None


def read(data: bytes, *, above: int) -> HoursPage:
    """Read the page that was asked for with a cursor.

    Raises:
        Foreign: with what is wrong.
    """
    try:
        page = msgspec.json.decode(data, type=HoursPage)
    except (ValueError, RecursionError) as error:
        raise Foreign(str(error)) from None
    if page.format > FORMAT:
        raise Foreign(f"it has objects of format {page.format}: update turbod")
    if page.cursor is not None and page.cursor <= above:
        raise Foreign(f"behind the cursor {above} it goes on with {page.cursor}")
    return page


def read_hours(page: HoursPage, *, above: int) -> list[ListedHour]:
    """Read a page's entries, each as HourDetails unless it is damaged.

    Raises:
        Foreign: with what is wrong.
    """
    hours: list[ListedHour] = []
    for raw in page.hours:
        hour = _read_hour(raw)
        if parse_key(hour.name) != Name(hour.first, hour.last) or hour.last <= above:
            raise Foreign(f"{hour.name} has no place there")
        above = hour.last
        hours.append(hour)
    return hours


def _read_hour(raw: msgspec.Raw) -> ListedHour:
    try:
        hour = msgspec.json.decode(raw, type=ListedHour)
        return hour if hour.damaged else msgspec.json.decode(raw, type=HourDetails)
    except (ValueError, RecursionError) as error:
        raise Foreign(str(error)) from None
