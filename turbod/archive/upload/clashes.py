"""Hours in conflict with the store: they wait for an operator, and the next ones go on."""

from collections.abc import Sequence

import msgspec
import trio

from turbod.archive.format.names import Name, parse_key
from turbod.archive.local import Local
from turbod.archive.stores.store import Listed
from turbod.archive.upload.inventory import Inventory


class _Clash(msgspec.Struct, frozen=True):
    """Why, and what the store had in the hour then."""

    reason: str
    there: frozenset[tuple[Name, int]]


class Clashes:
    """Remembers them until something about them changes."""

    def __init__(self, local: Local, inventory: Inventory) -> None:
        self._local = local
        self._inventory = inventory
        self._clashes: dict[Name, _Clash] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._clashes)

    def __contains__(self, name: Name) -> bool:
        """Tell whether an object is in conflict."""
        return name in self._clashes

    @property
    def reasons(self) -> list[str]:
        """Why, one line each, oldest first."""
        return [clash.reason for clash in self._clashes.values()]

    def add(self, name: Name, *, reason: str, there: Sequence[Listed]) -> None:
        """Note an object; `there` is what the store listed in its hour."""
        self._clashes[name] = _Clash(reason, objects_in(there))

    async def settle(self) -> None:
        """Forget those of which the store has something else by now, or that are gone here."""
        hours = {name.hour for name in self._clashes}
        there = self._inventory.objects_in(hours)
        for name, clash in list(self._clashes.items()):
            if not await trio.Path(self._local.sealed_folder / name.file).exists():
                await self._local.drop(name)
            elif clash.there == {each for each in there if each[0].hour == name.hour}:
                continue
            self._clashes.pop(name, None)


def objects_in(listed: Sequence[Listed]) -> frozenset[tuple[Name, int]]:
    """Return the objects in a listing, with sizes."""
    return frozenset((name, each.size) for each in listed if (name := parse_key(each.key)))
