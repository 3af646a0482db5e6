"""What an event on the stream makes outdated, takes away or brings back. Pure.

A view shows accounts and records; each DID and AT URI in it is a ref. The stream names the refs
that changed, and every cached view that shows one of them is outdated. Likes, reposts, follows and
blocks only move counters, which expiry alone keeps in bounds.
"""

from enum import Enum
from typing import Final

import msgspec

from turbod.event import POST, Event

_PROFILE_SHOWS: Final = frozenset(
    {
        "app.bsky.actor.profile",
        "app.bsky.actor.status",
        "app.bsky.labeler.service",
        "app.bsky.notification.declaration",
        "chat.bsky.actor.declaration",
        "com.germnetwork.declaration",
    }
)
_SHOWN_BY_URI: Final = frozenset(
    {
        "app.bsky.feed.generator",
        "app.bsky.graph.list",
        "app.bsky.graph.starterpack",
        "app.bsky.labeler.service",
    }
)
_GATES: Final = frozenset({"app.bsky.feed.threadgate", "app.bsky.feed.postgate"})
_VERIFICATION: Final = "app.bsky.graph.verification"


class Fate(Enum):
    """What becomes of the post or account that an event is about."""

    GONE = "gone"  # it must not be shown any more
    BACK = "back"  # it may be shown again, if the event is later than what took it away


class Effect(msgspec.Struct, frozen=True):
    """What one event does to what is known.

    Attributes:
        outdated: refs whose views must be asked for again.
        fate: of the event's own post or account, or None.
    """

    outdated: tuple[str, ...] = ()
    fate: Fate | None = None


NOTHING: Final = Effect()
_BACK: Final = Effect(fate=Fate.BACK)


def effect(event: Event) -> Effect:
    """Return what an event does to cached views."""
    if event.kind == "commit":
        return _post(event) if event.collection == POST else _other(event)
    if event.kind == "identity":
        return Effect(outdated=(event.did,))
    assert event.notice is not None, "account events carry their object"
    return _BACK if event.notice["active"] else Effect((event.did,), Fate.GONE)


def subject(event: Event) -> tuple[str, str]:
    """Return whose fate an event decides, and as of when: the `rev`, or the notice's `time`.

    Both order as text. Without its Z a time of whole seconds comes before one with a fraction.
    """
    if event.notice is not None:
        return event.did, event.notice["time"].removesuffix("Z")
    return event.at_uri, event.rev


def _post(event: Event) -> Effect:
    if event.operation == "create":
        return _BACK
    return Effect((event.at_uri,), Fate.BACK if event.operation == "update" else Fate.GONE)


def _other(event: Event) -> Effect:
    refs: list[str] = []
    if event.collection in _PROFILE_SHOWS:
        refs.append(event.did)
    if event.collection in _SHOWN_BY_URI and event.operation != "create":
        refs.append(event.at_uri)
    if event.collection in _GATES:
        refs.append(f"at://{event.did}/{POST}/{event.rkey}")
    if event.collection == _VERIFICATION:
        refs.extend(event.about)
    return Effect(outdated=tuple(refs)) if refs else NOTHING
