"""How long a call waits for company: briefly with budget to spare, else till full. Pure."""

import math
from typing import Final

MAX_ITEMS: Final = 25
FILL_SECONDS: Final = 0.24  # of the 0.25 that a call may wait; the rest is for the scheduler
PATIENT_SECONDS: Final = 2.0
LONGEST_FILL_SECONDS: Final = 120.0
LULL_SECONDS: Final = 10.0  # intake may wait for what a call that is not full would bring
_LULL_GAPS = 10  # and this many times the usual time between two items
PLENTY: Final = 3.0  # budget over need; below it only full calls go
WASTE_SHARE: Final = 0.05  # empty places allowed for each place used, where budget is short
_FAST_SECONDS, _SLOW_SECONDS = 15.0, 600.0
_MOST_SAVED_WASTE = 2.0  # one call of each kind
_MOST_OWED_WASTE = 2.0  # likewise, in lulls; paid back by full calls


class Average:
    """A rate over about the last `seconds`, right from the start and not only after that long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sum = 0.0
        self._begun_at: float | None = None
        self._at = 0.0

    def add(self, amount: float, *, now: float) -> None:
        """Count `amount` at `now`."""
        if self._begun_at is None:
            self._begun_at = self._at = now
        self._sum = self._sum * math.exp((self._at - now) / self._seconds) + amount
        self._at = now

    def per_second(self, now: float) -> float:
        """Return the rate."""
        if self._begun_at is None:
            return 0.0
        weight = self._seconds * -math.expm1((self._begun_at - now) / self._seconds)
        return self._sum * math.exp((self._at - now) / self._seconds) / max(weight, FILL_SECONDS)


class Filling:
    """Decides when a call that is not full goes.

    Need is the full calls a second that all wanted items make, the larger of a quick and a slow
    average: a cold start is followed by less need, and taking that for plenty would spend in small
    calls what the cold start saved. Where the budget is short a small share of empty places is
    allowed all the same, so that the last few of a rare kind need not wait for ever.
    """

    def __init__(self) -> None:
        self._fast = Average(_FAST_SECONDS)
        self._slow = Average(_SLOW_SECONDS)
        self._waste_saved = 0.0
        self._wanted_at = 0.0

    def wanted(self, now: float) -> None:
        """Count an item that has to be asked for."""
        self._wanted_at = now
        self._fast.add(1 / MAX_ITEMS, now=now)
        self._slow.add(1 / MAX_ITEMS, now=now)

    def need(self, now: float) -> float:
        """Return the full calls a second that are needed."""
        return max(self._fast.per_second(now), self._slow.per_second(now))

    def is_plenty(self, now: float, *, rate: float) -> bool:
        """Tell whether a budget of `rate` calls a second is enough for calls that are not full."""
        return rate >= PLENTY * self.need(now)

    def patience_seconds(self, items: int, *, now: float, plenty: bool) -> float:
        """Return how long the oldest of `items` waits for more."""
        if plenty:
            return FILL_SECONDS
        waste = 1 - items / MAX_ITEMS
        saved = self._waste_saved + (_MOST_OWED_WASTE if self._is_lull(now) else 0.0)
        if saved >= waste:
            return PATIENT_SECONDS
        return LONGEST_FILL_SECONDS

    def _is_lull(self, now: float) -> bool:
        usual_gap_seconds = 1 / (MAX_ITEMS * self.need(now) + 1e-9)
        return now - self._wanted_at >= max(LULL_SECONDS, _LULL_GAPS * usual_gap_seconds)

    def went(self, items: int, *, full: bool, plenty: bool) -> None:
        """Count a call that was made, `full` also where its URL could not take more."""
        if not plenty:
            self._waste_saved += WASTE_SHARE * items / MAX_ITEMS
            if not full:
                self._waste_saved -= 1 - items / MAX_ITEMS
            self._waste_saved = max(-_MOST_OWED_WASTE, min(_MOST_SAVED_WASTE, self._waste_saved))
