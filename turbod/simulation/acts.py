"""What accounts do: each act puts its events into the state's queue. Pure."""

from collections.abc import Callable
from typing import Any, Final

from turbod.simulation.identifiers import record_cid, time_text
from turbod.simulation.people import Account
from turbod.simulation.posting import (
    external,
    mention,
    mention_thousands,
    post,
    quote,
    quote_other,
    reply,
    write,
)
from turbod.simulation.state import POST, State
from turbod.simulation.writing import Text, words

LIKE: Final = "app.bsky.feed.like"
REPOST: Final = "app.bsky.feed.repost"
FOLLOW: Final = "app.bsky.graph.follow"
BLOCK: Final = "app.bsky.graph.block"
PROFILE: Final = "app.bsky.actor.profile"
_MOST_INACTIVE_SHARE: Final = 0.2
_HUGE_BYTES: Final = 2_000_000


def update_post(state: State) -> None:
    """Some client changes a post in place, which is rare and allowed."""
    changed = state.some_post()
    if changed is None or changed.record is None:
        return
    text = write(state, changed.author, Text())
    record = {key: value for key, value in changed.record.items() if key != "facets"}
    record |= {"text": text.text} | ({"facets": text.facets} if text.facets else {})
    record = dict(sorted(record.items()))
    changed.record = record
    changed.cid = state.commit(changed.author, ("update", POST, changed.rkey, record))[0]


def delete_post(state: State) -> None:
    """Somebody deletes one of their posts."""
    gone = state.some_post()
    if gone is not None:
        gone.deleted, gone.record = True, None
        state.commit(gone.author, ("delete", POST, gone.rkey, None))


def like(state: State) -> None:
    """Somebody likes a post."""
    _engage(state, LIKE)


def repost(state: State) -> None:
    """Somebody reposts a post."""
    _engage(state, REPOST)


def _engage(state: State, collection: str) -> None:
    liked = state.some_post()
    if liked is None:
        return
    actor = state.people.actor()
    subject = {"cid": liked.cid, "uri": liked.uri}
    record: dict[str, Any] = {
        "$type": collection,
        "createdAt": time_text(state.now_us - state.random.randrange(1_500_000)),
        "subject": subject,
    }
    if state.chance(0.2) and state.undoable.get(REPOST):
        reposter, repost_key = state.random.choice(state.undoable[REPOST])
        uri = f"at://{reposter.did}/{REPOST}/{repost_key}"
        record["via"] = {"cid": record_cid(uri.encode()), "uri": uri}
    rkey = state.new_tid()
    state.commit(actor, ("create", collection, rkey, record))
    state.remember(actor, collection, rkey)


def follow(state: State) -> None:
    """Somebody follows another."""
    _relate(state, FOLLOW)


def block(state: State) -> None:
    """Somebody blocks another."""
    _relate(state, BLOCK)


def _relate(state: State, collection: str) -> None:
    actor, other = state.people.actor(), state.people.known()
    if actor is other:
        return
    record = {
        "$type": collection,
        "createdAt": time_text(state.now_us - state.random.randrange(1_500_000)),
        "subject": other.did,
    }
    rkey = state.new_tid()
    state.commit(actor, ("create", collection, rkey, record))
    state.remember(actor, collection, rkey)


def undo(state: State) -> None:
    """Somebody takes a like, repost, follow or block back."""
    collection = state.random.choice((LIKE, LIKE, FOLLOW, FOLLOW, REPOST, BLOCK))
    kept = state.undoable.get(collection)
    if kept:
        place = state.random.randrange(len(kept))
        actor, rkey = kept[place]
        del kept[place]
        if actor.active:
            state.commit(actor, ("delete", collection, rkey, None))


def edit_profile(state: State) -> None:
    """Somebody rewrites their profile; seldom it is deleted, or made for the first time."""
    account = state.people.actor()
    if account.profile is None or state.chance(0.97):
        operation = "update" if account.profile else "create"
        created_us = state.now_us
        account.profile = state.people.profile(account, created_us=created_us)
    else:
        operation, account.profile = "delete", None
    state.commit(account, (operation, PROFILE, "self", account.profile))


def change_handle(state: State) -> None:
    """Somebody changes their handle: an identity event."""
    account = state.people.actor()
    account.handle = state.people.new_handle(account)
    state.notice(account, "identity", time_text(state.now_us))


def go_inactive(state: State, status: str) -> None:
    """An account becomes invisible, whether by its owner or by a moderator."""
    account = state.people.anyone()
    most = len(state.people.accounts) * _MOST_INACTIVE_SHARE
    if not account.active or (status != "deleted" and len(state.inactive) >= most):
        return
    account.active, account.status = False, status
    time = time_text(state.now_us)
    state.notice(account, "account", time)
    if status == "deleted":
        newcomer = state.people.replace(account, state.now_us)
        join(state, newcomer)
    else:
        state.inactive.append(account)


def deactivate(state: State) -> None:
    """Somebody deactivates their account for a while."""
    go_inactive(state, "deactivated")


def take_down(state: State) -> None:
    """A moderator takes an account down."""
    go_inactive(state, "takendown")


def delete_account(state: State) -> None:
    """Somebody deletes their account for good, and another one joins."""
    go_inactive(state, "deleted")


def reactivate(state: State) -> None:
    """An account becomes visible again."""
    if state.inactive:
        account = state.inactive.pop(state.random.randrange(len(state.inactive)))
        account.active, account.status = True, ""
        time = time_text(state.now_us)
        state.notice(account, "identity", time)
        state.notice(account, "account", time)


def join(state: State, account: Account) -> None:
    """Somebody new: identity, account, then the profile, as the official server tells it."""
    time = time_text(state.now_us)
    state.notice(account, "identity", time)
    state.notice(account, "account", time)
    if account.profile is not None:
        account.profile["createdAt"] = time
        state.commit(account, ("create", PROFILE, "self", account.profile))


def go_live(state: State) -> None:
    """Somebody sets the status that says they are streaming."""
    record = {
        "$type": "app.bsky.actor.status",
        "createdAt": time_text(state.now_us),
        "durationMinutes": 240,
        "embed": external(state),
        "status": "app.bsky.actor.status#live",
    }
    account = state.people.actor()
    state.commit(account, ("update", "app.bsky.actor.status", "self", record))


def listen(state: State) -> None:
    """Somebody's player writes a record of another application, with an explicit null in it."""
    record = {
        "$type": "fm.teal.alpha.actor.status",
        "expiry": time_text(state.now_us + 600_000_000),
        "item": {
            "artists": [{"artistName": words(state.random, "en", mean=2)}],
            "duration": None,
            "trackName": words(state.random, "en", mean=3),
        },
        "time": time_text(state.now_us),
    }
    actor = state.people.actor()
    state.commit(actor, ("update", "fm.teal.alpha.actor.status", "self", record))


def write_hugely(state: State) -> None:
    """Somebody's program writes a record of two megabytes, the most that the network takes."""
    record = {"$type": "com.example.huge", "text": "x" * _HUGE_BYTES}
    actor = state.people.actor()
    state.commit(actor, ("create", "com.example.huge", state.new_tid(), record))


ACTS: Final[dict[str, Callable[[State], None]]] = {
    act.__name__: act
    for act in (
        post,
        reply,
        quote,
        quote_other,
        mention,
        update_post,
        delete_post,
        like,
        repost,
        follow,
        block,
        undo,
        edit_profile,
        change_handle,
        deactivate,
        take_down,
        delete_account,
        reactivate,
        go_live,
        listen,
        mention_thousands,
        write_hugely,
    )
}
