"""What all subscribers of one server share."""

from collections.abc import Callable
from typing import Final

from turbod.histogram import Histogram
from turbod.server.compression import Compression
from turbod.server.interests import Interests
from turbod.server.pace import Pace
from turbod.server.packing import Packer
from turbod.server.places import Places
from turbod.server.source import Log

# What all readers of history hold: about 1 MiB of chunks for each that has a place (HISTORY_READERS
# and server.max_history_readers: 40 MiB), BIG_MESSAGES whole chunks on their way to quick clients
# (16 MiB), and packing.PIECE_BYTES for each of the others, who took too long and gave way.
HISTORY_READERS: Final = 32  # of the log's own files
BIG_MESSAGES: Final = 32


class Traffic:
    """Counts of what all subscribers were sent.

    Attributes:
        delivery_seconds: from publishing records to having sent them to one who had been sent all
            before; of some chunks, to all of these.
    """

    __slots__ = ("bytes", "delivery_seconds", "messages", "records")

    def __init__(self) -> None:
        self.messages = 0
        self.records = 0
        self.bytes = 0
        self.delivery_seconds = Histogram()


class Services:
    """What all subscribers of one server share.

    Attributes:
        history: places of those who read the log's files, each for one read.
        archive: places of those who read objects, each until its reader is through with them or
            somebody waits for one.
        big_messages: on their way to who read history.
    """

    def __init__(
        self,
        log: Log,
        *,
        packer: Packer,
        interests: Interests,
        served: tuple[str, ...],
        archive_readers: int,
        upstream_state: Callable[[], str],
        now_us: Callable[[], int],
    ) -> None:
        self.log = log
        self.packer = packer
        self.interests = interests
        self.served = served
        self.upstream_state = upstream_state
        self.now_us = now_us
        self.traffic = Traffic()
        self.history = Places(HISTORY_READERS)
        self.archive = Places(archive_readers)
        self.compression = Compression()
        self.pace = Pace()
        self.big_messages = 0

    def is_archived(self, position: int) -> bool:
        """Tell whether what follows a position has to come from an object."""
        return self.log.is_archived(position) and not self.log.in_memory(position)
