"""What a server's archive has above a position, as long as that is old enough to lie in objects."""

import time
from typing import Final

from turbod.archive.format.names import Name, parse_key
from turbod.archive.stores.store import Listed
from turbod.archive.stores.web import WebSource
from turbod.cursor import HOUR_US, LEAST

OLD_US: Final = HOUR_US  # what is younger is in no object, or soon read otherwise


class Since:
    """An archive of which only what lies above a cursor is listed.

    Attributes:
        head: the newest cursor in the listing; 0 where nothing was listed.
    """

    def __init__(self, source: WebSource, after: int) -> None:
        self._source = source
        self._after = after
        self.head = 0

    @property
    def url(self) -> str:
        """Where it is, for people."""
        return self._source.url

    async def list(self, *, after: str = "") -> list[Listed]:
        """List what has records above the cursor. Raises as WebSource."""
        if self._after >= LEAST + HOUR_US:
            hour = self._after - self._after % HOUR_US
            after = max(after, Name(hour, self._after).key)
        listed = await self._source.list(after=after)
        names = [name for name in (parse_key(one.key) for one in listed) if name is not None]
        self.head = names[-1].last if names else 0
        return listed

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        """Read an object. Raises as WebSource."""
        return await self._source.read(key, offset=offset, size=size)


def is_old(cursor: int) -> bool:
    """Tell whether what comes next may lie in an archive."""
    return cursor < time.time_ns() // 1000 - OLD_US
