"""What accounts do: each act puts its events into the state's queue. Pure."""

from collections.abc import Callable
from typing import Any, Final

from turbod.simulation.identifiers import plc_did, record_cid, time_text
from turbod.simulation.people import Account, blob
from turbod.simulation.state import POST, Post, State, Write
from turbod.simulation.writing import EMOJI, TAGS, Text, invented, web_address, words

LIKE: Final = "app.bsky.feed.like"
REPOST: Final = "app.bsky.feed.repost"
FOLLOW: Final = "app.bsky.graph.follow"
BLOCK: Final = "app.bsky.graph.block"
PROFILE: Final = "app.bsky.actor.profile"
_QUOTABLE: Final = (
    "app.bsky.feed.generator",
    "app.bsky.graph.list",
    "app.bsky.graph.starterpack",
    "app.bsky.labeler.service",
)
_MOST_INACTIVE_SHARE: Final = 0.2
_MEAN_WORDS: Final = 16
_CROWD: Final = 5_000
_HUGE_BYTES: Final = 2_000_000


def post(state: State) -> None:
    """Somebody writes a post that answers nothing."""
    embed = None
    if state.chance(0.22):
        embed = images(state)
    elif state.chance(0.18):
        embed = external(state)
    publish(state, state.people.actor(), embed=embed)


def reply(state: State) -> None:
    """Somebody answers a post; the root is the thread's, whatever the depth."""
    parent = state.some_post()
    embed = images(state) if state.chance(0.08) else None
    publish(state, state.people.actor(), parent=parent, embed=embed)


def quote(state: State) -> None:
    """Somebody quotes a post, a third of them with images beside it."""
    quoted = state.some_post()
    if quoted is None:
        return post(state)
    record = {
        "$type": "app.bsky.embed.record",
        "record": {"cid": quoted.cid, "uri": quoted.uri},
    }
    embed: dict[str, Any] = record
    if state.chance(1 / 3):
        media = images(state)
        embed = {"$type": "app.bsky.embed.recordWithMedia", "media": media, "record": record}
    parent = state.some_post() if state.chance(0.15) else None
    return publish(state, state.people.actor(), parent=parent, embed=embed)


def quote_other(state: State) -> None:
    """Somebody quotes a feed, a list, a starter pack or a labeler."""
    collection = state.random.choice(_QUOTABLE)
    owner = state.people.accounts[state.random.randrange(min(20, len(state.people.accounts)))]
    rkey = "self" if collection.endswith("service") else f"aaa{owner.number}"
    uri = f"at://{owner.did}/{collection}/{rkey}"
    subject = {"cid": record_cid(uri.encode()), "uri": uri}
    embed = {"$type": "app.bsky.embed.record", "record": subject}
    publish(state, state.people.actor(), embed=embed)


def mention(state: State) -> None:
    """Somebody speaks to one or a few others by name."""
    actor = state.people.actor()
    text = Text()
    for _ in range(1 + int(state.random.expovariate(1.5))):
        other = state.people.known()
        text.add_mention(other.handle, other.did)
    parent = state.some_post() if state.chance(0.5) else None
    publish(state, actor, parent=parent, text=text)


def publish(
    state: State,
    author: Account,
    *,
    parent: Post | None = None,
    embed: dict[str, Any] | None = None,
    text: Text | None = None,
) -> None:
    """Write and commit a post; now and then with its gates, in the same commit."""
    created_us = state.now_us - state.random.randrange(300_000)
    record = _post_record(state, author, parent=parent, embed=embed, text=text)
    record["createdAt"] = time_text(created_us)
    record = dict(sorted(record.items()))
    rkey = state.new_tid()
    uri = f"at://{author.did}/{POST}/{rkey}"
    writes: list[Write] = [("create", POST, rkey, record)]
    if parent is None and state.chance(0.03):
        writes += [_gate(state, name, uri, rkey) for name in ("threadgate", "postgate")]
    cid = state.commit(author, *writes)[0]
    root_uri, root_cid = (parent.root_uri, parent.root_cid) if parent else (uri, cid)
    state.posts.append(Post(uri, cid, author, rkey, root_uri, root_cid, created_us, record=record))


def _post_record(
    state: State,
    author: Account,
    *,
    parent: Post | None,
    embed: dict[str, Any] | None,
    text: Text | None,
) -> dict[str, Any]:
    record: dict[str, Any] = {"$type": POST, "createdAt": ""}
    if embed is not None:
        record["embed"] = embed
    text = write(state, author, text or Text())
    if text.facets:
        record["facets"] = text.facets
    if state.chance(0.9):
        record["langs"] = [author.language]
    if parent is not None:
        record["reply"] = {
            "parent": {"cid": parent.cid, "uri": parent.uri},
            "root": {"cid": parent.root_cid, "uri": parent.root_uri},
        }
    record["text"] = text.text
    return record


def write(state: State, author: Account, text: Text) -> Text:
    """Write the text of a post: words, one of which is this post's own, and what adorns them."""
    random = state.random
    state.posts_made += 1
    text.add(invented(state.posts_made))
    text.add(words(random, author.language, mean=_MEAN_WORDS))
    if state.chance(0.25):
        text.add(random.choice(EMOJI))
    if state.chance(0.1):
        text.add_tag(random.choice(TAGS))
    if state.chance(0.1):
        text.add_link(web_address(random))
    return text


def images(state: State) -> dict[str, Any]:
    """Make an embed of one to four images."""
    random = state.random
    return {
        "$type": "app.bsky.embed.images",
        "images": [
            {
                "alt": words(random, "en", mean=12) if state.chance(0.5) else "",
                "aspectRatio": {
                    "height": random.randrange(500, 4000),
                    "width": random.randrange(500, 4000),
                },
                "image": blob(random, most_bytes=2_000_000),
            }
            for _ in range(random.choice((1, 1, 1, 1, 2, 3, 4)))
        ],
    }


def external(state: State) -> dict[str, Any]:
    """Make an embed of a link with a card."""
    random = state.random
    return {
        "$type": "app.bsky.embed.external",
        "external": {
            "description": words(random, "en", mean=20),
            "thumb": blob(random, most_bytes=300_000),
            "title": words(random, "en", mean=8),
            "uri": web_address(random),
        },
    }


def _gate(state: State, name: str, uri: str, rkey: str) -> Write:
    time = time_text(state.now_us)
    collection = f"app.bsky.feed.{name}"
    if name == "threadgate":
        rule = {"$type": "app.bsky.feed.threadgate#mentionRule"}
        record = {"$type": collection, "allow": [rule], "createdAt": time, "post": uri}
    else:
        rule = {"$type": "app.bsky.feed.postgate#disableRule"}
        record = {"$type": collection, "createdAt": time, "embeddingRules": [rule], "post": uri}
    return "create", collection, rkey, record


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


def mention_thousands(state: State) -> None:
    """Somebody's program names 5,000 accounts in one post: half a megabyte, and an event."""
    text = Text("all of you")
    feature = {"$type": "app.bsky.richtext.facet#mention", "did": ""}
    people = [plc_did(f"crowd {state.random.getrandbits(64)}") for _ in range(_CROWD)]
    features = [feature | {"did": did} for did in people]
    text.facets.append({"features": features, "index": {"byteEnd": 10, "byteStart": 0}})
    publish(state, state.people.actor(), text=text)


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
