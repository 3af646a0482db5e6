"""One hydrated record: how its line is spliced from bytes, and what a line's head tells. Pure."""

from typing import Final

import msgspec

from turbod.envelope import Malformed
from turbod.event import Event, parse

MAX_RECORD_BYTES: Final = 1024 * 1024
NULL: Final = b"null"


class Head(msgspec.Struct, frozen=True, gc=False):
    """What is kept in memory of a record beside its line: all that a filter asks for."""

    cursor: int
    did: str
    kind: str
    operation: str
    collection: str
    about: tuple[str, ...]


class Record(msgspec.Struct, frozen=True, gc=False):
    """A hydrated event without its cursor, which only the log's writer gives.

    Attributes:
        body: the line's bytes behind the cursor, from `,"at_uri"` to the closing brace.
        intake: the number under which the upstream took the event in.
    """

    event: Event
    body: bytes
    intake: int

    def pieces(self, cursor: int) -> tuple[bytes, bytes]:
        """Return the two parts of its line, so that the long one is not copied to join them."""
        return b'{"cursor":%d' % cursor, self.body

    def line(self, cursor: int) -> bytes:
        """Return the record as it lies on disk and goes to subscribers, without a line break."""
        return b"".join(self.pieces(cursor))

    def head(self, cursor: int) -> Head:
        """Return what the filter needs to know."""
        event = self.event
        return Head(cursor, event.did, event.kind, event.operation, event.collection, event.about)


class _Cursor(msgspec.Struct):
    cursor: int


class _Line(msgspec.Struct):
    cursor: int
    message: msgspec.Raw


_decode_cursor = msgspec.json.Decoder(_Cursor).decode
_decode_line = msgspec.json.Decoder(_Line).decode


def read_line(line: bytes) -> tuple[int, Event]:
    """Read a record's cursor and event back from its line.

    Raises:
        Malformed: where the line is not a whole record.
    """
    try:
        decoded = _decode_line(line)
    except (ValueError, RecursionError):
        raise Malformed("json") from None
    return decoded.cursor, parse(bytes(decoded.message))


def head_or_nobody(line: bytes) -> Head:
    """Read a head as head_of_line, for readers who cannot do anything about damage on a disk.

    A line that is whole JSON with a cursor but no record of ours comes from nobody and is about
    nobody: filters pass over it, and who wants everything gets it as it lies there.
    """
    try:
        return head_of_line(line)
    except Malformed:
        return Head(_decode_cursor(line).cursor, "", "", "", "", ())


def head_of_line(line: bytes) -> Head:
    """Read from a line on disk what `Record.head` gave when it was written.

    Raises:
        Malformed: where the line is not a whole record.
    """
    cursor, event = read_line(line)
    return Head(cursor, event.did, event.kind, event.operation, event.collection, event.about)
