"""Whether the AppView answers at all, and how often it is tried while it does not. Pure."""

from typing import Final

DOWN_AFTER: Final = 3  # calls in a row without an answer
PROBE_SECONDS: Final = 0.5


class Health:
    """Counts calls that got no answer since the last one that did.

    An answer is whatever the AppView said on purpose: a good one, a 400, a 429.
    """

    def __init__(
        self, *, down_after: int = DOWN_AFTER, probe_seconds: float = PROBE_SECONDS
    ) -> None:
        self.down_after = down_after
        self._unanswered_since: float | None = None
        self._sent_at = 0.0
        self.probe_seconds = probe_seconds
        self.flying = 0
        self.failures = 0

    @property
    def down(self) -> bool:
        """No answer to several calls in a row."""
        return self.failures >= self.down_after

    @property
    def down_since(self) -> float | None:
        """When the first call of those unanswered was sent; None while not down."""
        return self._unanswered_since if self.down else None

    def next_at(self) -> float:
        """Return when the next call may be made: one at a time while down."""
        return self._sent_at + self.probe_seconds if self.down else 0.0

    def sent(self, now: float) -> None:
        """Count a call that goes out."""
        self.flying += 1
        self._sent_at = now
        if self._unanswered_since is None:
            self._unanswered_since = now

    def answered(self, now: float) -> None:
        """Count an answer."""
        self.flying -= 1
        self.failures = 0
        self._unanswered_since = now if self.flying else None

    def failed(self) -> None:
        """Count a call that got none."""
        self.flying -= 1
        self.failures += 1

    def abandoned(self) -> None:
        """Count a call that we gave up ourselves."""
        self.flying -= 1
