"""How one Jetstream host stamps and numbers the events of the common history. Pure."""

from collections.abc import Callable

_NUMBERS_APART = 1_000_003  # each host numbers on its own


class Stamps:
    """Offsets of the host's clock, each from an index of the history on, and its numbers."""

    def __init__(self, *, offset_us: int, host: int) -> None:
        self._offsets: list[tuple[int, int]] = [(0, offset_us)]
        self._sequence_base = 1 + host * _NUMBERS_APART

    def change(self, index: int, offset_us: int) -> None:
        """From this index on, be off by so much."""
        self._offsets.append((index, offset_us))

    def renumber(self, index: int) -> None:
        """Give this index the number 1."""
        self._sequence_base = 1 - index

    def offset_us(self, index: int) -> int:
        """Return what is added to the time of the entry at an index."""
        for first, offset_us in reversed(self._offsets):
            if index >= first:
                return offset_us
        return 0

    def number(self, index: int) -> int:
        """Return what a v2 host shows as `cursor`."""
        return index + self._sequence_base

    def index(self, number: int) -> int:
        """Return the index that has this number."""
        return number - self._sequence_base

    def at(self, time_us: int, *, end: int, find: Callable[[int], int]) -> int:
        """Return the first index that was stamped at or after a time, `end` if there is none.

        Args:
            time_us: as this host stamps.
            end: of the history.
            find: the first index whose true time is at or after the one given.
        """
        ends = [first for first, _ in self._offsets[1:]] + [end]
        found = [
            start
            for (first, offset_us), last in zip(self._offsets, ends, strict=True)
            if (start := max(first, find(time_us - offset_us))) < last
        ]
        return min(found, default=end)
