"""What a subscriber asked for: read from a query or an options_update, matched by a head. Pure."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from turbod.event import KINDS, OPERATIONS, valid_did, valid_nsid
from turbod.record import Head
from turbod.redaction import redacted

MAX_COLLECTIONS: Final = 100
MAX_DIDS: Final = 10_000
MAX_BATCH: Final = 100
MAX_SHARDS: Final = 1024
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_SIZE: Final = 2**53 - 1  # what JavaScript's numbers hold exactly
SHOWN_CHARACTERS: Final = 100  # of a client's own words in a refusal

FILTERS: Final = frozenset(
    {
        "wantedCollections",
        "wantedDids",
        "aboutDids",
        "kinds",
        "operations",
        "maxMessageSizeBytes",
    }
)
STREAM_PARAMETERS: Final = FILTERS | {
    "cursor",
    "batch",
    "shard",
    "compress",
    "metadata",
    "requireHello",
}
RECORDS_PARAMETERS: Final = FILTERS | {"cursor", "shard", "limit"}

_REPEATED = frozenset({"wantedCollections", "wantedDids", "aboutDids", "kinds", "operations"})
_is_number = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII).fullmatch
_is_shard = re.compile(r"(0|[1-9][0-9]{0,3})/([1-9][0-9]{0,3})", re.ASCII).fullmatch


class InvalidRequest(ValueError):
    """What a client asked for cannot be: names the parameter and says what is allowed."""


class Filter(msgspec.Struct, frozen=True):
    """Which records a subscriber is sent. An empty set leaves nothing out.

    Attributes:
        collections: NSIDs that a commit may be of, beside those that begin with `prefixes`.
        prefixes: each ends with a dot.
        dids: authors; with `about` either is enough.
        about: DIDs that the event concerns.
        kinds: of commit, identity, account.
        operations: of commits.
        max_size_bytes: of a record's line; 0 for none.
        shard: (i, n) for the i-th of n parts of all DIDs.
    """

    collections: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    dids: frozenset[str] = frozenset()
    about: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()
    max_size_bytes: int = 0
    shard: tuple[int, int] | None = None

    def matches(self, head: Head, size_bytes: int) -> bool:
        """Tell whether a record is to be sent, by its head and the length of its line."""
        # The cheapest and the most selective first.
        if (self.dids or self.about) and not (
            head.did in self.dids or not self.about.isdisjoint(head.about)
        ):
            return False
        if self.kinds and head.kind not in self.kinds:
            return False
        if head.kind == "commit" and not self._takes_commit(head):
            return False
        if self.max_size_bytes and size_bytes > self.max_size_bytes:
            return False
        return self.shard is None or shard_number(head.did) % self.shard[1] == self.shard[0]

    def _takes_commit(self, head: Head) -> bool:
        if self.operations and head.operation not in self.operations:
            return False
        if not self.collections and not self.prefixes:
            return True
        return head.collection in self.collections or head.collection.startswith(self.prefixes)

    @property
    def did_count(self) -> int:
        """How many DIDs it holds in memory."""
        return len(self.dids) + len(self.about)

    @property
    def all_dids(self) -> frozenset[str] | None:
        """Whom a matching record is by or about, or None for anybody."""
        # One of the two where the other is empty: a copy of 10,000 DIDs costs 330 KB.
        return (
            self.dids | self.about if self.dids and self.about else self.dids or self.about or None
        )


EVERYTHING: Final = Filter()


class Options(msgspec.Struct, frozen=True):
    """All that a query can say. `cursor` is as the client wrote it, `metadata` None for unsaid."""

    filter: Filter = EVERYTHING
    cursor: str | None = None
    batch: int = MAX_BATCH
    compress: bool = False
    metadata: bool | None = None
    require_hello: bool = False
    limit: int = DEFAULT_LIMIT


@lru_cache(maxsize=65_536)
def shard_number(did: str) -> int:
    """Return the first 8 bytes of SHA-256(DID), big-endian: the shard is this modulo n."""
    return int.from_bytes(sha256(did.encode()).digest()[:8], "big")


def read_query(query: str, *, known: frozenset[str], served: Sequence[str]) -> Options:
    """Read a request's query, of which the parameters in `known` may be given.

    Args:
        query: what stands behind the question mark.
        known: STREAM_PARAMETERS or RECORDS_PARAMETERS.
        served: the collections, or prefixes ending `.*`, that this server has records of.

    Raises:
        InvalidRequest: for a parameter that is unknown, malformed, doubled or beyond its limit.
    """
    given = _split_query(query, known)

    def single(name: str) -> str | None:
        values = given.get(name, [])
        if len(values) > 1:
            raise InvalidRequest(f"{name} was given {len(values)} times; once is allowed")
        return values[0] if values else None

    return Options(
        filter=_filter(
            given,
            max_size_bytes=_number(single, "maxMessageSizeBytes", 0, 0, MAX_SIZE),
            shard=_shard(single("shard")),
            served=served,
        ),
        cursor=single("cursor"),
        batch=_number(single, "batch", MAX_BATCH, 1, MAX_BATCH),
        compress=_compress(single("compress")),
        metadata=_boolean("metadata", single("metadata")),
        require_hello=_boolean("requireHello", single("requireHello")) or False,
        limit=_number(single, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
    )


def read_options_update(
    message: bytes, *, served: Sequence[str], shard: tuple[int, int] | None
) -> Filter:
    """Read a client's options_update into the filter that replaces its whole filter.

    A shard is no part of the message: it stays as the connection's query gave it.

    Raises:
        InvalidRequest: for anything else than an options_update.
    """
    try:
        update: object = msgspec.json.decode(message)
    except (ValueError, RecursionError):
        raise InvalidRequest("the message is not JSON; an options_update is expected") from None
    if not isinstance(update, dict) or update.get("type") != "options_update":
        raise InvalidRequest('a message is an object whose type is "options_update"')
    payload = update.get("payload")
    if not isinstance(payload, dict) or len(update) != 2:  # noqa: PLR2004 - type and payload
        raise InvalidRequest("an options_update has type, an object as payload, and nothing else")
    return _payload_filter(payload, served=served, shard=shard)


def _payload_filter(
    payload: dict[str, Any], *, served: Sequence[str], shard: tuple[int, int] | None
) -> Filter:
    for name, value in payload.items():
        if name not in FILTERS:
            raise InvalidRequest(f"{_shown(name)} is not known; {_listed(FILTERS)} are")
        if name in _REPEATED and not _strings(value):
            raise InvalidRequest(f"{name} must be an array of strings")
    size = payload.get("maxMessageSizeBytes", 0)
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise InvalidRequest(f"maxMessageSizeBytes must be a whole number, 0 to {MAX_SIZE}")
    return _filter(payload, max_size_bytes=size, shard=shard, served=served)


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _split_query(query: str, known: frozenset[str]) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError:
        raise InvalidRequest("the query is not percent-encoded UTF-8") from None
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            raise InvalidRequest(f"{_shown(name)} is not known; {_listed(known)} are")
        given.setdefault(name, []).append(value)
    return given


def _filter(
    given: Mapping[str, Sequence[str]],
    *,
    max_size_bytes: int,
    shard: tuple[int, int] | None,
    served: Sequence[str],
) -> Filter:
    wanted = given.get("wantedCollections", ())
    if len(wanted) > MAX_COLLECTIONS:
        raise InvalidRequest(
            f"wantedCollections was given {len(wanted)} times; {MAX_COLLECTIONS} are allowed"
        )
    collections, prefixes = read_collections("wantedCollections", wanted)
    for name in wanted:
        if not any(_overlap(name, other) for other in served):
            raise InvalidRequest(
                f"wantedCollections: {_shown(name)} matches nothing here; "
                f"this server has {', '.join(served)}"
            )
    return Filter(
        collections=collections,
        prefixes=prefixes,
        dids=read_dids("wantedDids", given.get("wantedDids", ())),
        about=read_dids("aboutDids", given.get("aboutDids", ())),
        kinds=read_words("kinds", given.get("kinds", ()), KINDS),
        operations=read_words("operations", given.get("operations", ()), OPERATIONS),
        max_size_bytes=max_size_bytes,
        shard=shard,
    )


def read_collections(name: str, values: Sequence[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the NSIDs and the prefixes among the values of what is called `name`.

    Raises:
        InvalidRequest: one is neither.
    """
    for value in values:
        # A prefix is one where something of two more segments would be an NSID.
        if not valid_nsid(value[:-1] + "a.a" if value.endswith(".*") else value):
            raise InvalidRequest(
                f"{name}: {_shown(value)} is neither an NSID such as app.bsky.feed.post "
                "nor a prefix such as app.bsky.feed.*"
            )
    prefixes = {value[:-1] for value in values if value.endswith(".*")}
    nsids = frozenset(value for value in values if not value.endswith(".*"))
    return nsids, tuple(sorted(prefixes))


