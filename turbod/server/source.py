"""What the server needs of the log, so that it can be tested with any log that has it."""

from typing import Protocol

from turbod.eventlog.chunk import Chunk


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

    async def read_chunks(self, after: int) -> list[Chunk]:
        """Return the next chunks from disk, about 1 MiB of them.

        Raises:
            Pruned: records above `after` are no longer retained.
        """

    def events_behind(self, after: int) -> int | None:
        """Return how many records lie above `after`, None where it would cost a scan."""

    def watch(self, dids: frozenset[str] | None) -> Watch:
        """Begin to watch; whoever begins closes it."""
