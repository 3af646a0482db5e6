"""What records must say, by a plain reading of the protocol's page: shares no code with turbod."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Show = Callable[[str], bytes | None]

POST = "app.bsky.feed.post"
# What changes a profile's looks, of all that a small network writes.
PROFILE_PARTS = ("app.bsky.actor.profile", "app.bsky.actor.status", "app.bsky.labeler.service")


@dataclass(frozen=True)
class Wanted:
    """What belongs into one record, by place; None where the place does not apply."""

    user: str
    mentions: tuple[str, ...] = ()
    parent: str | None = None
    root: str | None = None
    quote: str | None = None
    subject: tuple[str, str | None] | None = None  # its key in the record, and what it names
    from_cache_only: bool = False

    def named(self) -> list[str]:
        """Everything that is named, each once."""
        subject = self.subject[1] if self.subject else None
        places = (self.user, *self.mentions, self.parent, self.root, self.quote, subject)
        return list(dict.fromkeys(key for key in places if key is not None))


def wanted(event: Json) -> Wanted:
    """Read from an event what its record shows beside it."""
    did = event["did"]
    commit = event.get("commit", {})
    if event["kind"] != "commit" or commit["operation"] == "delete":
        return Wanted(did, from_cache_only=True)
    collection, record = commit["collection"], commit["record"]
    if collection in {"app.bsky.feed.like", "app.bsky.feed.repost"}:
        return Wanted(did, subject=("subject_post", post_uri(record["subject"])))
    if collection in {"app.bsky.graph.follow", "app.bsky.graph.block"}:
        return Wanted(did, subject=("subject_user", record["subject"]))
    if collection != POST:
        return Wanted(did)
    reply = record.get("reply")
    parent = post_uri(reply["parent"]) if reply else None
    root = post_uri(reply["root"]) if reply else None
    return Wanted(
        did,
        mentions=tuple(mentions(record)),
        parent=parent,
        root=None if root == parent else root,
        quote=quoted(record),
    )


def mentions(record: Json) -> list[str]:
    """The accounts mentioned, first appearance first."""
    features = [feature for facet in record.get("facets") or () for feature in facet["features"]]
    named = [f["did"] for f in features if f["$type"] == "app.bsky.richtext.facet#mention"]
    return list(dict.fromkeys(named))[:50]


def quoted(record: Json) -> str | None:
    """The URI of the post quoted, alone or beside media."""
    embed = record.get("embed") or {}
    if embed.get("$type") == "app.bsky.embed.record":
        return post_uri(embed["record"])
    if embed.get("$type") == "app.bsky.embed.recordWithMedia":
        return post_uri(embed["record"]["record"])
    return None


def post_uri(reference: Json) -> str | None:
    """The URI of a reference, if it is to a post."""
    uri: str = reference["uri"]
    return uri if uri.split("/")[3] == POST else None


class Views:
    """What the AppView answers, as its bytes, and what each answer shows."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.bytes: dict[str, bytes] = {}
        self.handles: dict[str, str] = {}
        self.shows: dict[str, frozenset[str]] = {}
        for line in lines:
            view = json.loads(line)
            if "uri" in view:
                self.bytes[view["uri"]] = line
                self.shows[view["uri"]] = frozenset(shown_by(view))
            else:
                self.bytes[view["did"]] = line
                self.handles[view["did"]] = view["handle"]

    @classmethod
    def captured(cls, folder: Path) -> "Views":
        """Read what the official AppView answered when all was over."""
        files = [folder / "profiles.jsonl", folder / "posts.jsonl"]
        return cls(line for file in files for line in file.read_bytes().splitlines())

    def with_the_gone(self, events: Sequence[Json]) -> "Views":
        """Return what an AppView would answer that has not heard of any deletion yet.

        It has a view of every account and post, also inside the views of those who quote it.
        """
        lines = {event["did"]: profile(event["did"]) for event in events}
        quotable = {}
        for event in events:
            commit = event.get("commit", {})
            if commit.get("collection") == POST and commit["operation"] == "create":
                quotable[at_uri(event)] = post = post_view(event)
                lines[at_uri(event)] = compact(post)
        for key, line in self.bytes.items():
            view = json.loads(line)
            lines[key] = compact(view) if uncover(view, quotable) else line
        return Views(lines.values())

    def __call__(self, key: str, gone: Iterable[str]) -> bytes | None:
        """What may be shown of a DID or URI while these DIDs and URIs are gone."""
        shown = self.shows.get(key, frozenset((key,)))
        return self.bytes.get(key) if shown.isdisjoint(gone) else None


def shown_by(post: Json) -> Iterator[str]:
    """The posts and accounts that the view of a post shows."""
    yield post["uri"]
    yield post["author"]["did"]
    for embed in [post["embed"]] if "embed" in post else post.get("embeds", ()):
        if embed["$type"] == "app.bsky.embed.record#view":
            inner = embed["record"]
        elif embed["$type"] == "app.bsky.embed.recordWithMedia#view":
            inner = embed["record"]["record"]
        else:
            continue
        if inner["$type"] == "app.bsky.embed.record#viewRecord":
            yield from shown_by(inner)


def profile(did: str) -> bytes:
    """A view of an account that the capture has none of."""
    return compact({"did": did, "handle": "gone.test", "labels": []})


def post_view(event: Json) -> Json:
    """A view of a post that the capture has none of."""
    author = {"did": event["did"], "handle": "gone.test"}
    commit = event["commit"]
    cid, record = commit["cid"], commit["record"]
    return {"uri": at_uri(event), "cid": cid, "author": author, "record": record}


