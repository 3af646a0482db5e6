"""One event of the simulated network, and how a Jetstream host prints it. Pure."""

from typing import Any

import msgspec

_NOTHING = msgspec.Raw(b"")
_encode = msgspec.json.Encoder().encode


class Happening(msgspec.Struct, frozen=True, gc=False):
    """What happened, before any host gave it a number.

    Attributes:
        time_us: strictly increasing over one network.
        commit_us: the `time_us` of the first operation of the same commit: what a v2 host shows.
        record: of a create or update; nobody may change it.
        record_json: the record as the AppView prints it.
        handle: of an identity event, whether the event tells it or not: the AppView asks the DNS.
    """

    did: str
    kind: str
    time_us: int
    commit_us: int
    collection: str = ""
    operation: str = ""
    rkey: str = ""
    rev: str = ""
    cid: str = ""
    record: dict[str, Any] | None = None
    record_json: bytes = b""
    notice: dict[str, Any] | None = None
    handle: str = ""

    @property
    def uri(self) -> str:
        """Return the AT URI of the record."""
        return f"at://{self.did}/{self.collection}/{self.rkey}"

    def tail(self) -> bytes:
        """Return everything behind `time_us` (and the `cursor` of v2) of the event."""
        if self.notice is not None:
            kind = self.kind.encode()
            notice = escaped(_encode(self.notice))
            return b',"kind":"%b","%b":%b}' % (kind, kind, notice)
        rest = b""
        if self.record_json:
            rest = b',"record":%b,"cid":"%b"' % (escaped(self.record_json), self.cid.encode())
        head = (
            f',"kind":"commit","commit":{{"rev":"{self.rev}","operation":"{self.operation}",'
            f'"collection":"{self.collection}","rkey":"{self.rkey}"'
        )
        return head.encode() + rest + b"}}"

    def message(self) -> bytes:
        """Return the event as a v1 host prints it."""
        return b'{"did":"%b","time_us":%d%b' % (self.did.encode(), self.time_us, self.tail())


class _Commit(msgspec.Struct):
    rev: str
    operation: str
    collection: str
    rkey: str
    record: msgspec.Raw = _NOTHING
    cid: str = ""


class _Event(msgspec.Struct):
    did: str
    time_us: int
    kind: str
    commit: _Commit | None = None
    identity: dict[str, Any] | None = None
    account: dict[str, Any] | None = None


def read_message(message: bytes) -> Happening:
    """Read an event that a Jetstream host printed.

    Raises:
        ValueError: it is none.
    """
    event = msgspec.json.decode(message, type=_Event)
    base = (event.did, event.kind, event.time_us, event.time_us)
    commit = event.commit
    if commit is None:
        notice = event.identity or event.account or {}
        return Happening(*base, notice=notice, handle=notice.get("handle", ""))
    raw = bytes(commit.record)
    return Happening(
        *base,
        commit.collection,
        commit.operation,
        commit.rkey,
        commit.rev,
        commit.cid,
        msgspec.json.decode(raw, type=dict[str, Any]) if raw else None,
        raw,
    )


def escaped(json: bytes) -> bytes:
    """Escape as Go's encoding/json does by default: `& < >` can only stand in strings."""
    if b"&" in json or b"<" in json or b">" in json:
        json = json.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    return json
