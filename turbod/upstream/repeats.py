"""Which of many equal faults to log. Pure."""

from typing import Final

FIRST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 3600.0


class Repeats:
    """Which of many equal lines to log: the first, then ever more seldom, with a count."""

    def __init__(self) -> None:
        self._words = ""
        self._since = 0
        self._next_at = self._wait = 0.0

    def due(self, words: str, now: float) -> int:
        """Count one; return how many stand behind a line to be logged now, 0 for none."""
        self._since += 1
        is_known = words == self._words
        if is_known and now < self._next_at:
            return 0
        self._wait = min(self._wait * 2, LONGEST_SECONDS) if is_known else FIRST_SECONDS
        times, self._since = self._since, 0
        self._words, self._next_at = words, now + self._wait
        return times

    def over(self) -> None:
        """Log the next one whatever it says: it went well meanwhile."""
        self._words = ""