def _overlap(one: str, other: str) -> bool:
    """Tell whether some collection is named by both, each an NSID or a prefix ending `.*`."""
    if one.endswith(".*") and other.endswith(".*"):
        return one[:-1].startswith(other[:-1]) or other[:-1].startswith(one[:-1])
    if one.endswith(".*"):
        return other.startswith(one[:-1])
    return one.startswith(other[:-1]) if other.endswith(".*") else one == other


def read_dids(name: str, values: Sequence[str], *, most: int = MAX_DIDS) -> frozenset[str]:
    """Return the DIDs that are the values of what is called `name`.

    Raises:
        InvalidRequest: one is none, or they are too many.
    """
    if len(values) > most:
        raise InvalidRequest(f"{name} has {len(values)} DIDs; {most} are allowed")
    for value in values:
        if not valid_did(value):
            raise InvalidRequest(f"{name}: {_shown(value)} is not a DID such as did:plc:...")
    return frozenset(values)


def read_words(name: str, values: Sequence[str], allowed: Collection[str]) -> frozenset[str]:
    """Return the words that are the values of what is called `name`; none where they are all.

    Raises:
        InvalidRequest: one is not allowed.
    """
    for value in values:
        if value not in allowed:
            raise InvalidRequest(f"{name}: {_shown(value)} is none of {_listed(allowed)}")
    # All of them leave nothing out, as none does: so the two are one filter.
    chosen = frozenset(values)
    return frozenset() if chosen == set(allowed) else chosen


