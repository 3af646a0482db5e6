"""How long things took, as counts by upper bound: small, however much is counted. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec

# From what a disk that is idle takes to what nobody waits for.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LONG_SECONDS: Final = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1800)  # of work on whole hours
BEHIND_SECONDS: Final = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)


class Distribution(msgspec.Struct, frozen=True):
    """What was added up to now.

    Attributes:
        bounds: the upper ones, in rising order.
        counts: how much is above the bound before and not above its own; the last is of what is
            above all bounds.
        sum: of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    @property
    def cumulative(self) -> tuple[int, ...]:
        """How many values are not above each bound, and how many there are."""
        return tuple(accumulate(self.counts))

    def quantile(self, share: float) -> float | None:
        """Return what this share of the values is not above, about; None where there are none.

        As Prometheus reckons it: evenly spread between two bounds, the last one at the most.
        """
        rank, below, lower = share * self.count, 0, 0.0
        for bound, count in zip(self.bounds, self.counts[:-1], strict=True):
            if count and below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below, lower = below + count, bound
        return lower if self.count else None

    def since(self, earlier: "Distribution") -> "Distribution":
        """Return what was added after an earlier one of the same histogram."""
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return Distribution(self.bounds, counts, self.sum - earlier.sum)

    def with_instant(self, count: int) -> "Distribution":
        """Return it with so many more that took no time."""
        counts = (self.counts[0] + count, *self.counts[1:])
        return Distribution(self.bounds, counts, self.sum)


class Histogram:
    """Counts values, which are not negative."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """Count a value, or several that are equal."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def distribution(self) -> Distribution:
        """Return a snapshot."""
        return Distribution(self._bounds, tuple(self._counts), self._sum)
