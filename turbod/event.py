"""One upstream event: what is checked, what is read from it, whom it concerns. Pure."""

import re
from functools import lru_cache
from typing import Any, Final, TypeGuard

import msgspec

MAX_EVENT_BYTES: Final = 1024 * 1024
MAX_NESTING: Final = 64
MAX_MENTIONS: Final = 50
MAX_TIME_US: Final = 2**53  # the year 2255; a longer number is exact in no client
MAX_VERSION_LENGTH: Final = 64  # a rev is a TID of 13, a notice's time a datetime
POST: Final = "app.bsky.feed.post"
OPERATIONS: Final = frozenset({"create", "update", "delete"})
KINDS: Final = frozenset({"commit", "identity", "account"})

_is_did = re.compile(
    # The first alternative is nine in ten accounts and four times as fast.
    r"did:plc:[a-z2-7]{24}|did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]",
    re.ASCII,
).fullmatch
_is_nsid = re.compile(
    r"[a-zA-Z](?:[a-zA-Z0-9-]{0,62})?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,62})?)+"
    r"\.[a-zA-Z][a-zA-Z0-9]{0,62}",
    re.ASCII,
).fullmatch
_is_rkey = re.compile(r"[a-zA-Z0-9_~.:-]{1,512}", re.ASCII).fullmatch
# What nearly every reference is: a post of an account with a did:plc. The rest takes split_uri.
_is_plc_post_uri = re.compile(
    r"at://did:plc:[a-z2-7]{24}/app\.bsky\.feed\.post/(?!\.{1,2}\Z)[a-zA-Z0-9_~.:-]{1,512}",
    re.ASCII,
).fullmatch
_LINE_BREAKS = re.compile(rb"[\r\n]+")
_MAX_DID_LENGTH = 2048
_MAX_NSID_LENGTH = 317
_MAX_URI_LENGTH = 8192
_SUBJECT_POST = frozenset({"app.bsky.feed.like", "app.bsky.feed.repost"})
_SUBJECT_USER = frozenset({"app.bsky.graph.follow", "app.bsky.graph.block"})
_SUBJECT_OTHER = frozenset({"app.bsky.graph.listitem", "app.bsky.graph.verification"})

_decode = msgspec.json.Decoder().decode


class Malformed(ValueError):
    """Bytes from outside that are not what they must be.

    Attributes:
        reason: one of a small closed set of words, fit for a metric's label.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class References(msgspec.Struct, frozen=True, gc=False):
    """The views that an event's record needs beside its author's profile.

    Everything in here has valid syntax and may be sent to the AppView; what had not was left out.
    Posts are AT URIs of `app.bsky.feed.post` with a DID as authority.

    Attributes:
        root: None also where it is the parent.
        wanted: all keys in here, to be looked up one after the other.
    """

    mentions: tuple[str, ...] = ()
    parent: str | None = None
    root: str | None = None
    quote: str | None = None
    has_subject_post: bool = False
    subject_post: str | None = None
    has_subject_user: bool = False
    subject_user: str | None = None
    wanted: tuple[str, ...] = ()


NO_REFERENCES: Final = References()
NOBODY: Final[tuple[str, ...]] = ()


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event as Jetstream sent it, checked.

    Attributes:
        message: the upstream's bytes, line breaks between tokens apart.
        time_us: the upstream's own stamp; neither unique nor ordered.
        upstream_cursor: the `cursor` that a v2 host adds, else 0.
        at_uri: of the record for a commit, else `at://DID`.
        about: the DIDs concerned beside `did`'s own role, for the filter `aboutDids`.
        identity: 64 bits that are equal for two copies of one event, within one process.
        record: the decoded record of a create or update, else None.
        notice: the decoded `identity` or `account` object, else None.
    """

    did: str
    kind: str
    time_us: int
    upstream_cursor: int
    at_uri: str
    collection: str
    operation: str
    rkey: str
    rev: str
    cid: str | None
    message: bytes
    record: dict[str, Any] | None
    notice: dict[str, Any] | None
    references: References
    about: tuple[str, ...]
    identity: int


