"""Reading a turbod from outside: history and the live stream, as one sequence of records."""

from turbod.client.stream import BadAddress, Refused, Stream, first

__all__ = ["BadAddress", "Refused", "Stream", "first"]
