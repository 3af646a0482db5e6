"""What the server needs of the log, so that it can be tested with any log that has it."""

from typing import Protocol

from turbod.eventlog.chunk import Chunk, Stretch
from turbod.filter import Filter


class Watch(Protocol):
    """Wakes one subscriber when something is published that its filter may take."""

    async def wait(self) -> None:
        """Return once there is news since the last wait."""

    def change(self, dids: frozenset[str] | None) -> None:
        """Wake for these DIDs from now on, or for anybody."""

    def close(self) -> None:
        """Wake no more."""


class Log(Protocol):
    """The log as its readers see it; a position is the cursor after which one reads on."""

    @property
    def head(self) -> int:
        """The newest cursor that is on disk, 0 for an empty log."""

    @property
    def floor(self) -> int:
        """Everything above it is retained."""

    @property
    def events_per_minute(self) -> float:
        """Smoothed, unfiltered."""

    def in_memory(self, after: int) -> bool:
        """Tell whether every retained record above `after` is in memory."""

    def next_chunk(self, after: int) -> Chunk | None:
        """Return the first chunk in memory whose last cursor is above `after`, None at head."""

    async def read(self, after: int, chosen: Filter) -> Stretch:
        """Return what comes next from objects or from the log's files, about 1 MiB of it.

        It holds every record that the filter takes, and may hold others. It moves on unless all
        that follows is in memory.

        Raises:
            Pruned: records above `after` are no longer retained.
            HistoryUnavailable: where they lie did not answer for a minute.
        """

    def is_archived(self, after: int) -> bool:
        """Tell whether what follows `after` lies in an object, be it in memory too or not."""

    def events_behind(self, after: int) -> int | None:
        """Return how many records lie above `after`, None where it would cost a scan."""

    def watch(self, dids: frozenset[str] | None) -> Watch:
        """Begin to watch; whoever begins closes it."""
