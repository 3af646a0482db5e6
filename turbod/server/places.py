"""Who may read history now: a bounded number at once, the others in the order of asking."""

import trio


class Places:
    """A bounded number of places.

    Attributes:
        taken: how many are given and not left.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: dict[Place, None] = {}
        self.taken = 0

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for a place."""
        return bool(self._waiting)

    def ask(self) -> "Place":
        """Return a place, given at once where one is free. Leave it when done."""
        place = Place(self)
        self._waiting[place] = None
        self._give()
        return place

    def left(self, place: "Place") -> None:
        """Give a place to the next; one that was not given is given up."""
        if place in self._waiting:
            del self._waiting[place]
        else:
            self.taken -= 1
            self._give()

    def _give(self) -> None:
        while self._waiting and self.taken < self._count:
            place = next(iter(self._waiting))
            del self._waiting[place]
            self.taken += 1
            place.given.set()


class Place:
    """One reader's.

    Attributes:
        given: set once it may read.
        is_left: it may read no more.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self.given = trio.Event()
        self.is_left = False

    def leave(self) -> None:
        """Let another have it. Leaving twice is allowed."""
        if not self.is_left:
            self.is_left = True
            self._places.left(self)
