"""Telling lag that a short budget makes from lag that an outage left behind. Pure."""

from typing import Final

SHORT_SECONDS: Final = 60.0  # since intake was last held: it takes a moment to fill the room again


class Lag:
    """Whether the lag that came on top of what was there at first is more than is allowed.

    A stream that comes back after an outage is late at once: its lag jumps. One that is held back
    by a short budget falls behind by at most a second a second. Only the latter is counted, and
    only while we do hold it back: a silent or late upstream falls behind as slowly.

    Attributes:
        allowed_seconds: above it is too long; it may be changed.
    """

    def __init__(self, allowed_seconds: float) -> None:
        self.allowed_seconds = allowed_seconds
        self._baseline: float | None = None
        self._last = (0.0, 0.0)
        self._held_at = float("-inf")

    def too_long(self, lag_seconds: float, *, now_seconds: float, is_held: bool) -> bool:
        """Take note of the lag as it is now, about once a second, and judge it."""
        if is_held:
            self._held_at = now_seconds
        if self._baseline is None or now_seconds - self._held_at > SHORT_SECONDS:
            self._baseline = lag_seconds
        else:
            lag_before, seen = self._last
            own = now_seconds - seen
            jump = max(lag_seconds - lag_before - own, 0.0)
            self._baseline = min(self._baseline + jump, lag_seconds)
        self._last = (lag_seconds, now_seconds)
        return lag_seconds - self._baseline > self.allowed_seconds
