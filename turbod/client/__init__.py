"""Reading a turbod from outside: history and the live stream, as one sequence of records."""

from turbod.bearer import BadToken
from turbod.client.following import Records, follow
from turbod.client.news import Progress, Status, Stuck
from turbod.client.record import Record
from turbod.client.stream import BadAddress, Refused
from turbod.cursor import BadCursor
from turbod.eventlog.chunk import Gap
from turbod.filter import InvalidRequest

__all__ = [
    "BadAddress",
    "BadCursor",
    "BadToken",
    "Gap",
    "InvalidRequest",
    "Progress",
    "Record",
    "Records",
    "Refused",
    "Status",
    "Stuck",
    "follow",
]
