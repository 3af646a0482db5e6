"""How many events a minute, smoothed. Pure."""

from math import exp
from typing import Final

WINDOW_SECONDS: Final = 60.0
LEAST_SECONDS: Final = 5.0  # of measuring: one event after a millisecond is not 60,000 a minute


class EventRate:
    """An exponential mean over a minute, right from the first seconds on."""

    def __init__(self, *, now_seconds: float) -> None:
        self._began = self._updated = now_seconds
        self._sum = 0.0

    def add(self, events: int, *, now_seconds: float) -> None:
        """Count events."""
        self._sum = self._faded(now_seconds) + events
        self._updated = now_seconds

    def per_minute(self, *, now_seconds: float) -> float:
        """Return the rate as of now."""
        measured = max(now_seconds - self._began, LEAST_SECONDS)
        return self._faded(now_seconds) / (1 - exp(-measured / WINDOW_SECONDS))

    def _faded(self, now_seconds: float) -> float:
        return self._sum * exp((self._updated - now_seconds) / WINDOW_SECONDS)
