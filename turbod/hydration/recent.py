"""The posts just seen on the stream, for views that the AppView does not have yet. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from turbod.event import POST, Event, parse
from turbod.hydration.views import build_post

FRESH_US: Final = 60_000_000
MAX_POSTS: Final = 20_000  # a minute at 333 a second
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
    """Posts created within the last minute, bounded in number and bytes, the oldest dropped."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._seen: dict[str, tuple[int, bytes]] = {}
        self._bytes = 0

    def add(self, event: Event) -> None:
        """Remember a post that was just created; its bytes only, since few are ever asked for."""
        self.remove(event.at_uri)
        self._seen[event.at_uri] = (self._now_us(), event.message)
        self._bytes += len(event.message)
        while len(self._seen) > MAX_POSTS or self._bytes > MAX_BYTES:
            self.remove(next(iter(self._seen)))

    def remove(self, uri: str) -> None:
        """Forget a post, such as one that was deleted."""
        seen = self._seen.pop(uri, None)
        if seen is not None:
            self._bytes -= len(seen[1])

    def expire(self) -> None:
        """Forget what was seen more than a minute ago, by a clock that may have been set."""
        now_us = self._now_us()
        while self._seen:
            uri = next(iter(self._seen))
            if abs(now_us - self._seen[uri][0]) <= FRESH_US:
                break
            self.remove(uri)

    def has(self, uri: str) -> bool:
        """Tell whether a post was seen within the last minute."""
        seen = self._seen.get(uri)
        return seen is not None and abs(self._now_us() - seen[0]) <= FRESH_US

    def is_fresh(self, key: str) -> bool:
        """Tell whether a key is a post so young that the AppView may not have it yet."""
        parts = key.removeprefix("at://").split("/")
        made_us = tid_us(parts[2]) if parts[1:2] == [POST] else None
        return made_us is not None and abs(self._now_us() - made_us) <= FRESH_US

    def build(self, uri: str, author: bytes) -> bytes | None:
        """Build a post's view from its event and its author's profile, or None."""
        if not self.has(uri):
            return None
        indexed = datetime.fromtimestamp(self._now_us() / 1_000_000, UTC)
        stamp = indexed.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return build_post(parse(self._seen[uri][1]), author, stamp)
