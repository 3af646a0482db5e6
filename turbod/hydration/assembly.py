"""A record's body, spliced from the event's bytes and the views' bytes. Pure."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from turbod.event import NO_REFERENCES, Event, References
from turbod.hydration.cache import Entry
from turbod.record import MAX_RECORD_BYTES, NULL

# What is known by key; None: it could not be asked in time.
Views = dict[str, Entry | None]
_CURSOR_BYTES: Final = len(b'{"cursor":1745342977546824')
_NO_REFERENCES_SHOWN: Final = (
    b',"mentions":{},"parent_post":null,"reply_post":null,"quote_post":null'
)


def wanted(event: Event) -> tuple[str, ...]:
    """Return the DIDs and URIs whose views belong into the event's record and may be asked for.

    Identity and account events and deletes ask for nothing: their author comes from the cache.
    """
    if not event.has_record:
        return ()
    return (event.did, *event.references.wanted)


class Assembled(NamedTuple):
    """A record's body, and what it tells of its views."""

    body: bytes  # everything behind the cursor
    unresolved: int
    from_stream: int


def assemble(event: Event, views: Views, cached: Callable[[str], Entry | None]) -> Assembled:
    """Splice a record's body from the views for every key that `wanted` named.

    `cached` is the cache, for authors that are not asked for.
    """
    if not event.has_record:
        entry = cached(event.did)
        views = {} if entry is None else {event.did: entry}
    assembled = _splice(event, views)
    while len(assembled.body) + _CURSOR_BYTES > MAX_RECORD_BYTES:
        shown = [key for key, entry in views.items() if entry is not None and entry.data]
        if not shown:
            break
        largest = max(shown, key=lambda key: len(_shown(views, key)))
        views = views | {largest: None}
        assembled = _splice(event, views)
    return assembled


def _splice(event: Event, views: Views) -> Assembled:
    """Every event comes by here: one join, and no more than it needs."""
    references, did = event.references, event.did
    parts = [
        b',"at_uri":"',
        event.at_uri.encode(),
        b'","did":"',
        did.encode(),
        b'","time_us":',
        str(event.time_us).encode(),
        b',"message":',
        event.message,
        b',"hydrated_metadata":{"user":',
        _shown(views, did),
    ]
    if references is NO_REFERENCES:
        parts.append(_NO_REFERENCES_SHOWN)
    else:
        parts += _references_shown(references, views)
    unresolved, from_stream, oldest_us = _origins(views)
    if unresolved:
        parts += (b',"unresolved":', _strings(unresolved))
    if from_stream:
        parts += (b',"from_stream":', _strings(from_stream))
    if oldest_us:
        parts += (b',"hydrated_us":', str(oldest_us).encode())
    parts.append(b"}}")
    return Assembled(b"".join(parts), len(unresolved), len(from_stream))


def _references_shown(references: References, views: Views) -> list[bytes]:
    mentions = b",".join(
        b'"%b":%b' % (did.encode(), _shown(views, did)) for did in references.mentions
    )
    parts = [
        b',"mentions":{',
        mentions,
        b'},"parent_post":',
        _shown(views, references.parent),
        b',"reply_post":',
        _shown(views, references.root),
        b',"quote_post":',
        _shown(views, references.quote),
    ]
    if references.has_subject_post:
        parts += (b',"subject_post":', _shown(views, references.subject_post))
    if references.has_subject_user:
        parts += (b',"subject_user":', _shown(views, references.subject_user))
    return parts


def _shown(views: Views, key: str | None) -> bytes:
    entry = views.get(key) if key is not None else None
    return NULL if entry is None else entry.data or NULL


def _origins(views: Views) -> tuple[list[str], list[str], int]:
    """Return which keys are unresolved, which were built from the stream, the oldest fetch."""
    unresolved, from_stream, oldest_us = [], [], 0
    for key, entry in views.items():
        if entry is None:
            unresolved.append(key)
        elif entry.from_stream:
            from_stream.append(key)
        elif entry.data is not None and (entry.fetched_us < oldest_us or not oldest_us):
            oldest_us = entry.fetched_us
    return unresolved, from_stream, oldest_us


def _strings(values: Iterable[str]) -> bytes:
    """Return a JSON array of DIDs and AT URIs, whose syntax leaves nothing to escape."""
    return b'["%b"]' % b'","'.join(value.encode() for value in values)