def _number(
    single: Callable[[str], str | None], name: str, default: int, least: int, most: int
) -> int:
    text = single(name)
    if text is None:
        return default
    if not _is_number(text) or not least <= int(text) <= most:
        raise InvalidRequest(f"{name}: {_shown(text)} is not a whole number, {least} to {most}")
    return int(text)


def _boolean(name: str, text: str | None) -> bool | None:
    if text not in {None, "true", "false"}:
        raise InvalidRequest(f"{name}: {_shown(str(text))} is neither true nor false")
    return None if text is None else text == "true"


def _compress(text: str | None) -> bool:
    if text not in {None, "zstd"}:
        raise InvalidRequest(f"compress: {_shown(str(text))} is not known; zstd is")
    return text == "zstd"


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = _is_shard(text)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not index < count <= MAX_SHARDS:
        raise InvalidRequest(
            f"shard: {_shown(text)} is not i/n with 0 <= i < n <= {MAX_SHARDS}, such as 0/4"
        )
    return index, count


def _shown(text: str) -> str:
    """Return a client's own words, short; a token that went to the wrong place is none of them."""
    known = redacted(text[: 2 * SHOWN_CHARACTERS])
    short = known if len(known) <= SHOWN_CHARACTERS else known[:SHOWN_CHARACTERS] + "..."
    return ascii(short)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
