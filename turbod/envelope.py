"""JSON from outside, checked whole; of an upstream message the few fields that are read. Pure."""

import re
from typing import Any, Final

import msgspec

MAX_NESTING: Final = 64

_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"
_LINE_BREAKS = re.compile(rb"[\r\n]+")


class Malformed(ValueError):
    """Bytes from outside that are not what they must be.

    Attributes:
        reason: one of a small closed set of words, fit for a metric's label.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# Fields are of the types that nearly all messages have; those of an unusual message may be of any.


class Reference(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A strongRef: a record's URI."""

    uri: str | None = None
    _cid: str | None = msgspec.field(default=None, name="cid")


class Reply(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """What a post answers."""

    parent: Reference | None = None
    root: Reference | None = None


class Fields(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A record, as posts, likes, reposts, follows and blocks are; those in front are read."""

    reply: Reply | None = None
    embed: Any = None
    facets: Any = None
    subject: str | Reference | None = None
    labels: Any = None
    created_at: str | None = msgspec.field(default=None, name="createdAt")
    _type: str | None = msgspec.field(default=None, name="$type")
    _text: str | None = msgspec.field(default=None, name="text")
    _langs: list[str] | None = msgspec.field(default=None, name="langs")
    _tags: list[str] | None = msgspec.field(default=None, name="tags")


class Commit(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A commit's object."""

    rev: str | None = None
    operation: str | None = None
    collection: str | None = None
    rkey: str | None = None
    record: Fields | None = None
    cid: str | None = None


class Envelope(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A message."""

    did: str | None = None
    time_us: int | float | None = None  # without the float 1.0 would be taken for an integer
    kind: str | None = None
    commit: Commit | None = None
    identity: Any = None
    account: Any = None
    cursor: int | float | None = None


_INSIDE: Final[dict[type, dict[str, type]]] = {
    Envelope: {"commit": Commit},
    Commit: {"record": Fields},
    Fields: {"reply": Reply, "subject": Reference},
    Reply: {"parent": Reference, "root": Reference},
}
_decode = msgspec.json.Decoder().decode
_decode_usual = msgspec.json.Decoder(Envelope).decode


def read(message: bytes) -> Envelope:
    """Decode a message, whole as `decode` does, into the fields that are read of it.

    Nearly all hold nothing else, and then it takes half of what dicts take.

    Raises:
        Malformed: `json`, `nesting` or `shape`.
    """
    try:
        envelope = _decode_usual(message)
    except (ValueError, RecursionError):
        return _unusual(message)
    if _may_nest(envelope) and _brackets(message) > MAX_NESTING:
        return _unusual(message)
    return envelope


def decode(raw: bytes | msgspec.Raw) -> Any:
    """Decode JSON from outside, whole: UTF-8, escapes, numbers and nesting are checked.

    Raises:
        Malformed: `json` or `nesting`.
    """
    try:
        value = _decode(raw)
    except RecursionError:
        raise Malformed("nesting") from None
    except ValueError:  # msgspec's and Unicode's errors are ValueErrors
        raise Malformed("json") from None
    # Each level costs a bracket: few brackets need no walk (23 at most in 152 captured events).
    data = raw if isinstance(raw, bytes) else bytes(raw)
    if _brackets(data) > MAX_NESTING and _nesting(value) > MAX_NESTING:
        raise Malformed("nesting")
    return value


def one_line(message: bytes) -> bytes:
    """Take the line breaks out of valid JSON, where they can only stand between tokens."""
    # As numbers: to look for bytes in bytes takes eight times as long.
    if _LINE_FEED in message or _CARRIAGE_RETURN in message:
        message = _LINE_BREAKS.sub(b"", message)
    return message.strip()


def _may_nest(envelope: Envelope) -> bool:
    """Tell whether a usual message has what may nest at any depth."""
    if envelope.commit is None or (record := envelope.commit.record) is None:
        return True
    return not (
        record.embed is record.facets is record.labels is None
        and envelope.identity is envelope.account is None
    )


def _unusual(message: bytes) -> Envelope:
    """Read a message that has other fields beside, or other types, or that is no JSON."""
    fields = decode(message)
    if not isinstance(fields, dict):
        raise Malformed("shape")
    envelope: Envelope = _known(Envelope, fields)
    return envelope


def _known(kind: type, value: Any) -> Any:
    """Return what is known of an object; anything else as it is."""
    if not isinstance(value, dict):
        return value
    inside = _INSIDE.get(kind, {})
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in value:
            item = value[field.encode_name]
            found[field.name] = _known(inside[field.name], item) if field.name in inside else item
    return kind(**found)


def _brackets(data: bytes) -> int:
    # A third of what `count` takes, which looks at every byte by itself.
    return 2 * len(data) - len(data.replace(b"{", b"")) - len(data.replace(b"[", b""))


def _nesting(value: object) -> int:
    """Return how deep lists and objects nest: 1 for a flat one."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
