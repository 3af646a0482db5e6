"""What /archive says of each object, read from its index once."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Any, Final

import msgspec
import trio

from turbod.archive.catalogue import Held
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.index import Index
from turbod.archive.format.names import Name
from turbod.archive.stores.hours_page import HourDetails, ListedHour
from turbod.archive.stores.store import NotThere, StoreFault
from turbod.cursor import hour_name

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
            found[held.name] = _raw(ListedHour(**_what_its_name_tells(held), damaged=True))
        except (StoreFault, trio.TooSlowError):
            pass  # it is not among what was found
        else:
            found[held.name] = entry = _raw(_details(held, index))
            self._keep(held.name, entry)

    def _keep(self, name: Name, entry: msgspec.Raw) -> None:
        self._kept[name] = entry
        self._bytes += len(entry)
        while self._bytes > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)


def _what_its_name_tells(held: Held) -> dict[str, Any]:
    return {
        "name": held.name.key,
        "hour": hour_name(held.name.hour),
        "first": held.name.first,
        "last": held.name.last,
        "size": held.size,
        "url": f"{ARCHIVE}/{held.name.key}",
    }


def _details(held: Held, index: Index) -> HourDetails:
    return HourDetails(
        **_what_its_name_tells(held),
        previous=index.previous,
        records=index.records,
        raw_bytes=index.raw_bytes,
        sha256=index.sha256,
        collections=index.collections,
        gaps=index.gaps,
    )


def _raw(hour: ListedHour) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(hour))
