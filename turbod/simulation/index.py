"""What a simulated AppView knows: it reads the same events as everybody, a little later. Pure."""

from collections import OrderedDict
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

import msgspec

from turbod.event import uri_did
from turbod.simulation.happening import Happening
from turbod.simulation.identifiers import time_text
from turbod.simulation.people import Account

POST: Final = "app.bsky.feed.post"
_EDGES_KEPT: Final = 100_000  # likes, reposts, follows, blocks that can be taken back
_SPREAD: Final = 0.5  # sigma of the logarithm of the indexing delay


class IndexedAccount(msgspec.Struct, gc=False):
    """One account as the AppView last heard of it."""

    did: str
    handle: str
    profile: dict[str, Any] | None = None
    indexed: str = ""
    active: bool = True
    labeler: bool = False
    followers: int = 0
    follows: int = 0
    posts: int = 0


class IndexedPost(msgspec.Struct, gc=False):
    """One post as the AppView last heard of it."""

    uri: str
    cid: str
    did: str
    record_json: bytes
    embed: dict[str, Any] | None
    parent: str
    quoted: str
    indexed: str
    likes: int = 0
    reposts: int = 0
    replies: int = 0
    quotes: int = 0
    threadgate: Happening | None = None
    detached: frozenset[str] = frozenset()


