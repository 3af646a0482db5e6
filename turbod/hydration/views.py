"""What the AppView answers: each view as its own bytes, its key, what it shows. Pure."""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

import msgspec

from turbod.envelope import Fields, Malformed, decode, one_line, read
from turbod.event import Event, split_uri, valid_did

MAX_VIEW_BYTES: Final = 1024 * 1024
MAX_SELF_LABELS: Final = 10  # com.atproto.label.defs#selfLabels
MAX_LABEL_BYTES: Final = 128  # com.atproto.label.defs#selfLabel

# Strings whole, so that no bracket inside one counts, and runs of brackets at once. Every
# alternative that starts also matches, so a search is linear in what it passes over.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]+|[\]}]+', re.DOTALL)
_MAX_TOKENS = 200_000  # about 0.1 s; 25 captured posts have some 3,000
_DATETIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,20})?(?:Z|[+-]\d\d:\d\d)", re.ASCII
).fullmatch
_NESTED = frozenset({dict, list})
_WRITTEN = frozenset({"record", "value"})
_AUTHOR_FIELDS = (  # app.bsky.actor.defs#profileViewBasic, without what only a login sees
    "did",
    "handle",
    "displayName",
    "pronouns",
    "avatar",
    "associated",
    "labels",
    "createdAt",
    "verification",
    "status",
)


class Kind(Enum):
    """What can be asked for, 25 at a time: the call, its parameter, the answer's array and key."""

    PROFILE = ("app.bsky.actor.getProfiles", "actors", "profiles", "did")
    POST = ("app.bsky.feed.getPosts", "uris", "posts", "uri")

    def __init__(self, method: str, parameter: str, array: str, key: str) -> None:
        self.path: Final = f"/xrpc/{method}"
        self.parameter: Final = parameter
        self.array: Final = array
        self.key: Final = key


class View(msgspec.Struct, frozen=True, gc=False):
    """One profile or post as the AppView showed it.

    Attributes:
        key: its DID or its AT URI.
        data: its bytes as they came, line breaks between tokens apart; valid JSON.
        inside: the DIDs and AT URIs of everything it shows, its own key first, each once. What
            its record merely names (a facet, a reply's parent) is not shown and not here.
    """

    key: str
    data: bytes
    inside: tuple[str, ...]


class Answer(msgspec.Struct, frozen=True):
    """The views of one call, in its order, and how many could not be used."""

    views: tuple[View, ...]
    malformed: int


class _Profiles(msgspec.Struct):
    profiles: list[msgspec.Raw]


class _Posts(msgspec.Struct):
    posts: list[msgspec.Raw]


class _Commit(msgspec.Struct):
    record: msgspec.Raw


class _Message(msgspec.Struct):
    commit: _Commit


_decode_profiles = msgspec.json.Decoder(_Profiles).decode
_decode_posts = msgspec.json.Decoder(_Posts).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def read_answer(body: bytes, kind: Kind) -> Answer:
    """Cut an answer into its views, each checked alone: a bad one loses only itself.

    Raises:
        Malformed: where the answer as a whole is not what it must be, or is cut short.
    """
    views, malformed = [], 0
    for raw in _elements(body, kind):
        try:
            views.append(read_view(raw, kind))
        except Malformed:
            malformed += 1
    return Answer(tuple(views), malformed)


def read_view(raw: bytes, kind: Kind) -> View:
    """Check one view and find its key and what it shows.

    Raises:
        Malformed: `size`, `json`, `nesting` or `shape`.
    """
    if len(raw) > MAX_VIEW_BYTES:
        raise Malformed("size")
    fields = decode(raw)
    key = fields.get(kind.key) if isinstance(fields, dict) else None
    if not (valid_did(key) if kind is Kind.PROFILE else split_uri(key)):
        raise Malformed("shape")
    assert isinstance(key, str)
    return View(key, one_line(raw), tuple(dict.fromkeys((key, *_shown(fields)))))