# What an author's view within a post has of the profile (app.bsky.actor.defs#profileViewBasic).
AUTHOR_PARTS = (
    *("did", "handle", "displayName", "pronouns", "avatar", "associated", "labels"),
    *("createdAt", "verification", "status"),
)


def built_post(message: bytes, profile_line: bytes, *, indexed_at: str) -> bytes:
    """The view of a post that was made from its event, for lack of the AppView's."""
    event = json.loads(message)
    commit = event["commit"]
    author = json.loads(profile_line)
    values = commit["record"].get("labels", {}).get("values", ())
    where = {"src": event["did"], "uri": at_uri(event), "cid": commit["cid"]}
    created = commit["record"]["createdAt"]
    counts = ("bookmarkCount", "replyCount", "repostCount", "likeCount", "quoteCount")
    return joined(
        {
            "uri": string(at_uri(event)),
            "cid": string(commit["cid"]),
            "author": compact({part: author[part] for part in AUTHOR_PARTS if part in author}),
            "record": record_of(message),
            **dict.fromkeys(counts, b"0"),
            "indexedAt": string(indexed_at),
            "labels": compact([where | {"val": value["val"], "cts": created} for value in values]),
        }
    )


def record_of(message: bytes) -> bytes:
    """The record in a commit, as it is written there."""
    text = message.decode()
    start = text.index('"record":') + len('"record":')
    _, end = json.JSONDecoder().raw_decode(text, start)
    return text[start:end].encode()


def uncover(view: Json, posts: Mapping[str, Json]) -> bool:
    """Put the posts back that a view says were not found; tell whether there were any."""
    found = False
    for embed in [view["embed"]] if "embed" in view else view.get("embeds", ()):
        holder = embed["record"] if embed["$type"].endswith("recordWithMedia#view") else embed
        inner = holder.get("record", {})
        if inner.get("notFound") and inner["uri"] in posts:
            post = posts[inner["uri"]]
            shown = {key: post[key] for key in ("uri", "cid", "author")}
            kind = "app.bsky.embed.record#viewRecord"
            holder["record"] = {"$type": kind, **shown, "value": post["record"]}
            found = True
        elif "uri" in inner:
            found |= uncover(inner, posts)
    return found


def compact(value: Json | list[Json]) -> bytes:
    """JSON as the servers print it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass
class World:
    """What is known after each event: what is gone, and whose profile is at hand and good."""

    views: Views
    gone: frozenset[str] = frozenset()
    at_hand: dict[str, float] = field(default_factory=dict)  # DID to when it was first used

    def see(self, event: Json) -> None:
        """Let an event change what is known."""
        did, kind = event["did"], event["kind"]
        commit = event.get("commit", {})
        if kind == "account" and event["account"]["active"]:
            if did in self.gone:
                self.at_hand.pop(did, None)
            self.gone -= {did}
        elif kind == "account":
            self.gone |= {did}
        elif self._changes_profile(event):
            self.at_hand.pop(did, None)
        elif commit.get("collection") == POST and commit["operation"] == "delete":
            self.gone |= {f"at://{did}/{POST}/{commit['rkey']}"}

    def _changes_profile(self, event: Json) -> bool:
        if event["kind"] == "identity":  # one that tells the handle we have tells nothing
            return bool(event["identity"].get("handle") != self.views.handles.get(event["did"]))
        return event.get("commit", {}).get("collection") in PROFILE_PARTS

    def show(self, key: str) -> bytes | None:
        """What a record hydrated now shows of a DID or URI."""
        return self.views(key, self.gone)


def line(
    message: bytes,
    show: Show,
    *,
    cursor: int,
    hydrated_us: int | None,
    built: Collection[str] = (),
) -> bytes:
    """The record of an event, byte for byte.

    Args:
        message: the event as the upstream sent it.
        show: what is shown of each DID and URI that belongs into it.
        cursor: what the server gave it.
        hydrated_us: when the oldest view in it was fetched, which only the server knows.
        built: those whose view was made from their event, as the AppView has none.
    """
    event = json.loads(message)
    want = wanted(event)
    data = {
        "user": bytes_of(show, want.user),
        "mentions": joined({did: bytes_of(show, did) for did in want.mentions}),
        "parent_post": bytes_of(show, want.parent),
        "reply_post": bytes_of(show, want.root),
        "quote_post": bytes_of(show, want.quote),
    }
    if want.subject is not None:
        data[want.subject[0]] = bytes_of(show, want.subject[1])
    if from_stream := [string(key) for key in want.named() if key in built and show(key)]:
        data["from_stream"] = b"[%b]" % b",".join(from_stream)
    if any(show(key) for key in want.named() if key not in built):
        assert hydrated_us is not None, "a record that shows a view says when it was fetched"
        data["hydrated_us"] = b"%d" % hydrated_us
    return joined(
        {
            "cursor": b"%d" % cursor,
            "at_uri": string(at_uri(event)),
            "did": string(event["did"]),
            "time_us": b"%d" % event["time_us"],
            "message": message,
            "hydrated_metadata": joined(data),
        }
    )


def at_uri(event: Json) -> str:
    """The URI of the event's record, or of its account."""
    if event["kind"] != "commit":
        return f"at://{event['did']}"
    return f"at://{event['did']}/{event['commit']['collection']}/{event['commit']['rkey']}"


def bytes_of(show: Show, key: str | None) -> bytes:
    """What stands at a place: a view, or null."""
    return (key is not None and show(key)) or b"null"


def joined(members: Mapping[str, bytes]) -> bytes:
    """A JSON object of members that are JSON already."""
    return b"{%b}" % b",".join(b"%b:%b" % (string(key), data) for key, data in members.items())


def string(text: str) -> bytes:
    """A JSON string."""
    return json.dumps(text, ensure_ascii=False).encode()
