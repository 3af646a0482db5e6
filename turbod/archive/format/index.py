"""The index at the end of each object: what is in it, frame by frame. Pure."""

from collections import Counter
from typing import Final

import msgspec

from turbod.archive.format.did_filter import DidFilter
from turbod.eventlog.chunk import Gap
from turbod.record import Head

FORMAT: Final = 1
OTHERS_FORMAT: Final = (
    2  # of an index with OTHERS in it, by which older readers would skip too much
)
OTHERS: Final = "*"  # what stands among the collections for all that are not named
MAX_NAMED: Final = 500  # collections that are named, of a frame and of the hour
IDENTITY_EVENTS: Final = "#identity"  # what stands among the collections for events that have none
ACCOUNT_EVENTS: Final = "#account"


class Frame(msgspec.Struct, frozen=True):
    """One zstd frame: whole lines, readable by itself.

    Attributes:
        offset: where it begins in the object.
        size: how many bytes of the object it is.
        sha256: of those, in hexadecimal.
        raw_bytes: its lines, each with its line break.
        first: the first record's cursor.
        last: the last record's cursor.
        collections: of its commits, sorted; `#identity` and `#account` for such events; OTHERS
            where there are more.
        dids: whom its events come from or are about.
    """

    offset: int
    size: int
    sha256: str
    raw_bytes: int
    records: int
    first: int
    last: int
    collections: list[str]
    dids: DidFilter

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.size


class Index(msgspec.Struct, frozen=True):
    """What an object says of itself.

    A later version may add keys; readers pass over those that they do not know. In the object one
    more key stands at the end, the checksum of all before it (hour_object).

    Attributes:
        format: FORMAT or OTHERS_FORMAT; a reader refuses a higher one.
        instance: who wrote the cursors.
        hour: `2026-11-20T08`, UTC.
        previous: the cursor before the first, 0 where there never was one: a hole shows by it.
        raw_bytes: all lines, each with its line break.
        sha256: of all lines, in hexadecimal.
        collections: how many records of each; `#identity` and `#account` for such events; of
            OTHERS, how many are of none that is named.
        frames: in order; together they are all lines.
        gaps: those that stand before records in here, in order; the first may begin in an earlier
            hour. One behind the last record ends with the hour: its `before` is no record's.
        upstreams: the hosts that the writer was reading when it sealed the hour.
        turbod: the version that sealed it.
    """

    format: int
    instance: str
    hour: str
    first: int
    last: int
    previous: int
    records: int
    raw_bytes: int
    sha256: str
    collections: dict[str, int]
    frames: list[Frame]
    gaps: list[Gap]
    upstreams: list[str]
    turbod: str


def collection_of(head: Head) -> str:
    """Return the collection that an index counts a record under."""
    return head.collection or f"#{head.kind}"


def named(collections: Counter[str]) -> list[str]:
    """Return the most frequent, sorted, and OTHERS where these are not all."""
    names = [name for name, _ in collections.most_common(MAX_NAMED)]
    return sorted(names + [OTHERS] * (len(collections) > MAX_NAMED))


def count_named(known: Counter[str], more: Counter[str]) -> None:
    """Count more; what is not known yet and is too much to be named counts as OTHERS."""
    for name, count in more.most_common():
        known[name if name in known or len(known) < MAX_NAMED else OTHERS] += count
