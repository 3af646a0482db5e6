"""A record's body, spliced from the event's bytes and the views' bytes. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from turbod.event import NO_REFERENCES, Event, References
from turbod.hydration.cache import Entry
from turbod.record import MAX_RECORD_BYTES, NULL

# What is known by key; None: it could not be asked in time.
Views = dict[str, Entry | None]
# A record's body, how many keys are unresolved, and how many views are built from the stream.
Assembled = tuple[bytes, int, int]
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


def assemble(event: Event, views: Views, cached: Callable[[str], Entry | None]) -> Assembled:
    """Splice a record's body from the views for every key that `wanted` named.

    `cached` is the cache, for authors that are not asked for.
    """
    if not event.has_record:
        entry = cached(event.did)
        views = {} if entry is None else {event.did: entry}
    assembled = _splice(event, views)
    while len(assembled[0]) + _CURSOR_BYTES > MAX_RECORD_BYTES:
        sizes = {key: len(entry.data) for key, entry in views.items() if entry and entry.data}
        if not sizes:
            break
        largest = max(sizes, key=lambda key: sizes[key])
        views = views | {largest: None}
        assembled = _splice(event, views)
    return assembled


def _splice(event: Event, views: Views) -> Assembled:
    """Every event comes by here: one look at each view, one join, and no more than it needs."""
    shown: dict[str | None, bytes] = {}
    unresolved, from_stream, oldest_us = [], [], 0
    for key, entry in views.items():
        if entry is None:
            unresolved.append(key)
        elif entry.data is not None:
            shown[key] = entry.data
            if entry.from_stream:
                from_stream.append(key)
            elif entry.fetched_us < oldest_us or not oldest_us:
                oldest_us = entry.fetched_us
    did, references = event.did, event.references
    beginning = f',"at_uri":"{event.at_uri}","did":"{did}","time_us":{event.time_us},"message":'
    parts = [
        beginning.encode(),
        event.message,
        b',"hydrated_metadata":{"user":',
        shown.get(did, NULL),
    ]
    if references is NO_REFERENCES:
        parts.append(_NO_REFERENCES_SHOWN)
    else:
        parts += _references_shown(references, shown)
    if unresolved:
        parts += (b',"unresolved":', _strings(unresolved))
    if from_stream:
        parts += (b',"from_stream":', _strings(from_stream))
    parts.append(b',"hydrated_us":%d}}' % oldest_us if oldest_us else b"}}")
    return b"".join(parts), len(unresolved), len(from_stream)


def _references_shown(references: References, shown: Mapping[str | None, bytes]) -> list[bytes]:
    get, mentions = shown.get, b""
    if references.mentions:
        named = [b'"%b":%b' % (did.encode(), get(did, NULL)) for did in references.mentions]
        mentions = b",".join(named)
    parts = [
        b',"mentions":{',
        mentions,
        b'},"parent_post":',
        get(references.parent, NULL),
        b',"reply_post":',
        get(references.root, NULL),
        b',"quote_post":',
        get(references.quote, NULL),
    ]
    if references.has_subject_post:
        parts += (b',"subject_post":', get(references.subject_post, NULL))
    if references.has_subject_user:
        parts += (b',"subject_user":', get(references.subject_user, NULL))
    return parts


def _strings(values: Iterable[str]) -> bytes:
    """Return a JSON array of DIDs and AT URIs, whose syntax leaves nothing to escape."""
    return b'["%b"]' % b'","'.join(value.encode() for value in values)
