"""Who may read history now: a bounded number at once, the others in the order of asking."""

from typing import Final, Self

import trio

REMEMBERED_SECONDS: Final = 20.0  # whoever was turned away comes again within that


class Places:
    """A bounded number of places.

    Attributes:
        count: how many there are.
        taken: how many are given and not left.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._waiting: dict[Place, None] = {}
        self._refused_at = float("-inf")
        self.taken = 0

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for a place, or was turned away and will come again."""
        was_refused = trio.current_time() < self._refused_at + REMEMBERED_SECONDS
        return was_refused or bool(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether whoever asks now is given a place at once."""
        return self.taken < self.count and not self._waiting

    def resize(self, count: int) -> None:
        """Have another number; who has a place keeps it."""
        self.count = count
        self._give()

    def refuse(self) -> None:
        """Note that somebody was turned away: slow ones give way to who comes again."""
        self._refused_at = trio.current_time()

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
        while self._waiting and self.taken < self.count:
            place = next(iter(self._waiting))
            del self._waiting[place]
            self.taken += 1
            place.given.set()


class Place:
    """One reader's; as a context manager it is left at the end.

    Attributes:
        places: those of which it is one.
        given: set once it may read.
        is_left: it may read no more.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.given = trio.Event()
        self.is_left = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let another have it. Leaving twice is allowed."""
        if not self.is_left:
            self.is_left = True
            self.places.left(self)
