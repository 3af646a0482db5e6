"""How long to wait before trying again: exponential, with full jitter. Pure."""

from random import Random


class Backoff:
    """Waits that double from `first_seconds` to `longest_seconds`, each drawn below its step.

    The random part keeps many clients from coming back in step; at least half of each step is
    waited, so that no draw makes a busy loop.

    Attributes:
        longest_seconds: no step is longer; it may be changed.
    """

    def __init__(
        self, *, first_seconds: float, longest_seconds: float, random: Random | None = None
    ) -> None:
        self._first = first_seconds
        self.longest_seconds = longest_seconds
        self._random = random or Random()  # noqa: S311 - jitter is no secret
        self._step = first_seconds

    def next_seconds(self) -> float:
        """Return the next wait and double the step."""
        step = min(self._step, self.longest_seconds)
        self._step = step * 2
        return step * (0.5 + self._random.random() / 2)

    def reset(self) -> None:
        """Begin again at the first step: call it after progress, not after a mere connect."""
        self._step = self._first
