"""One upstream event: what is checked, what is read from it, whom it concerns. Pure."""

import re
from functools import lru_cache
from typing import Any, Final, TypeGuard

import msgspec

from turbod.envelope import Commit, Envelope, Fields, Malformed, Reference, Reply, one_line, read

MAX_EVENT_BYTES: Final = 1024 * 1024
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
_is_rkey = re.compile(r"[a-zA-Z0-9_~.:-]+", re.ASCII).fullmatch
# What nearly every reference is: a post of an account with a did:plc. The rest takes split_uri.
_plc_post = re.compile(
    r"at://(did:plc:[a-z2-7]{24})/app\.bsky\.feed\.post/(?!\.{1,2}\Z)[a-zA-Z0-9_~.:-]{1,512}",
    re.ASCII,
).fullmatch
_MAX_DID_LENGTH = 2048
_MAX_NSID_LENGTH = 317
_MAX_RKEY_LENGTH = 512
_MAX_URI_LENGTH = 8192
_SUBJECT_POST = frozenset({"app.bsky.feed.like", "app.bsky.feed.repost"})
_SUBJECT_USER = frozenset({"app.bsky.graph.follow", "app.bsky.graph.block"})
_SUBJECT_OTHER = frozenset({"app.bsky.graph.listitem", "app.bsky.graph.verification"})


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
    wanted: tuple[str, ...] = ()
    has_subject_post: bool = False
    subject_post: str | None = None
    has_subject_user: bool = False
    subject_user: str | None = None


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
        has_record: it is a create or an update.
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
    has_record: bool
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
    return _event(read(message), one_line(message))


def valid_did(value: object) -> TypeGuard[str]:
    """Tell whether this is a DID by atproto's syntax (specs/did)."""
    return type(value) is str and _is_did(value) is not None and len(value) <= _MAX_DID_LENGTH


def valid_nsid(value: object) -> TypeGuard[str]:
    """Tell whether this is an NSID by atproto's syntax (specs/nsid)."""
    return type(value) is str and len(value) <= _MAX_NSID_LENGTH and _nsid(value)


def valid_rkey(value: object) -> TypeGuard[str]:
    """Tell whether this is a record key by atproto's syntax (specs/record-key)."""
    if type(value) is not str or len(value) > _MAX_RKEY_LENGTH:
        return False
    if value.isalnum() and value.isascii():  # nearly all, in half of the match's time
        return True
    return _is_rkey(value) is not None and value not in {".", ".."}


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
    return uri.split("/", 3)[2]


def _event(fields: Envelope, message: bytes) -> Event:
    did, time_us, kind, cursor = fields.did, fields.time_us, fields.kind, fields.cursor
    if type(time_us) is not int or not 0 <= time_us < MAX_TIME_US:
        raise Malformed("time_us")
    if not valid_did(did):
        raise Malformed("did")
    if type(cursor) is not int:
        cursor = 0
    if kind == "commit":
        return _commit(fields.commit, did, time_us, cursor, message)
    if type(kind) is not str or kind not in KINDS:
        raise Malformed("kind")
    return _notice(getattr(fields, kind), did, time_us, cursor, message, kind)


# Both take positional arguments: with keywords a call costs as much as the decoding.
def _commit(commit: object, did: str, time_us: int, upstream_cursor: int, message: bytes) -> Event:
    if type(commit) is not Commit:
        raise Malformed("shape")
    collection, rkey, rev = commit.collection, commit.rkey, commit.rev
    operation, cid, record = commit.operation, commit.cid, commit.record
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
    references, about, has_record = NO_REFERENCES, NOBODY, operation != "delete"
    if has_record:
        if type(record) is not Fields:
            raise Malformed("shape")
        references, about = _references(collection, record)
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
        has_record,
        None,
        references,
        about,
        hash((did, collection, rkey, rev, operation, cid)),
    )


def _notice(
    notice: object, did: str, time_us: int, upstream_cursor: int, message: bytes, kind: str
) -> Event:
    if not isinstance(notice, dict):
        raise Malformed("shape")
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
        False,
        notice,
        NO_REFERENCES,
        (),
        hash((kind, did, time)),
    )


def _references(collection: str, record: Fields) -> tuple[References, tuple[str, ...]]:
    if collection == POST:
        return _post_references(record)
    if collection in _SUBJECT_POST:
        parts = _split_reference(record.subject)
        about = (parts[0],) if parts else ()
        post = parts[1] if parts else None
        wanted = (post,) if post else ()
        return References(has_subject_post=True, subject_post=post, wanted=wanted), about
    if collection in _SUBJECT_USER or collection in _SUBJECT_OTHER:
        subject = record.subject
        user = subject if valid_did(subject) else None
        about = (user,) if user else ()
        if collection in _SUBJECT_OTHER:
            return NO_REFERENCES, about
        return References(has_subject_user=True, subject_user=user, wanted=about), about
    return NO_REFERENCES, ()


def _post_references(record: Fields) -> tuple[References, tuple[str, ...]]:
    reply, embed, facets = record.reply, record.embed, record.facets
    if reply is None and embed is None and facets is None:
        return NO_REFERENCES, ()
    mentions = NOBODY if facets is None else _mentions(facets)
    authors: dict[str, str] = {}
    parent = root = quote = None
    if type(reply) is Reply:
        parent = _post(reply.parent, authors)
        root = None if reply.root == reply.parent else _post(reply.root, authors)
        root = None if root == parent else root
    if embed is not None:
        quote = _post(_quoted(embed), authors)
    about = tuple(dict.fromkeys((*mentions, *authors.values())))
    return References(mentions, parent, root, quote, (*mentions, *authors)), about


def _post(reference: object, authors: dict[str, str]) -> str | None:
    """Return the post that a strongRef leads to, its author noted; None where it leads to none."""
    did, post = _split_reference(reference) or (None, None)
    if did is not None and post is not None:
        authors[post] = did
    return post


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


def _quoted(embed: object) -> object:
    """Return the strongRef of the post that is quoted."""
    if not isinstance(embed, dict):
        return None
    kind, record = embed.get("$type"), embed.get("record")
    if kind == "app.bsky.embed.record":
        return record
    if kind == "app.bsky.embed.recordWithMedia" and isinstance(record, dict):
        return record.get("record")
    return None


def _split_reference(reference: object) -> tuple[str, str | None] | None:
    """Return whose record a strongRef leads to, and its URI where that is a post's."""
    if type(reference) is Reference:
        uri: object = reference.uri
    else:
        uri = reference.get("uri") if isinstance(reference, dict) else None
    if type(uri) is not str:
        return None
    if match := _plc_post(uri):
        return match[1], uri
    parts = split_uri(uri)
    return (parts[0], uri if parts[1] == POST else None) if parts else None
