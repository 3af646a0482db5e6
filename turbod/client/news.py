"""What a program is told beside records."""

import msgspec

from turbod.cursor import SECOND_US


class Progress(msgspec.Struct, frozen=True):
    """How far it has come: everything up to `cursor` was handed out or left out by the filter.

    Attributes:
        saved: what to save, see Records.cursor.
        cursor: the position.
        head: the newest cursor known of; that of the archive alone while `source` is `archive`.
        source: `archive` or `stream`.
        server: whose cursors these are.
        records_per_second: handed out since the last report.
    """

    saved: str
    cursor: int
    head: int
    source: str
    server: str
    records_per_second: float

    @property
    def behind_seconds(self) -> float:
        """From `cursor` to `head`, which are times."""
        return max(self.head - self.cursor, 0) / SECOND_US


class Status(msgspec.Struct, frozen=True):
    """How a server is doing. A quiet network is well; it is stuck where nothing can come.

    Attributes:
        server: which.
        is_stuck: nothing can come from it now.
        words: why, for people.
        stuck_seconds: since when nothing could come from any server.
        retry_seconds: when the next is tried; 0 where that is not yet decided.
    """

    server: str
    is_stuck: bool
    words: str
    stuck_seconds: float = 0.0
    retry_seconds: float = 0.0


class Stuck(Exception):
    """No server has given anything for as long as the program wanted to wait."""
