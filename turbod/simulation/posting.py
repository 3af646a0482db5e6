"""What accounts write: posts of every kind, their embeds and gates. Pure."""

from typing import Any, Final

from turbod.simulation.identifiers import plc_did, record_cid, time_text
from turbod.simulation.people import Account, blob
from turbod.simulation.state import POST, Post, State, Write
from turbod.simulation.writing import EMOJI, TAGS, Text, invented, web_address, words

_QUOTABLE: Final = (
    "app.bsky.feed.generator",
    "app.bsky.graph.list",
    "app.bsky.graph.starterpack",
    "app.bsky.labeler.service",
)
_MEAN_WORDS: Final = 16
_CROWD: Final = 5_000


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


def mention_thousands(state: State) -> None:
    """Somebody's program names 5,000 accounts in one post: half a megabyte, and an event."""
    text = Text("all of you")
    feature = {"$type": "app.bsky.richtext.facet#mention", "did": ""}
    people = [plc_did(f"crowd {state.random.getrandbits(64)}") for _ in range(_CROWD)]
    features = [feature | {"did": did} for did in people]
    text.facets.append({"features": features, "index": {"byteEnd": 10, "byteStart": 0}})
    publish(state, state.people.actor(), text=text)
