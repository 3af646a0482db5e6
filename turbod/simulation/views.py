"""The AppView's views of accounts and posts, the official server's keys in its order. Pure."""

from typing import Any, Final

import msgspec

from turbod.event import uri_did
from turbod.simulation.identifiers import record_cid
from turbod.simulation.index import POST, Index, IndexedAccount, IndexedPost

_CDN: Final = "https://cdn.bsky.app/img"
_MOST_EMBED_DEPTH: Final = 2  # below it the official AppView renders no embeds
_RECORD: Final = "app.bsky.embed.record"
_UNSEEN: Final = frozenset(
    f"{_RECORD}#{view}" for view in ("viewNotFound", "viewBlocked", "viewDetached")
)
_encode = msgspec.json.Encoder().encode


def profile_view(index: Index, did: str) -> bytes | None:
    """Return the profileViewDetailed of an account, None where the AppView would leave it out."""
    account = index.visible(did)
    if account is None:
        return None
    record = account.profile or {}
    view = _basic(account)
    owned = {"lists": 0, "feedgens": 0, "starterPacks": 0, "labeler": account.labeler}
    view["associated"] = owned | view["associated"]
    if "description" in record:
        view["description"] = record["description"]
    if account.indexed:
        view["indexedAt"] = account.indexed
    if "banner" in record:
        view["banner"] = _image("banner", did, record["banner"])
    view["followersCount"] = account.followers
    view["followsCount"] = account.follows
    view["postsCount"] = account.posts
    if "pinnedPost" in record:
        view["pinnedPost"] = record["pinnedPost"]
    return _encode(view)


def post_view(index: Index, uri: str) -> bytes | None:
    """Return the postView of a post, None where the AppView would leave it out."""
    post = index.visible_post(uri)
    if post is None:
        return None
    view: dict[str, Any] = {
        "uri": post.uri,
        "cid": post.cid,
        "author": _basic(index.accounts[post.did]),
        "record": msgspec.Raw(post.record_json),
    }
    if (embed := _embed(index, post, depth=0)) is not None:
        view["embed"] = embed
    view |= {
        "bookmarkCount": 0,
        "replyCount": post.replies,
        "repostCount": post.reposts,
        "likeCount": post.likes,
        "quoteCount": post.quotes,
        "indexedAt": post.indexed,
        "labels": [],
    }
    if post.threadgate is not None:
        view["threadgate"] = {
            "uri": post.threadgate.uri,
            "cid": post.threadgate.cid,
            "record": msgspec.Raw(post.threadgate.record_json),
            "lists": [],
        }
    return _encode(view)


def _basic(account: IndexedAccount) -> dict[str, Any]:
    """Return the profileViewBasic."""
    record = account.profile or {}
    view: dict[str, Any] = {"did": account.did, "handle": account.handle}
    if "displayName" in record:
        view["displayName"] = record["displayName"]
    if "avatar" in record:
        view["avatar"] = _image("avatar", account.did, record["avatar"])
    view["associated"] = {"activitySubscription": {"allowSubscriptions": "followers"}}
    view["labels"] = _labels(account)
    if "createdAt" in record:
        view["createdAt"] = record["createdAt"]
    return view


def _labels(account: IndexedAccount) -> list[dict[str, Any]]:
    record = account.profile or {}
    uri = f"at://{account.did}/app.bsky.actor.profile/self"
    return [
        {"src": account.did, "uri": uri, "cid": record_cid(uri.encode()), "val": label["val"]}
        | {"cts": record["createdAt"]}
        for label in record.get("labels", {}).get("values", ())
    ]


def _image(kind: str, did: str, blob: dict[str, Any]) -> str:
    return f"{_CDN}/{kind}/plain/{did}/{blob['ref']['$link']}"


def _embed(index: Index, post: IndexedPost, *, depth: int) -> dict[str, Any] | None:
    embed = post.embed
    if embed is None or depth >= _MOST_EMBED_DEPTH:
        return None
    kind = embed["$type"]
    if kind == _RECORD:
        return {"$type": f"{kind}#view", "record": _quoted(index, post, depth=depth)}
    if kind == "app.bsky.embed.recordWithMedia":
        view: dict[str, Any] = {"record": _quoted(index, post, depth=depth)}
        if view["record"]["$type"] in _UNSEEN:
            view = {"$type": f"{_RECORD}#view"} | view
        media = _media(post.did, embed["media"])
        return {"$type": f"{kind}#view", "media": media, "record": view}
    return _media(post.did, embed)


