"""Which of many equal faults to log. Pure."""

from typing import Final

LOG_SECONDS: Final = 60.0


class Repeats:
    """Which of many equal lines to log: the first, then one a minute with a count."""

    def __init__(self) -> None:
        self._words = ""
        self._since = 0
        self._logged_at = 0.0

    def due(self, words: str, now: float) -> int:
        """Count one; return how many stand behind a line to be logged now, 0 for none."""
        self._since += 1
        if words == self._words and now - self._logged_at < LOG_SECONDS:
            return 0
        times, self._since = self._since, 0
        self._words, self._logged_at = words, now
        return times
