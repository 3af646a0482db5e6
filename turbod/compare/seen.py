"""What is compared of one event, read from a Jetstream's message or a turbod's record. Pure."""

import msgspec

from turbod.envelope import Malformed
from turbod.event import Event, parse


class Seen(msgspec.Struct, frozen=True, gc=False):
    """One event as one stream brought it.

    Attributes:
        identity: equal for two copies of one event, within one process.
        collection: its kind for what is no commit.
        rev: empty for what is no commit.
        cursor: a turbod's, or the number that a v2 host gives; 0 for none.
        views: views that are there.
        unresolved: what the AppView could not be asked about.
    """

    identity: int
    did: str
    collection: str
    rev: str
    uri: str
    time_us: int
    cursor: int = 0
    views: int = 0
    unresolved: int = 0


class _View(msgspec.Struct, gc=False):
    """Any object: nothing of it is kept."""


class _Hydrated(msgspec.Struct, gc=False):
    user: _View | None
    mentions: dict[str, _View | None]
    parent_post: _View | None
    reply_post: _View | None
    quote_post: _View | None
    subject_post: _View | None = None
    subject_user: _View | None = None
    unresolved: list[str] = []

    @property
    def count(self) -> int:
        views = (self.user, self.parent_post, self.reply_post, self.quote_post)
        subjects = (self.subject_post, self.subject_user)
        return sum(view is not None for view in (*views, *subjects, *self.mentions.values()))


class _Line(msgspec.Struct, gc=False):
    cursor: int
    message: msgspec.Raw
    hydrated_metadata: _Hydrated


_decode_line = msgspec.json.Decoder(_Line).decode


def of_message(message: bytes) -> Seen:
    """Read an event as a Jetstream sends it, as strictly as turbod itself does.

    Raises:
        Malformed: it is none, and turbod would drop it.
    """
    event = parse(message)
    return _seen(event, event.upstream_cursor)


def of_line(line: bytes) -> Seen:
    """Read a turbod's record.

    Raises:
        Malformed: it is none.
    """
    try:
        decoded = _decode_line(line)
    except (ValueError, RecursionError):  # msgspec's and Unicode's errors are ValueErrors
        raise Malformed("json") from None
    hydrated = decoded.hydrated_metadata
    return _seen(
        parse(bytes(decoded.message)),
        decoded.cursor,
        hydrated.count,
        len(hydrated.unresolved),
    )


def _seen(event: Event, cursor: int, views: int = 0, unresolved: int = 0) -> Seen:
    return Seen(
        event.identity,
        event.did,
        event.collection or event.kind,
        event.rev,
        event.at_uri,
        event.time_us,
        cursor,
        views,
        unresolved,
    )
