"""A record's body, spliced from the event's bytes and the views' bytes. Pure."""

from collections.abc import Callable, Iterable

from turbod.event import NO_REFERENCES, Event
from turbod.hydration.cache import Entry
from turbod.record import MAX_RECORD_BYTES, NULL

# What is known by key; None: it could not be asked in time.
Views = dict[str, Entry | None]
_CURSOR_BYTES = len(b'{"cursor":1745342977546824')


def wanted(event: Event) -> Iterable[str]:
    """Return the DIDs and URIs whose views belong into the event's record and may be asked for.

    Identity and account events and deletes ask for nothing: their author comes from the cache.
    """
    references = event.references
    if event.record is None:
        return ()
    if references is NO_REFERENCES:
        return (event.did,)
    posts_and_subject = (
        references.parent,
        references.root,
        references.quote,
        references.subject_post,
        references.subject_user,
    )
    others = (key for key in posts_and_subject if key is not None)
    return dict.fromkeys((event.did, *references.mentions, *others))


def assemble(
    event: Event, views: Views, cached: Callable[[str], Entry | None]
) -> tuple[bytes, int, int]:
    """Splice the record's body, everything behind the cursor.

    Args:
        event: the event.
        views: for every key that `wanted` named.
        cached: the cache, for authors that are not asked for.

    Returns:
        The body, how many of its views are unresolved, and how many were built from the stream.
    """
    if event.record is None:
        views = {event.did: cached(event.did) or _nothing(event.did)}
    dropped: set[str] = set()
    body = _body(event, views, dropped)
    while len(body) + _CURSOR_BYTES > MAX_RECORD_BYTES:
        shown = (key for key, entry in views.items() if entry and entry.data and key not in dropped)
        largest = max(shown, key=lambda key: len(_data(views[key])), default=None)
        if largest is None:
            break
        dropped.add(largest)
        body = _body(event, views, dropped)
    unresolved = sum(view is None for view in views.values()) + len(dropped)
    return body, unresolved, sum(view is not None and view.from_stream for view in views.values())


def _data(entry: Entry | None) -> bytes:
    return (entry.data if entry is not None else None) or b""


def _nothing(key: str) -> Entry:
    return Entry(key, None, (key,), 0, 0, 0.0)


def _body(event: Event, views: Views, dropped: set[str]) -> bytes:
    references = event.references

    def show(key: str | None) -> bytes:
        return (key is not None and key not in dropped and _data(views.get(key))) or NULL

    mentions = b",".join(b'"%b":%b' % (did.encode(), show(did)) for did in references.mentions)
    return (
        b',"at_uri":"%b","did":"%b","time_us":%d,"message":%b,"hydrated_metadata":{"user":%b,'
        b'"mentions":{%b},"parent_post":%b,"reply_post":%b,"quote_post":%b%b}}'
        % (
            event.at_uri.encode(),
            event.did.encode(),
            event.time_us,
            event.message,
            show(event.did),
            mentions,
            show(references.parent),
            show(references.root),
            show(references.quote),
            _where_they_apply(event, views, dropped, show),
        )
    )


def _where_they_apply(
    event: Event, views: Views, dropped: set[str], show: Callable[[str | None], bytes]
) -> bytes:
    references, more = event.references, b""
    if references.has_subject_post:
        more += b',"subject_post":%b' % show(references.subject_post)
    if references.has_subject_user:
        more += b',"subject_user":%b' % show(references.subject_user)
    unresolved = [key for key, entry in views.items() if entry is None or key in dropped]
    if unresolved:
        more += b',"unresolved":%b' % _strings(unresolved)
    shown = [entry for key, entry in views.items() if entry and entry.data and key not in dropped]
    from_stream = [entry.key for entry in shown if entry.from_stream]
    if from_stream:
        more += b',"from_stream":%b' % _strings(from_stream)
    fetched = [entry.fetched_us for entry in shown if not entry.from_stream]
    if fetched:
        more += b',"hydrated_us":%d' % min(fetched)
    return more


def _strings(values: Iterable[str]) -> bytes:
    """Return a JSON array of DIDs and AT URIs, whose syntax leaves nothing to escape."""
    return b"[%b]" % b",".join(b'"%b"' % value.encode() for value in values)
