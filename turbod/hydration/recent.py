"""The posts just seen on the stream, for views that the AppView does not have yet."""

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from turbod.event import POST, parse
from turbod.hydration.views import build_post

FRESH_SECONDS: Final = 60.0
MAX_POSTS: Final = 6_000  # a minute at 100 a second; the whole network writes about 50
MAX_BYTES: Final = 32 * 1024 * 1024
_TID_DIGITS: Final = "234567abcdefghijklmnopqrstuvwxyz"
_TID_LENGTH: Final = 13
_CLOCK_ID_BITS: Final = 10


def tid_us(rkey: str) -> int | None:
    """Return the time in a TID, microseconds since the epoch, or None where it is no TID.

    atproto's specs/tid: 13 characters of sortable base 32; the last 10 bits are a clock's number.
    """
    if len(rkey) != _TID_LENGTH or rkey[0] not in "234567abcdefghij":
        return None
    number = 0
    for character in rkey:
        digit = _TID_DIGITS.find(character)
        if digit < 0:
            return None
        number = number << 5 | digit
    return number >> _CLOCK_ID_BITS


class RecentPosts:
    """Posts written within the last minute, bounded in number and bytes, the oldest dropped.

    Attributes:
        bytes: of all of them.
    """

    def __init__(
        self, *, now_us: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._now_us = now_us
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._seen)

    def add(self, uri: str, message: bytes) -> None:
        """Remember a post as it was just written; its bytes only, since few are ever asked for."""
        if uri in self._seen:
            self.remove(uri)
        self._seen[uri] = (self._clock(), message)
        self.bytes += len(message)
        while len(self._seen) > MAX_POSTS or self.bytes > MAX_BYTES:
            _, (_, dropped) = self._seen.popitem(last=False)
            self.bytes -= len(dropped)

    def remove(self, uri: str) -> None:
        """Forget a post, such as one that was deleted."""
        seen = self._seen.pop(uri, None)
        if seen is not None:
            self.bytes -= len(seen[1])

    def expire(self) -> None:
        """Forget what was seen more than a minute ago."""
        least = self._clock() - FRESH_SECONDS
        while self._seen:
            uri = next(iter(self._seen))
            if self._seen[uri][0] >= least:
                break
            self.remove(uri)

    def has(self, uri: str) -> bool:
        """Tell whether a post was seen within the last minute."""
        seen = self._seen.get(uri)
        return seen is not None and self._clock() - seen[0] <= FRESH_SECONDS

    def is_fresh(self, key: str) -> bool:
        """Tell whether a key is a post so young that the AppView may not have it yet."""
        parts = key.removeprefix("at://").split("/")
        made_us = tid_us(parts[2]) if parts[1:2] == [POST] else None
        return made_us is not None and abs(self._now_us() - made_us) <= FRESH_SECONDS * 1_000_000

    def build(self, uri: str, author: bytes) -> bytes | None:
        """Build a post's view from its event and its author's profile, or None."""
        if not self.has(uri):
            return None
        indexed = datetime.fromtimestamp(self._now_us() / 1_000_000, UTC)
        stamp = indexed.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return build_post(parse(self._seen[uri][1]), author, stamp)
