"""What /archive says of each object, read from its index once."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Final

import msgspec
import trio

from turbod.archive.catalogue import Held
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.index import Index
from turbod.archive.format.names import Name
from turbod.archive.stores.hours_page import ListedHour, listed_hour, with_details
from turbod.archive.stores.store import NotThere, StoreFault

ARCHIVE: Final = "/archive"
INDEX_SECONDS: Final = 60.0
KEPT_BYTES: Final = 16 * 1024 * 1024  # some 20,000 hours

Summary = Callable[[Held], Awaitable[Index]]


class Entries:
    """What the listing says of each object, as JSON: kept, since no object ever changes."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._kept: OrderedDict[Name, msgspec.Raw] = OrderedDict()
        self._bytes = 0
        self._reading = trio.Lock()  # who comes second finds what the first has read

    async def of(self, some: Sequence[Held]) -> list[msgspec.Raw]:
        """Return their entries up to the first of which nothing can be known now."""
        async with self._reading:
            found: dict[Name, msgspec.Raw] = {}
            async with trio.open_nursery() as nursery:
                for held in some:
                    nursery.start_soon(self._find, held, found)
        known = takewhile(lambda held: held.name in found, some)
        return [found[held.name] for held in known]

    async def _find(self, held: Held, found: dict[Name, msgspec.Raw]) -> None:
        if (kept := self._kept.get(held.name)) is not None:
            self._kept.move_to_end(held.name)
            found[held.name] = kept
            return
        try:
            with trio.fail_after(INDEX_SECONDS):
                index = await self._summary(held)
        except (Damaged, NotThere):
            found[held.name] = _raw(msgspec.structs.replace(_told_by_name(held), damaged=True))
        except (StoreFault, trio.TooSlowError):
            pass  # it is not among what was found
        else:
            found[held.name] = entry = _raw(with_details(_told_by_name(held), index))
            self._keep(held.name, entry)

    def _keep(self, name: Name, entry: msgspec.Raw) -> None:
        self._kept[name] = entry
        self._bytes += len(entry)
        while self._bytes > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)


def _told_by_name(held: Held) -> ListedHour:
    return listed_hour(held.name, held.size, below=ARCHIVE)


def _raw(hour: ListedHour) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(hour))