def parse(text: str | bytes) -> Event:
    """Check one upstream message and read the few fields that decide.

    A message that passes is valid UTF-8 and whole JSON, nests at most MAX_NESTING deep, has at
    most MAX_EVENT_BYTES, and its DID, collection and record key need no escaping anywhere.

    Raises:
        Malformed: for anything else.
    """
    message = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(message) > MAX_EVENT_BYTES:
        raise Malformed("size")
    fields = decode(message)
    if not isinstance(fields, dict):
        raise Malformed("shape")
    return _event(fields, one_line(message))


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
    if data.count(b"{") + data.count(b"[") > MAX_NESTING and _nesting(value) > MAX_NESTING:
        raise Malformed("nesting")
    return value


def one_line(message: bytes) -> bytes:
    """Take the line breaks out of valid JSON, where they can only stand between tokens."""
    if b"\n" in message or b"\r" in message:
        message = _LINE_BREAKS.sub(b"", message)
    return message.strip()


def valid_did(value: object) -> TypeGuard[str]:
    """Tell whether this is a DID by atproto's syntax (specs/did)."""
    return type(value) is str and _is_did(value) is not None and len(value) <= _MAX_DID_LENGTH


def valid_nsid(value: object) -> TypeGuard[str]:
    """Tell whether this is an NSID by atproto's syntax (specs/nsid)."""
    return type(value) is str and len(value) <= _MAX_NSID_LENGTH and _nsid(value)


def valid_rkey(value: object) -> TypeGuard[str]:
    """Tell whether this is a record key by atproto's syntax (specs/record-key)."""
    return type(value) is str and _is_rkey(value) is not None and value not in {".", ".."}


@lru_cache(maxsize=4096)  # the network uses few: a hit is a tenth of the match
def _nsid(value: str) -> bool:
    return _is_nsid(value) is not None


def split_uri(uri: object) -> tuple[str, str, str] | None:
    """Split an AT URI of a record into DID, collection and record key; None where it is not one."""
    if not isinstance(uri, str) or len(uri) > _MAX_URI_LENGTH or not uri.startswith("at://"):
        return None
    parts = uri[5:].split("/")
    if len(parts) != 3:  # noqa: PLR2004 - authority, collection, record key
        return None
    did, collection, rkey = parts
    if valid_did(did) and valid_nsid(collection) and valid_rkey(rkey):
        return did, collection, rkey
    return None


def uri_did(uri: str) -> str:
    """Return the authority of an AT URI that split_uri accepts, or of `at://DID`."""
    return uri[5:].partition("/")[0]


def _event(fields: dict[str, Any], message: bytes) -> Event:
    did, time_us, kind = fields.get("did"), fields.get("time_us"), fields.get("kind")
    if type(time_us) is not int or not 0 <= time_us < MAX_TIME_US:
        raise Malformed("time_us")
    if not valid_did(did):
        raise Malformed("did")
    if type(kind) is not str or kind not in KINDS:
        raise Malformed("kind")
    payload = fields.get(kind)
    if type(payload) is not dict:
        raise Malformed("shape")
    cursor = fields.get("cursor")
    if type(cursor) is not int:
        cursor = 0
    if kind == "commit":
        return _commit(payload, did, time_us, cursor, message)
    return _notice(payload, did, time_us, cursor, message, kind)


# Both take positional arguments: with keywords a call costs as much as the decoding.
def _commit(
    commit: dict[str, Any], did: str, time_us: int, upstream_cursor: int, message: bytes
) -> Event:
    get = commit.get
    collection, rkey, rev = get("collection"), get("rkey"), get("rev")
    operation, cid, record = get("operation"), get("cid"), get("record")
    if not valid_nsid(collection):
        raise Malformed("collection")
    if not valid_rkey(rkey):
        raise Malformed("rkey")
    if type(operation) is not str or operation not in OPERATIONS:
        raise Malformed("operation")
    if type(rev) is not str or len(rev) > MAX_VERSION_LENGTH:
        raise Malformed("shape")
    if cid is not None and type(cid) is not str:
        raise Malformed("shape")
    references, about = NO_REFERENCES, NOBODY
    if operation == "delete":
        record = None
    elif type(record) is dict:
        references, about = _references(collection, record)
    else:
        raise Malformed("shape")
    return Event(
        did,
        "commit",
        time_us,
        upstream_cursor,
        f"at://{did}/{collection}/{rkey}",
        collection,
        operation,
        rkey,
        rev,
        cid,
        message,
        record,
        None,
        references,
        about,
        hash((did, collection, rkey, rev, operation, cid)),
    )


