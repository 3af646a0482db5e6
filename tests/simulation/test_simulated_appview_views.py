"""The simulated AppView's knowledge, and its twin: what the official AppView really answered."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from turbod.simulation.happening import Happening, read_message
from turbod.simulation.identifiers import tid
from turbod.simulation.index import Index
from turbod.simulation.network import MOSTLY_POSTS, Network
from turbod.simulation.views import post_view, profile_view

NOW_US = 1_790_000_000_000_000
ALICE, BOB, CAROL = (f"did:plc:{letter * 24}" for letter in "abc")


@pytest.fixture(scope="module")
def official(captures: Path) -> Index:
    """An index that read all events of the captured network."""
    index = Index()
    for line in (captures / "network-1/events.jsonl").read_bytes().splitlines():
        index.hear(read_message(line))
    return index


def normal(view: bytes) -> Any:
    """Return a view as lists of pairs, so that order counts, less what the two cannot share.

    That is the address of the images, and the order of keys in blobs, which the official AppView
    rebuilds; neither is told by the events.
    """
    view = re.sub(rb"https?://[^/]+/img/", b"/img/", view)

    def pairs(items: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return sorted(items, key=repr) if ("$type", "blob") in items else items

    return json.loads(view, object_pairs_hook=pairs)


def test_posts_are_answered_as_the_official_app_view_answered(
    official: Index, captures: Path
) -> None:
    answered = (captures / "network-1/posts.jsonl").read_bytes().splitlines()
    known = set()
    for line in answered:
        uri = json.loads(line)["uri"]
        known.add(uri)
        ours = post_view(official, uri)
        assert ours is not None
        assert normal(ours) == normal(line)
    assert len(known) == 881
    assert not [uri for uri in official.posts if uri not in known and post_view(official, uri)]


def test_profiles_are_answered_as_the_official_app_view_answered(
    official: Index, captures: Path
) -> None:
    """But for `indexedAt`, which hangs on when the official one came to it."""
    indexed = re.compile(rb'"indexedAt":"[^"]*"')
    known = set()
    for line in (captures / "network-1/profiles.jsonl").read_bytes().splitlines():
        did = json.loads(line)["did"]
        known.add(did)
        ours = profile_view(official, did)
        assert ours is not None
        assert normal(indexed.sub(b"", ours, count=1).replace(b",,", b",")) == normal(
            indexed.sub(b"", line, count=1).replace(b",,", b",")
        )
    absent = {did for did in official.accounts if profile_view(official, did) is None}
    assert absent == set(official.accounts) - known
    assert absent


def test_views_are_about_as_big_as_real_ones() -> None:
    """A profileViewDetailed around 1 KB, a postView around 1.5 to 2.5 KB."""
    network, index = Network(accounts=300), Index()
    for account in network.people.accounts:
        index.introduce(account)
    for place in range(10_000):
        index.hear(network.next_event(NOW_US + place * 1000))
    profiles = [v for did in index.accounts if (v := profile_view(index, did))]
    posts = [v for uri in index.posts if (v := post_view(index, uri))]
    assert 850 < sum(map(len, profiles)) / len(profiles) < 1500
    assert 1300 < sum(map(len, posts)) / len(posts) < 2500


class Scene:
    """Three accounts, and what they do, one event after another."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.time_us = NOW_US
        for did in (ALICE, BOB, CAROL):
            self.notice(did, "identity", handle=f"{did[-1]}.test")

    def notice(self, did: str, kind: str, **fields: Any) -> None:
        """Tell an identity or account event."""
        self.time_us += 1000
        notice = {"did": did, **fields}
        self.index.hear(Happening(did, kind, self.time_us, self.time_us, notice=notice))

    def write(
        self,
        did: str,
        collection: str,
        operation: str = "create",
        /,
        *,
        rkey: str = "",
        **fields: Any,
    ) -> str:
        """Write or delete a record; return its URI."""
        self.time_us += 1000
        rkey = rkey or tid(self.time_us)
        record = None
        if operation != "delete":
            record = {"$type": collection, "createdAt": "2026-01-01T00:00:00.000Z", **fields}
        happening = Happening(
            did,
            "commit",
            self.time_us,
            self.time_us,
            collection,
            operation,
            rkey,
            tid(self.time_us),
            f"cid{self.time_us}",
            record,
            json.dumps(record).encode() if record else b"",
        )
        self.index.hear(happening)
        return happening.uri

    def post(self, did: str, **fields: Any) -> str:
        """Create a post; return its URI."""
        return self.write(did, "app.bsky.feed.post", **{"text": "x", **fields})

    def quote(self, did: str, uri: str) -> str:
        """Create a post that quotes `uri`; return its URI."""
        embed = {"$type": "app.bsky.embed.record", "record": {"uri": uri, "cid": "c"}}
        return self.post(did, embed=embed)

    def delete(self, uri: str) -> None:
        """Delete a record."""
        _, _, did, collection, rkey = uri.split("/")
        self.write(did, collection, "delete", rkey=rkey)

    def seen(self, uri: str) -> Any:
        """Return the post's view, decoded."""
        view = post_view(self.index, uri)
        return None if view is None else json.loads(view)

    def quoted(self, uri: str) -> str:
        """Return how the post's view shows what it quotes."""
        return str(self.seen(uri)["embed"]["record"]["$type"]).partition("#")[2]