def _media(did: str, embed: dict[str, Any]) -> dict[str, Any]:
    kind = embed["$type"]
    if kind == "app.bsky.embed.images":
        images = [_image_view(did, image) for image in embed["images"]]
        return {"$type": f"{kind}#view", "images": images}
    card = embed["external"]
    external = {key: card[key] for key in ("uri", "title", "description")}
    if "thumb" in card:
        external["thumb"] = _image("feed_thumbnail", did, card["thumb"])
    return {"$type": f"{kind}#view", "external": external}


def _image_view(did: str, image: dict[str, Any]) -> dict[str, Any]:
    view: dict[str, Any] = {
        "thumb": _image("feed_thumbnail", did, image["image"]),
        "fullsize": _image("feed_fullsize", did, image["image"]),
        "alt": image["alt"],
    }
    if "aspectRatio" in image:
        view["aspectRatio"] = image["aspectRatio"]
    return view


def _quoted(index: Index, quoting: IndexedPost, *, depth: int) -> dict[str, Any]:
    """Return one of viewRecord, viewNotFound, viewBlocked, viewDetached or another kind's view."""
    uri = quoting.quoted
    did, collection = uri_did(uri), uri.split("/")[3]
    if collection != POST:
        return _other(index, uri, collection)
    post = index.visible_post(uri)
    if post is None:
        return {"$type": f"{_RECORD}#viewNotFound", "uri": uri, "notFound": True}
    if index.block_between(quoting.did, did):
        author = {"did": did}
        return {"$type": f"{_RECORD}#viewBlocked", "uri": uri, "blocked": True, "author": author}
    if quoting.uri in post.detached:
        return {"$type": f"{_RECORD}#viewDetached", "uri": uri, "detached": True}
    return _view_record(index, post, depth=depth)


def _view_record(index: Index, post: IndexedPost, *, depth: int) -> dict[str, Any]:
    view: dict[str, Any] = {
        "$type": f"{_RECORD}#viewRecord",
        "uri": post.uri,
        "cid": post.cid,
        "author": _basic(index.accounts[post.did]),
        "value": msgspec.Raw(post.record_json),
        "labels": [],
        "likeCount": post.likes,
        "replyCount": post.replies,
        "repostCount": post.reposts,
        "quoteCount": post.quotes,
        "indexedAt": post.indexed,
    }
    if depth + 1 < _MOST_EMBED_DEPTH:
        embed = _embed(index, post, depth=depth + 1)
        view["embeds"] = [] if embed is None else [embed]
    return view


def _other(index: Index, uri: str, collection: str) -> dict[str, Any]:
    """Return the view of a feed, list, starter pack or labeler: just what the lexicon requires."""
    owner = index.visible(uri_did(uri))
    if owner is None:
        return {"$type": f"{_RECORD}#viewNotFound", "uri": uri, "notFound": True}
    name = f"{owner.handle.partition('.')[0]}'s own"
    indexed = owner.indexed or "2026-01-01T00:00:00.000Z"
    creator = _basic(owner)
    head = {"uri": uri, "cid": record_cid(uri.encode())}
    tail = {"labels": [], "indexedAt": indexed}
    if collection == "app.bsky.feed.generator":
        kind = {"$type": "app.bsky.feed.defs#generatorView"}
        middle = {"did": "did:web:feeds.example.com", "creator": creator, "displayName": name}
        return kind | head | middle | tail
    if collection == "app.bsky.graph.list":
        kind = {"$type": "app.bsky.graph.defs#listView"}
        middle = {"creator": creator, "name": name, "purpose": "app.bsky.graph.defs#curatelist"}
        return kind | head | middle | tail
    if collection == "app.bsky.graph.starterpack":
        record = {"$type": collection, "createdAt": indexed, "list": uri, "name": name}
        kind = {"$type": "app.bsky.graph.defs#starterPackViewBasic"}
        return kind | head | {"record": record, "creator": creator} | tail
    return {"$type": "app.bsky.labeler.defs#labelerView"} | head | {"creator": creator} | tail
