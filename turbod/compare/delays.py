"""How much later one stream brings what the other brought: a distribution in little room. Pure."""

import math
from typing import Final

LEAST_SECONDS: Final = 0.0001  # whatever is nearer counts as at once
GREATEST_SECONDS: Final = 86_400.0
_STEP: Final = math.log(1.05)  # a value is known to within 2.5 %
_MOST: Final = 1 + int(math.log(GREATEST_SECONDS / LEAST_SECONDS) / _STEP)


class Delays:
    """Seconds, negative where it was the first; at most 845 counters, however many are added.

    Attributes:
        count: how many were added.
        first: how many of them were below 0.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first = 0
        self._counts: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Add one."""
        place = _place(seconds)
        self._counts[place] = self._counts.get(place, 0) + 1
        self.count += 1
        self.first += seconds < 0

    def quantile(self, share: float) -> float | None:
        """Return the seconds that this share of them does not exceed; None where there are none."""
        left = share * self.count
        value = None
        for place in sorted(self._counts):
            value = _seconds(place)
            left -= self._counts[place]
            if left <= 0:
                break
        return value

    def above(self, seconds: float) -> int:
        """Return how many are greater, to within 5 % of the seconds."""
        edge = _place(seconds)
        return sum(count for place, count in self._counts.items() if place > edge)


def _place(seconds: float) -> int:
    distance = abs(seconds)
    if distance < LEAST_SECONDS:
        return 0
    place = min(1 + int(math.log(distance / LEAST_SECONDS) / _STEP), _MOST)
    return place if seconds > 0 else -place


def _seconds(place: int) -> float:
    if place == 0:
        return 0.0
    middle = LEAST_SECONDS * math.exp((abs(place) - 0.5) * _STEP)
    return middle if place > 0 else -middle
