"""What the archive's objects are called. Pure.

`dt=2026-11-20/hour=08/FIRST-LAST.jsonl.zst`: Hive partitions, then the first and the last cursor,
16 digits each, so that a listing alone tells what every object covers. In the folders `sealed` and
`verified` of the data folder an object bears the last part of that name.
"""

import re
from typing import Final

import msgspec

from turbod.cursor import HOUR_US, LEAST, LIMIT, hour_name

IDENTITY_KEY: Final = "turbod.json"

_FILE = re.compile(r"([1-9][0-9]{15})-([1-9][0-9]{15})\.jsonl\.zst", re.ASCII)


class Name(msgspec.Struct, frozen=True, order=True):
    """An object's name: the cursors of its first and its last record, of one UTC hour."""

    first: int
    last: int

    @property
    def hour(self) -> int:
        """The first microsecond of its hour."""
        return self.first - self.first % HOUR_US

    @property
    def end(self) -> int:
        """The first microsecond after its hour."""
        return self.hour + HOUR_US

    @property
    def file(self) -> str:
        """The name without its partitions."""
        return f"{self.first}-{self.last}.jsonl.zst"

    @property
    def key(self) -> str:
        """The name in a store, below the archive's prefix."""
        return partition(self.hour) + self.file


def partition(hour: int) -> str:
    """Return the folder of an hour: `dt=2026-11-20/hour=08/`."""
    day, _, hour_of_day = hour_name(hour).partition("T")
    return f"dt={day}/hour={hour_of_day}/"


def parse_file(name: str) -> Name | None:
    """Return the name that a file in `sealed` or `verified` has; None where it is none of ours."""
    match = _FILE.fullmatch(name)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    same_hour = first // HOUR_US == last // HOUR_US
    return Name(first, last) if LEAST <= first <= last < LIMIT and same_hour else None


def parse_key(key: str) -> Name | None:
    """Return the name behind a key below the prefix; None where it is no object of an archive."""
    name = parse_file(key.rpartition("/")[2])
    return name if name is not None and name.key == key else None
