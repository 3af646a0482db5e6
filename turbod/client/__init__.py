"""Reading a turbod from outside: history and the live stream, as one sequence of records."""

from turbod.client.following import Records, follow
from turbod.client.news import Progress, Status, Stuck
from turbod.client.record import Record
from turbod.client.stream import BadAddress, Refused, Stream, first
from turbod.eventlog.chunk import Gap

__all__ = [
    "BadAddress",
    "Gap",
    "Progress",
    "Record",
    "Records",
    "Refused",
    "Status",
    "Stream",
    "Stuck",
    "first",
    "follow",
]
