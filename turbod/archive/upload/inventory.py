"""What the store has, as its listings and our own doings tell."""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.archive.catalogue import Catalogue
from turbod.archive.format.names import IDENTITY_KEY, Name, parse_key, partition
from turbod.archive.stores.store import Listed, Store, StoreFault
from turbod.archive.upload.intruders import Intruders
from turbod.cursor import HOUR_US

_AT_ONCE: Final = 200  # entries of a listing between two turns of the loop, some 1 ms
_NAMED: Final = 5  # foreign objects and intruders that one line of the log names

log = structlog.get_logger()


class Seen(msgspec.Struct):
    """A listing, sorted out."""

    objects: list[tuple[Name, int]]
    foreign: list[str]
    identity: Listed | None = None


class Inventory:
    """Keeps the catalogue true to the store, one listing at a time.

    Attributes:
        stored_bytes: the size of all objects in the store.
        doubled: how many of them, as last listed, lie in an hour that has another one.
        foreign: what lies under the prefix and is neither an object nor `turbod.json`.
        identity: `turbod.json`, as last listed.
        intruders: objects of a second writer, as last listed.
    """

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self.stored_bytes = self.doubled = self.foreign = 0
        self.identity: Listed | None = None
        self.intruders: list[Name] = []
        self._store = store
        self._catalogue = catalogue
        self._sizes: dict[Name, int] = {}
        self._guard = Intruders(is_here=self._is_here)
        self._one_at_a_time = trio.Lock()
        self._begun = self._ended = 0
        self._fault: StoreFault | None = None
        # What was done while a listing was under way, which may have passed it already.
        self._meanwhile: list[Callable[[], None]] = []
        self._foreign_told: tuple[str, ...] = ()

    @property
    def stored_hours(self) -> int:
        """How many objects are in the store."""
        return len(self._sizes)

    async def refresh(self) -> None:
        """List the whole store; who asks while others wait shares a listing begun later.

        Raises:
            StoreFault: it could not be listed.
        """
        asked = self._begun
        async with heartbeat.holding(self._one_at_a_time):
            if self._ended <= asked:
                await self._list()
            if self._fault is not None:
                raise type(self._fault)(str(self._fault))

    async def look(self, name: Name) -> list[Listed]:
        """List what the store has from an object's hour on; return what is in that hour.

        Raises:
            StoreFault: it could not be listed.
        """
        hour = min(name.hour, self._guard.since or name.hour)
        listed = await self._store.list(after=partition(hour))
        seen = await _sorted_out(listed)
        self._take(seen)
        own = partition(name.hour)
        return [each for each in listed if each.key.startswith(own)]

    def objects_in(self, hours: Collection[int]) -> list[tuple[Name, int]]:
        """Return what the store has in these hours, with sizes."""
        return [each for each in self._sizes.items() if each[0].hour in hours] if hours else []

    def storing(self, name: Name) -> None:
        """Note that an object is about to be put there."""
        self._guard.ours(name)

    def stored(self, name: Name, size: int) -> None:
        """Note that it is there."""
        self._do(lambda: self._add(name, size))

    def removed(self, name: Name) -> None:
        """Note that it is there no longer."""
        self._do(lambda: self._remove(name))

    async def _list(self) -> None:
        self._begun += 1
        number, self._meanwhile = self._begun, []
        try:
            seen = await _sorted_out(await self._store.list())
        except StoreFault as fault:
            self._fault = fault
        else:
            self._fault = None
            await self._replace(seen)
        self._ended = number

    async def _replace(self, seen: Seen) -> None:
        """Take a whole listing in place of what was known; others have a turn meanwhile."""
        self._sizes = dict(seen.objects)
        self.stored_bytes = sum(self._sizes.values())
        self.doubled = len(self._sizes) - len({name.first // HOUR_US for name in self._sizes})
        await trio.lowlevel.checkpoint()
        if not self._catalogue.is_listed:
            self._guard.first(self._sizes)
        for _ in self._catalogue.listing(seen.objects):
            await trio.lowlevel.checkpoint()
        for change in self._meanwhile:
            change()
        self._take(seen)
        self._tell_foreign(seen.foreign)

    def _take(self, seen: Seen) -> None:
        self.identity = seen.identity
        self.intruders = self._guard.among(seen.objects)

    def _add(self, name: Name, size: int) -> None:
        self.stored_bytes += size - self._sizes.get(name, 0)
        self._sizes[name] = size
        self._catalogue.add_stored(name, size)

    def _remove(self, name: Name) -> None:
        self.stored_bytes -= self._sizes.pop(name, 0)
        self._catalogue.remove_stored(name)

    def _do(self, change: Callable[[], None]) -> None:
        change()
        if self._one_at_a_time.locked():
            self._meanwhile.append(change)

    def _is_here(self, name: Name, size: int) -> bool:
        return any((held.name, held.size) == (name, size) for held in self._catalogue.local())

    def _tell_foreign(self, keys: Sequence[str]) -> None:
        self.foreign = len(keys)
        named = tuple(keys[:_NAMED])
        if named and named != self._foreign_told:
            log.warning("archive_foreign", archive=self._store.url, count=len(keys), objects=named)
        self._foreign_told = named


async def _sorted_out(listed: Sequence[Listed]) -> Seen:
    seen = Seen([], [])
    for number, each in enumerate(listed):
        if number % _AT_ONCE == 0:
            heartbeat.beat()
            await trio.lowlevel.checkpoint()
        if each.key == IDENTITY_KEY:
            seen.identity = each
        elif (name := parse_key(each.key)) is not None:
            seen.objects.append((name, each.size))
        else:
            seen.foreign.append(each.key)
    return seen
