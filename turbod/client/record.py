"""One record as a program wants it: its line, and what is in it, decoded when asked for. Pure."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from turbod.eventlog.line import cursor_of

Key = tuple[str | None, ...]
T = TypeVar("T")


class _Line(msgspec.Struct):
    at_uri: str
    did: str
    time_us: int
    message: msgspec.Raw
    hydrated_metadata: msgspec.Raw


class _Commit(msgspec.Struct):
    collection: str
    rkey: str
    rev: str
    operation: str
    cid: str | None = None


class _Notice(msgspec.Struct):
    time: str


class _Message(msgspec.Struct):
    did: str
    kind: str
    commit: _Commit | None = None
    identity: _Notice | None = None
    account: _Notice | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def _read(decode: Callable[[bytes], T], data: bytes) -> T:
    """Decode; bytes that are no text, or nest too deep, are an error as any other."""
    try:
        return decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


class Record:
    """One hydrated event.

    What is beside `cursor` and `line` is decoded when it is first asked for.

    Attributes:
        line: its bytes as they lie in the archive, without a line break.
        cursor: its place on the server that it came from.

    Raises:
        msgspec.MsgspecError: the server sent something else than a record.
    """

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.cursor = _read(cursor_of, line)

    @property
    def at_uri(self) -> str:
        """The record's URI for a commit, `at://DID` for identity and account events."""
        return self._fields.at_uri

    @property
    def did(self) -> str:
        """Whose event it is."""
        return self._fields.did

    @property
    def time_us(self) -> int:
        """When the upstream saw it: neither unique nor ordered."""
        return self._fields.time_us

    @cached_property
    def message(self) -> dict[str, Any]:
        """The event as Jetstream sent it."""
        return _read(_decode_object, self._fields.message)

    @cached_property
    def hydrated_metadata(self) -> dict[str, Any]:
        """The views that were looked up for it; null where there is none."""
        return _read(_decode_object, self._fields.hydrated_metadata)

    @cached_property
    def key(self) -> Key:
        """What is equal for two copies of one event, wherever they come from.

        (did, collection, rkey, rev, operation, cid) of a commit, (kind, did, time) of others.
        """
        message = _read(_decode_message, self._fields.message)
        if (commit := message.commit) is not None:
            operation, cid = commit.operation, commit.cid
            return (message.did, commit.collection, commit.rkey, commit.rev, operation, cid)
        notice = message.identity or message.account
        return (message.kind, message.did, notice.time if notice else None)

    @cached_property
    def _fields(self) -> _Line:
        return _read(_decode_line, self.line)

    def __repr__(self) -> str:
        return f"<Record {self.cursor} {self.at_uri}>"
