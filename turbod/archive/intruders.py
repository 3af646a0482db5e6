"""Which objects in the store somebody else put there while we did. Pure."""

from collections.abc import Callable, Iterable

from turbod.archive.names import Name


class Intruders:
    """Tells objects of a second writer from our own, from the newest hour that we stored on.

    What the first listing has is taken for ours: from a former life of this machine, or of the one
    whose place it took. Later on only we may add hours at the end.
    """

    def __init__(self, *, is_here: Callable[[Name], bool]) -> None:
        self._is_here = is_here
        self._known: set[Name] | None = None
        self._since = 0

    @property
    def since(self) -> int:
        """The hour from which on they are looked for."""
        return self._since

    def first(self, names: Iterable[Name]) -> None:
        """Take the first listing."""
        known = set(names)
        self._since = max((name.hour for name in known), default=0)
        self._known = {name for name in known if name.hour >= self._since}

    def ours(self, name: Name) -> None:
        """Note an object that we are about to put there."""
        assert self._known is not None, "nothing is stored before the store was listed"
        self._since = max(self._since, name.hour)
        self._known = {known for known in (*self._known, name) if known.hour >= self._since}

    def among(self, names: Iterable[Name]) -> list[Name]:
        """Return those of a later listing that are not ours."""
        assert self._known is not None, "the first listing comes first"
        unknown = {name for name in names if name.hour >= self._since} - self._known
        return sorted(name for name in unknown if not self._is_here(name))