class Index:
    """Accounts, posts and edges, by events that take effect after an indexing delay.

    Args:
        delay_us: median of the delay; 0 means at once. Changes for what happens after.
        posts_kept: the newest posts; older ones are unknown.
    """

    def __init__(self, *, seed: int = 1, delay_us: int = 0, posts_kept: int = 200_000) -> None:
        self.delay_us = delay_us
        self.accounts: dict[str, IndexedAccount] = {}
        self.posts: OrderedDict[str, IndexedPost] = OrderedDict()
        self.blocks: dict[tuple[str, str], int] = {}
        self._random = Random(seed)  # noqa: S311 - the same seed gives the same delays
        self._posts_kept = posts_kept
        self._edges: OrderedDict[str, tuple[str, str, str]] = OrderedDict()
        self._waiting: list[tuple[int, int, Happening]] = []
        self._newest_due: dict[str, int] = {}
        self._heard = 0

    def introduce(self, account: Account) -> None:
        """Make an account known that was there before the first event."""
        known = self._account(account.did)
        known.handle, known.profile = account.handle, account.profile
        known.indexed = account.profile["createdAt"] if account.profile else ""

    def hear(self, happening: Happening) -> None:
        """Take note of an event; it takes effect after a delay, in order within its account."""
        if not self.delay_us:
            self._apply(happening)
            return
        delay_us = int(self.delay_us * self._random.lognormvariate(0, _SPREAD))
        did = happening.did
        due = max(happening.time_us + delay_us, self._newest_due.get(did, 0))
        self._newest_due[did] = due
        self._heard += 1
        heappush(self._waiting, (due, self._heard, happening))

    def catch_up(self, now_us: int) -> None:
        """Let everything take effect that is due."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_us:
            self._apply(heappop(waiting)[2])
        if not waiting:
            self._newest_due.clear()

    def visible_post(self, uri: str) -> IndexedPost | None:
        """Return a post that is known, with an author who is visible."""
        post = self.posts.get(uri)
        return post if post is not None and self.visible(post.did) else None

    def visible(self, did: str) -> IndexedAccount | None:
        """Return an account that is known and active."""
        account = self.accounts.get(did)
        return account if account is not None and account.active else None

    def did_of(self, handle: str) -> str | None:
        """Return the DID under a handle, by looking at every account."""
        accounts = self.accounts.values()
        return next((account.did for account in accounts if account.handle == handle), None)

    def block_between(self, did: str, other: str) -> bool:
        """Tell whether one of the two blocks the other."""
        return (did, other) in self.blocks or (other, did) in self.blocks

    def _account(self, did: str) -> IndexedAccount:
        account = self.accounts.get(did)
        if account is None:
            account = self.accounts[did] = IndexedAccount(did, "handle.invalid")
        return account

    def _apply(self, happening: Happening) -> None:
        if happening.notice is not None:
            self._apply_notice(happening, happening.notice)
        elif happening.collection == POST:
            self._apply_post(happening)
        elif happening.collection == "app.bsky.actor.profile":
            account = self._account(happening.did)
            account.profile = happening.record
            account.indexed = time_text(happening.time_us)
        elif happening.collection == "app.bsky.labeler.service":
            self._account(happening.did).labeler = happening.record is not None
        elif happening.collection in {"app.bsky.feed.threadgate", "app.bsky.feed.postgate"}:
            self._apply_gate(happening)
        else:
            self._apply_edge(happening)

    def _apply_notice(self, happening: Happening, notice: dict[str, Any]) -> None:
        account = self._account(happening.did)
        if happening.kind == "identity":
            account.handle = happening.handle or account.handle
        else:
            account.active = notice["active"]

    def _apply_post(self, happening: Happening) -> None:
        uri, record = happening.uri, happening.record
        old = self.posts.pop(uri, None) if happening.operation == "delete" else self.posts.get(uri)
        if record is None:
            if old is not None:
                self._count_post(old, -1)
            return
        parent = record.get("reply", {}).get("parent", {}).get("uri", "")
        embed = record.get("embed")
        if old is not None:
            old.cid, old.record_json, old.embed = happening.cid, happening.record_json, embed
            return
        post = self.posts[uri] = IndexedPost(
            uri,
            happening.cid,
            happening.did,
            happening.record_json,
            embed,
            parent,
            quoted_uri(embed),
            min(time_text(happening.time_us), record["createdAt"]),
        )
        self._count_post(post, 1)
        if len(self.posts) > self._posts_kept:
            self.posts.popitem(last=False)

    def _count_post(self, post: IndexedPost, step: int) -> None:
        self._account(post.did).posts += step
        if parent := self.posts.get(post.parent):
            parent.replies += step
        if quoted := self.posts.get(post.quoted):
            quoted.quotes += step

    def _apply_gate(self, happening: Happening) -> None:
        post = self.posts.get(f"at://{happening.did}/{POST}/{happening.rkey}")
        if post is None:
            return
        record = happening.record
        if happening.collection == "app.bsky.feed.threadgate":
            post.threadgate = None if record is None else happening
        else:
            post.detached = frozenset((record or {}).get("detachedEmbeddingUris", ()))

    def _apply_edge(self, happening: Happening) -> None:
        if happening.operation == "delete":
            edge = self._edges.pop(happening.uri, None)
            if edge is not None:
                self._count_edge(edge, -1)
            return
        subject = (happening.record or {}).get("subject")
        if isinstance(subject, dict):
            subject = subject.get("uri")
        if not isinstance(subject, str):
            return
        edge = (happening.collection, happening.did, subject)
        self._edges[happening.uri] = edge
        self._count_edge(edge, 1)
        if len(self._edges) > _EDGES_KEPT:
            _, forgotten = self._edges.popitem(last=False)
            if forgotten[0] == "app.bsky.graph.block":
                self._count_edge(forgotten, -1)

    def _count_edge(self, edge: tuple[str, str, str], step: int) -> None:
        collection, did, subject = edge
        post = self.posts.get(subject)
        if collection == "app.bsky.feed.like" and post is not None:
            post.likes += step
        elif collection == "app.bsky.feed.repost" and post is not None:
            post.reposts += step
        elif collection == "app.bsky.graph.follow":
            self._account(did).follows += step
            self._account(subject).followers += step
        elif collection == "app.bsky.graph.block":
            count = self.blocks.get((did, subject), 0) + step
            self.blocks[did, subject] = count
            if count <= 0:
                del self.blocks[did, subject]


def quoted_uri(embed: dict[str, Any] | None) -> str:
    """Return the URI of what a post of the simulation quotes, of whatever collection, or ``."""
    if embed is None:
        return ""
    if embed["$type"] == "app.bsky.embed.recordWithMedia":
        embed = embed["record"]
    if embed["$type"] == "app.bsky.embed.record":
        uri: str = embed["record"]["uri"]
        return uri if uri_did(uri) else ""
    return ""