@pytest.fixture
def scene() -> Scene:
    return Scene(Index())


def test_a_deleted_post_is_absent_and_not_found_inside_its_quotes(scene: Scene) -> None:
    post = scene.post(ALICE)
    quote = scene.quote(BOB, post)
    assert scene.quoted(quote) == "viewRecord"
    assert scene.seen(post)["quoteCount"] == 1
    scene.delete(post)
    assert scene.seen(post) is None
    assert scene.quoted(quote) == "viewNotFound"


@pytest.mark.parametrize("status", ["deactivated", "takendown", "deleted", "suspended"])
def test_an_inactive_account_is_absent_with_its_posts_until_active_again(
    scene: Scene, status: str
) -> None:
    post = scene.post(ALICE)
    quote = scene.quote(BOB, post)
    scene.notice(ALICE, "account", active=False, status=status)
    assert profile_view(scene.index, ALICE) is None
    assert scene.seen(post) is None
    assert scene.quoted(quote) == "viewNotFound"
    scene.notice(ALICE, "account", active=True)
    assert profile_view(scene.index, ALICE)
    assert scene.quoted(quote) == "viewRecord"


@pytest.mark.parametrize("blocker", [ALICE, BOB])
def test_a_block_either_way_hides_the_quoted_post_until_taken_back(
    scene: Scene, blocker: str
) -> None:
    quote = scene.quote(BOB, scene.post(ALICE))
    blocked = ALICE if blocker == BOB else BOB
    block = scene.write(blocker, "app.bsky.graph.block", subject=blocked)
    assert scene.quoted(quote) == "viewBlocked"
    scene.delete(block)
    assert scene.quoted(quote) == "viewRecord"


def test_a_postgate_detaches_a_quote_and_a_threadgate_shows_on_the_post(scene: Scene) -> None:
    post = scene.post(ALICE)
    quote = scene.quote(BOB, post)
    rkey = post.rpartition("/")[2]
    gate = "app.bsky.feed.postgate"
    scene.write(ALICE, gate, rkey=rkey, post=post, detachedEmbeddingUris=[quote])
    assert scene.quoted(quote) == "viewDetached"
    scene.write(ALICE, "app.bsky.feed.threadgate", rkey=rkey, post=post, allow=[])
    assert scene.seen(post)["threadgate"]["record"]["post"] == post
    scene.write(ALICE, "app.bsky.feed.threadgate", "delete", rkey=rkey)
    assert "threadgate" not in scene.seen(post)


def test_counters_follow_what_is_done_and_taken_back(scene: Scene) -> None:
    post = scene.post(ALICE)
    subject = {"uri": post, "cid": "c"}
    like = scene.write(BOB, "app.bsky.feed.like", subject=subject)
    scene.write(CAROL, "app.bsky.feed.like", subject=subject)
    scene.write(CAROL, "app.bsky.feed.repost", subject=subject)
    follow = scene.write(BOB, "app.bsky.graph.follow", subject=ALICE)
    scene.post(CAROL, reply={"parent": subject, "root": subject})
    view = scene.seen(post)
    assert (view["likeCount"], view["repostCount"], view["replyCount"]) == (2, 1, 1)
    assert json.loads(profile_view(scene.index, ALICE) or b"")["followersCount"] == 1
    scene.delete(like)
    scene.delete(follow)
    assert scene.seen(post)["likeCount"] == 1
    profile = json.loads(profile_view(scene.index, ALICE) or b"")
    assert (profile["followersCount"], profile["postsCount"]) == (0, 1)


def test_an_updated_post_shows_its_new_text_and_cid(scene: Scene) -> None:
    post = scene.post(ALICE, text="before")
    before = scene.seen(post)
    rkey = post.rpartition("/")[2]
    scene.write(ALICE, "app.bsky.feed.post", "update", rkey=rkey, text="after")
    after = scene.seen(post)
    assert after["record"]["text"] == "after"
    assert after["cid"] != before["cid"]
    assert json.loads(profile_view(scene.index, ALICE) or b"")["postsCount"] == 1


def test_embeds_are_rendered_two_deep_and_no_deeper(scene: Scene) -> None:
    third = scene.quote(ALICE, scene.quote(BOB, scene.quote(CAROL, scene.post(ALICE))))
    first = scene.seen(third)["embed"]["record"]
    second = first["embeds"][0]["record"]
    assert second["$type"].endswith("viewRecord")
    assert "embeds" not in second


def test_nothing_is_known_before_the_indexing_delay_and_everything_after() -> None:
    index = Index(delay_us=1_000_000)
    scene = Scene(index)
    post = scene.post(ALICE)
    index.catch_up(scene.time_us + 1000)
    assert scene.seen(post) is None
    index.catch_up(scene.time_us + 60_000_000)
    assert scene.seen(post) is not None


def test_delayed_events_of_one_account_keep_their_order() -> None:
    """Else a post deleted at once could be there for ever."""
    index = Index(delay_us=1_000_000)
    scene = Scene(index)
    for _ in range(200):
        scene.delete(scene.post(ALICE))
    index.catch_up(scene.time_us + 60_000_000)
    assert not index.posts


def test_memory_is_bounded_by_the_posts_kept() -> None:
    network, index = Network(accounts=50, mix=MOSTLY_POSTS), Index(posts_kept=100)
    for place in range(3000):
        index.hear(network.next_event(NOW_US + place))
    assert len(index.posts) <= 100
