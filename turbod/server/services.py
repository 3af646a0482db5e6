"""What all subscribers of one server share."""

from collections.abc import Callable
from typing import Final

from turbod.server.interests import Interests
from turbod.server.packing import Packer
from turbod.server.places import Places
from turbod.server.source import Log

HISTORY_READERS: Final = 32  # each holds about 1 MiB of chunks


class Traffic:
    """Counts of what all subscribers were sent."""

    __slots__ = ("bytes", "messages", "records")

    def __init__(self) -> None:
        self.messages = 0
        self.records = 0
        self.bytes = 0


class Services:
    """What all subscribers of one server share."""

    def __init__(
        self,
        log: Log,
        *,
        packer: Packer,
        interests: Interests,
        served: tuple[str, ...],
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