def _notice(
    notice: dict[str, Any], did: str, time_us: int, upstream_cursor: int, message: bytes, kind: str
) -> Event:
    time = notice.get("time")
    if type(time) is not str or len(time) > MAX_VERSION_LENGTH:
        raise Malformed("shape")
    if kind == "account" and type(notice.get("active")) is not bool:
        raise Malformed("shape")
    return Event(
        did,
        kind,
        time_us,
        upstream_cursor,
        f"at://{did}",
        "",
        "",
        "",
        "",
        None,
        message,
        None,
        notice,
        NO_REFERENCES,
        (),
        hash((kind, did, time)),
    )


def _references(collection: str, record: dict[str, Any]) -> tuple[References, tuple[str, ...]]:
    if collection == POST:
        return _post_references(record)
    if collection in _SUBJECT_POST:
        uri = _uri_at(record, "subject")
        about = (uri_did(uri),) if uri else ()
        post = _only_post(uri)
        wanted = (post,) if post else ()
        return References(has_subject_post=True, subject_post=post, wanted=wanted), about
    if collection in _SUBJECT_USER or collection in _SUBJECT_OTHER:
        subject = record.get("subject")
        user = subject if valid_did(subject) else None
        about = (user,) if user else ()
        if collection in _SUBJECT_OTHER:
            return NO_REFERENCES, about
        return References(has_subject_user=True, subject_user=user, wanted=about), about
    return NO_REFERENCES, ()


def _post_references(record: dict[str, Any]) -> tuple[References, tuple[str, ...]]:
    reply, embed, facets = record.get("reply"), record.get("embed"), record.get("facets")
    if reply is None and embed is None and facets is None:
        return NO_REFERENCES, ()
    mentions = _mentions(facets) if facets is not None else NOBODY
    quote = _quote(embed) if embed is not None else None
    parent = root = None
    if reply is not None:
        parent, root = _post_at(reply, "parent"), _post_at(reply, "root")
    posts = [uri for uri in (parent, root, quote) if uri]
    about = tuple(dict.fromkeys((*mentions, *map(uri_did, posts))))
    root = None if root == parent else root
    wanted = (*mentions, *dict.fromkeys(posts))
    return References(mentions, parent, root, quote, wanted=wanted), about


def _mentions(facets: object) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for facet in facets if isinstance(facets, list) else ():
        features = facet.get("features") if isinstance(facet, dict) else None
        for feature in features if isinstance(features, list) else ():
            if not isinstance(feature, dict):
                continue
            if feature.get("$type") == "app.bsky.richtext.facet#mention":
                did = feature.get("did")
                if valid_did(did):
                    found[did] = None
                    if len(found) == MAX_MENTIONS:
                        return tuple(found)
    return tuple(found)


def _quote(embed: object) -> str | None:
    if not isinstance(embed, dict):
        return None
    kind = embed.get("$type")
    if kind == "app.bsky.embed.record":
        return _post_at(embed, "record")
    if kind == "app.bsky.embed.recordWithMedia":
        return _post_at(embed.get("record"), "record")
    return None


def _uri_at(holder: object, key: str) -> str | None:
    """Return the URI of the strongRef under `key`, where everything on the way is as it should."""
    reference = holder.get(key) if type(holder) is dict else None
    uri = reference.get("uri") if type(reference) is dict else None
    if type(uri) is str and (_is_plc_post_uri(uri) or split_uri(uri)):
        return uri
    return None


def _post_at(holder: object, key: str) -> str | None:
    """Return the URI under `key` where it is a post's."""
    return _only_post(_uri_at(holder, key))


def _only_post(uri: str | None) -> str | None:
    return uri if uri and f"/{POST}/" in uri else None


def _nesting(value: object) -> int:
    """Return how deep lists and objects nest: 1 for a flat one."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