def build_post(event: Event, author: bytes, indexed_at: str) -> bytes | None:
    """Build the view of a post that the AppView does not know yet from the event itself.

    Args:
        event: the create or update of an `app.bsky.feed.post`.
        author: the bytes of its author's profile.
        indexed_at: when the event was seen, as an RFC 3339 time.

    Returns:
        An app.bsky.feed.defs#postView without an embed; None where the event has no CID.
    """
    commit = read(event.message).commit
    if event.cid is None or commit is None or commit.record is None:
        return None
    post = {
        "uri": event.at_uri,
        "cid": event.cid,
        "author": _basic(author),
        "record": _decode_message(event.message).commit.record,
        "bookmarkCount": 0,
        "replyCount": 0,
        "repostCount": 0,
        "likeCount": 0,
        "quoteCount": 0,
        "indexedAt": indexed_at,
        "labels": _self_labels(event, commit.record, indexed_at),
    }
    return _encode(post)


def _elements(body: bytes, kind: Kind) -> list[bytes]:
    try:
        if kind is Kind.PROFILE:
            return [bytes(raw) for raw in _decode_profiles(body).profiles]
        return [bytes(raw) for raw in _decode_posts(body).posts]
    except (RecursionError, ValueError):
        # One view that nests too deep, or is no JSON: find the others by their brackets.
        return list(_objects(body, f'"{kind.array}"'.encode()))


def _objects(body: bytes, name: bytes) -> Iterator[bytes]:
    """Yield the objects of the array called `name` by brackets alone, unchecked.

    Depth is counted in open brackets: 1 within the answer, 2 within the array, 3 within a view.
    """
    depth, view_start, label, in_array, found = 0, -1, b"", False, False
    for count, token in enumerate(_TOKEN.finditer(body)):
        if count == _MAX_TOKENS:
            raise Malformed("size")
        start, end = token.span()
        if body[start] in b'"':
            label = token.group() if depth == 1 else label
        elif body[start] in b"[{":
            array_at, view_at = start + 1 - depth, start + 2 - depth
            if start <= array_at < end:
                in_array = body[array_at] in b"[" and label == name
                found |= in_array
            if start <= view_at < end:
                view_start = view_at if in_array and body[view_at] in b"{" else -1
            depth += end - start
        else:
            view_end = start + depth - 3
            if start <= view_end < end and view_start >= 0:
                yield body[view_start : view_end + 1]
                view_start = -1
            depth -= end - start
    if depth or not found:
        raise Malformed("json")


def _shown(view: dict[str, Any]) -> Iterator[str]:
    """Yield the DIDs and AT URIs that a view shows, at any depth.

    Actors are known by `did` and `handle`, records by `uri` and `author` or `creator`. Beside a
    `cid`, `record` and `value` hold what a user wrote. A record not found, blocked or detached is
    named but not shown.
    """
    pending: list[Any] = [view]
    while pending:
        item = pending.pop()
        if type(item) is list:
            pending += item
        elif type(item) is dict and not _hidden(item):
            yield from _own(item)
            written = "cid" in item
            for name, value in item.items():
                if type(value) in _NESTED and not (written and name in _WRITTEN):
                    pending.append(value)


def _hidden(item: dict[str, Any]) -> bool:
    get = item.get
    return get("notFound") is True or get("blocked") is True or get("detached") is True


def _own(item: dict[str, Any]) -> Iterator[str]:
    did, uri = item.get("did"), item.get("uri")
    if did is not None and "handle" in item and valid_did(did):
        yield did
    if uri is not None and ("author" in item or "creator" in item) and split_uri(uri):
        yield uri


def _basic(profile: bytes) -> dict[str, msgspec.Raw]:
    fields = _decode_raw_fields(profile)
    return {name: fields[name] for name in _AUTHOR_FIELDS if name in fields}


def _self_labels(event: Event, record: Fields, indexed_at: str) -> list[dict[str, str]]:
    """Return the labels that the author gave the post, in the form that labelers' have."""
    labels, created_at = record.labels, record.created_at
    values = labels.get("values") if isinstance(labels, dict) else None
    if not isinstance(created_at, str) or not _DATETIME(created_at):
        created_at = indexed_at
    return [
        {
            "src": event.did,
            "uri": event.at_uri,
            "cid": event.cid or "",
            "val": val,
            "cts": created_at,
        }
        for val in map(_label, values[:MAX_SELF_LABELS] if isinstance(values, list) else ())
        if val
    ]


def _label(value: object) -> str | None:
    val = value.get("val") if isinstance(value, dict) else None
    return val if isinstance(val, str) and len(val.encode()) <= MAX_LABEL_BYTES else None
