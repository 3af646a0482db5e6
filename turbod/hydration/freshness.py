"""What an event on the stream makes outdated, takes away or brings back. Pure.

A view shows accounts and records; each DID and AT URI in it is a ref. The stream names the refs
that changed, and every cached view that shows one of them is outdated. Likes, reposts, follows and
blocks only move counters, which expiry alone keeps in bounds.
"""

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


class Effect(msgspec.Struct, frozen=True):
    """What one event does to what is known.

    Attributes:
        outdated: refs whose views must be asked for again.
        gone: a ref that must not be shown any more, or None.
        back: a ref that may be shown again, if `version` is later than what took it away, or None.
        version: the commit's `rev`, or the account event's `time`.
    """

    outdated: tuple[str, ...] = ()
    gone: str | None = None
    back: str | None = None
    version: str = ""


NOTHING: Final = Effect()


def effect(event: Event) -> Effect:
    """Return what an event does to cached views."""
    if event.kind == "commit":
        return _post(event) if event.collection == POST else _other(event)
    if event.kind == "identity":
        return Effect(outdated=(event.did,))
    assert event.notice is not None, "account events carry their object"
    time = event.notice["time"]
    if event.notice["active"]:
        return Effect(back=event.did, version=time)
    return Effect(outdated=(event.did,), gone=event.did, version=time)


def _post(event: Event) -> Effect:
    if event.operation == "create":
        return Effect(back=event.at_uri, version=event.rev)
    if event.operation == "update":
        return Effect(outdated=(event.at_uri,), back=event.at_uri, version=event.rev)
    return Effect(outdated=(event.at_uri,), gone=event.at_uri, version=event.rev)


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
