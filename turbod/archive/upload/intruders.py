"""Which objects in the store somebody else put there while we did. Pure."""

from collections.abc import Callable, Collection, Iterable

from turbod.archive.format.names import Name
from turbod.cursor import HOUR_US


class Intruders:
    """Tells objects of a second writer from our own, from the newest hour that we stored on.

    `is_here` tells whether this machine has an object of that size.

    What the first listing has is taken for ours: from a former life of this machine, or of the one
    whose place it took. Later on only we may add hours at the end.
    """

    def __init__(self, *, is_here: Callable[[Name, int], bool]) -> None:
        self._is_here = is_here
        self._known: set[Name] | None = None
        self._since = 0

    @property
    def since(self) -> int:
        """The hour from which on they are looked for."""
        return self._since

    def first(self, names: Collection[Name]) -> None:
        """Take the first listing."""
        newest = max((name.first for name in names), default=0)
        self._since = newest - newest % HOUR_US
        self._known = {name for name in names if name.first >= self._since}

    def ours(self, name: Name) -> None:
        """Note an object that we are about to put there."""
        assert self._known is not None, "nothing is stored before the store was listed"
        self._since = max(self._since, name.hour)
        self._known = {known for known in (*self._known, name) if known.hour >= self._since}

    def among(self, objects: Iterable[tuple[Name, int]]) -> list[Name]:
        """Return those of a later listing that are not ours: neither noted, nor of a file here."""
        assert self._known is not None, "the first listing comes first"
        newest = {each for each in objects if each[0].first >= self._since}
        unknown = (each for each in newest if each[0] not in self._known)
        return sorted(name for name, size in unknown if not self._is_here(name, size))
