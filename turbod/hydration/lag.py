"""Telling lag that a short budget makes from lag that an outage left behind. Pure."""


class Lag:
    """Whether the lag that came on top of what was there at first is more than is allowed.

    A stream that comes back after an outage is late at once: its lag jumps. One that is held back
    by a short budget falls behind by at most a second a second. Only the latter is counted.
    """

    def __init__(self, allowed_seconds: float) -> None:
        self._allowed = allowed_seconds
        self._baseline: float | None = None
        self._last = (0.0, 0.0)

    def too_long(self, lag_seconds: float, *, now_seconds: float) -> bool:
        """Take note of the lag as it is now, about once a second, and judge it."""
        if self._baseline is None:
            self._baseline = lag_seconds
        else:
            lag_before, seen = self._last
            own = now_seconds - seen
            jump = max(lag_seconds - lag_before - own, 0.0)
            self._baseline = min(self._baseline + jump, lag_seconds)
        self._last = (lag_seconds, now_seconds)
        return lag_seconds - self._baseline > self._allowed
