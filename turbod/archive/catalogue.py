"""Which objects there are, and where each lies: on this disk, in the store, in both. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from turbod.archive.format.names import Name

LISTED_AT_ONCE: Final = 100  # names between two steps of `listing`, some 1 ms


class Held(msgspec.Struct, frozen=True, order=True):
    """One object.

    Attributes:
        size: its bytes.
        path: its file in `sealed` or `verified`, or None where it is only in the store.
        is_stored: whether it is in the store.
    """

    name: Name
    size: int
    path: Path | None
    is_stored: bool


class Conflict(msgspec.Struct, frozen=True):
    """Two different objects of one hour, of which one is read. Both are kept."""

    served: Held
    other: Held


class Catalogue:
    """All objects, of which one an hour is read: what is in the store before what is not.

    Walking it, and looking into it by cursor, gives those that are read, in order.

    Attributes:
        is_listed: whether the store's whole listing has been had once.
    """

    def __init__(self) -> None:
        self.is_listed = False
        self._local: dict[Name, Held] = {}
        self._stored: dict[Name, int] = {}
        self._names: dict[int, set[Name]] = {}
        # One each for every hour, in order.
        self._hours: list[int] = []
        self._lasts: list[int] = []
        self._served: list[Held] = []

    def __len__(self) -> int:
        """Return how many hours have an object."""
        return len(self._served)

    def __iter__(self) -> Iterator[Held]:
        """Walk the objects that are read, in order."""
        return iter(self._served)

    @property
    def floor(self) -> int:
        """The cursor before the first of the oldest object; 0 where there is none."""
        return self._served[0].name.first - 1 if self._served else 0

    @property
    def last(self) -> int:
        """The newest cursor in any object, 0 where there is none."""
        return max(name.last for name in self._names[self._hours[-1]]) if self._hours else 0

    @property
    def end(self) -> int:
        """The end of the newest hour that has an object, 0 where there is none."""
        return self._served[-1].name.end if self._served else 0

    @property
    def conflicts(self) -> list[Conflict]:
        """All hours that have more than one object."""
        return [
            Conflict(served, other)
            for hour, served in zip(self._hours, self._served, strict=True)
            for other in self._others(hour, served)
        ]

    def since(self, hour: int) -> list[Held]:
        """Return the objects that are read of an hour and all later ones, newest first."""
        return self._served[bisect_left(self._hours, hour) :][::-1]

    def is_in_conflict(self, held: Held) -> bool:
        """Tell whether there is another object of its hour."""
        return bool(self._others(held.name.hour, held))

    def find(self, name: Name) -> Held | None:
        """Return the object of this name, where it is the one that is read of its hour."""
        held = self.after(name.last - 1)
        return held if held is not None and held.name == name else None

    def after(self, cursor: int) -> Held | None:
        """Return the first object that reaches above a cursor."""
        index = bisect_right(self._lasts, cursor)
        return self._served[index] if index < len(self._served) else None

    def before(self, cursor: int) -> Held | None:
        """Return the last object that ends below a cursor."""
        index = bisect_left(self._lasts, cursor)
        return self._served[index - 1] if index else None

    def local(self) -> list[Held]:
        """Return what has a file on this disk, in order."""
        return sorted(self._local_as_held(name) for name in self._local)

    def stored(self) -> list[Held]:
        """Return what is in the store, in order."""
        return sorted(self._stored_as_held(name) for name in self._stored)

    def add_local(self, name: Name, size: int, path: Path) -> None:
        """Note a file, or that it lies elsewhere now."""
        self._local[name] = Held(name, size, path, is_stored=False)
        self._update(name)

    def add_stored(self, name: Name, size: int) -> None:
        """Note an object in the store."""
        self._stored[name] = size
        self._update(name)

    def remove_local(self, name: Name) -> None:
        """Note that its file is gone."""
        self._local.pop(name, None)
        self._update(name)

    def remove_stored(self, name: Name) -> None:
        """Note that it is gone from the store."""
        self._stored.pop(name, None)
        self._update(name)

    def listed(self, objects: Iterable[tuple[Name, int]]) -> None:
        """Take the store's whole listing in place of what was known of it.

        What was stored while it was being listed must be in it, or be added again behind it.
        """
        for _ in self.listing(objects):
            pass

    def listing(self, objects: Iterable[tuple[Name, int]]) -> Iterator[None]:
        """Take the store's whole listing as `listed` does, a piece at every step.

        Between two steps, and where it is not gone on with, some hours are as they were before.
        """
        new, stored = dict(objects), self._stored
        for number, name in enumerate([*new, *(stored.keys() - new.keys())]):
            if number % LISTED_AT_ONCE == 0:
                yield
            if name not in new:
                self.remove_stored(name)
            elif stored.get(name) != new[name]:
                self.add_stored(name, new[name])
        self.is_listed = True

    def _update(self, name: Name) -> None:
        """Choose anew what is read of an hour."""
        hour = name.hour
        known = {*self._names.pop(hour, ()), name}
        names = {each for each in known if each in self._local or each in self._stored}
        if names:
            self._names[hour] = names
        index = bisect_left(self._hours, hour)
        is_known = index < len(self._hours) and self._hours[index] == hour
        old, new = slice(index, index + is_known), [self._best(names)] if names else []
        self._hours[old] = [hour] * len(new)
        self._lasts[old] = [held.name.last for held in new]
        self._served[old] = new

    def _best(self, names: set[Name]) -> Held:
        best = max(names, key=lambda name: (name in self._stored, name.last - name.first, name))
        return self._stored_as_held(best) if best in self._stored else self._local_as_held(best)

    def _others(self, hour: int, served: Held) -> list[Held]:
        """Return the objects of an hour that are not read, one of the same name included."""
        local = [self._local_as_held(name) for name in self._names[hour] if name in self._local]
        stored = [self._stored_as_held(name) for name in self._names[hour] if name in self._stored]
        return sorted({*local, *stored} - {served})

    def _stored_as_held(self, name: Name) -> Held:
        size, local = self._stored[name], self._local.get(name)
        # A file of another size is another object, though it bears the name.
        return Held(name, size, local.path if local and local.size == size else None, True)

    def _local_as_held(self, name: Name) -> Held:
        local = self._local[name]
        is_stored = self._stored.get(name) == local.size
        return msgspec.structs.replace(local, is_stored=is_stored)
