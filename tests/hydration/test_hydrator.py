"""The hydrator with its real cache, over the real client, against a simulated AppView."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from turbod.config import CacheSettings, HydrationSettings
from turbod.database import Database
from turbod.event import Event, parse
from turbod.hydration import hydrator as hydrator_module
from turbod.hydration.cache import Cache
from turbod.hydration.hydrator import Hydrator
from turbod.record import Record
from turbod.simulation.world import Simulation, simulated

ALICE, BOB, CAROL = "did:plc:alice", "did:web:bob.example", "did:plc:carol"


def now_us() -> int:
    return time.time_ns() // 1000


def tid(time_us: int) -> str:
    digits = "234567abcdefghijklmnopqrstuvwxyz"
    number = time_us << 10
    return "".join(digits[number >> shift & 31] for shift in range(60, -1, -5))


def profile(did: str, **more: Any) -> bytes:
    return json.dumps({"did": did, "handle": "h.test", "labels": []} | more).encode()


def uri(did: str, key: str) -> str:
    return f"at://{did}/app.bsky.feed.post/{key}"


def view(of: str, **more: Any) -> bytes:
    author = {"did": of[5:].partition("/")[0], "handle": "h.test"}
    body = {"uri": of, "cid": "c", "author": author, "record": {}, "indexedAt": "t"}
    return json.dumps(body | more).encode()


class Bench:
    """A hydrator, what it gave, and the AppView it asks."""

    def __init__(self, hydrator: Hydrator, simulation: Simulation, records: list[Record]) -> None:
        self.hydrator = hydrator
        self.appview = simulation.appview
        self.records = records
        self.dropped: list[int] = []
        self._intake = 0

    def know(self, *views: bytes) -> None:
        """Let the AppView have these."""
        for data in views:
            body = json.loads(data)
            self.appview.answers[body.get("uri") or body["did"]] = data

    def take(self, event: Event, *, logged: bool = True) -> None:
        """Let an event come from the stream."""
        self._intake += 1
        self.hydrator.take(event, self._intake, logged)

    async def metadata(self, index: int = -1) -> dict[str, Any]:
        """Wait until nothing waits any more; return one record's hydrated_metadata."""
        with trio.fail_after(10):
            await self.hydrator.drain()
        found: dict[str, Any] = json.loads(self.records[index].line(10**15))["hydrated_metadata"]
        return found

    def calls(self) -> list[tuple[str, ...]]:
        """Return what was asked, call by call."""
        return [call.items for call in self.appview.statistics.calls]


@asynccontextmanager
async def bench(tmp_path: Path, **settings: Any) -> AsyncIterator[Bench]:
    database = Database(tmp_path / "cache.sqlite", max_bytes=10**9)
    records: list[Record] = []
    dropped: list[int] = []
    async with simulated(hosts=0, answers={}) as simulation, trio.open_nursery() as nursery:
        cache = Cache(CacheSettings(), database, now_us=now_us)
        hydrator = Hydrator(
            HydrationSettings(calls_per_second=1000, **settings),
            appview_url=simulation.appview.url,
            cache=cache,
            append=records.append,
            dropped=dropped.extend,
            now_us=now_us,
        )
        await nursery.start(hydrator.run)
        made = Bench(hydrator, simulation, records)
        made.dropped = dropped
        yield made
        nursery.cancel_scope.cancel()
    database.close()


def post(did: str = ALICE, key: str = "k1", *, rev: str = "r1", **record: Any) -> Event:
    return commit("app.bsky.feed.post", did, key, rev=rev, **record)


def commit(
    collection: str,
    did: str,
    key: str = "k",
    *,
    rev: str = "r1",
    operation: str = "create",
    **record: Any,
) -> Event:
    body: dict[str, Any] = {
        "rev": rev,
        "operation": operation,
        "collection": collection,
        "rkey": key,
    }
    if operation != "delete":
        body |= {"record": {"$type": collection} | record, "cid": "c"}
    event = {"did": did, "time_us": now_us(), "kind": "commit", "commit": body}
    return parse(json.dumps(event).encode())


def notice(kind: str, did: str, moment: str = "t1", **more: Any) -> Event:
    body = {"did": did, "seq": 1, "time": moment} | more
    return parse(json.dumps({"did": did, "time_us": 1, "kind": kind, kind: body}).encode())


def reply_to(parent: str, root: str | None = None) -> dict[str, Any]:
    return {"reply": {"parent": {"uri": parent}, "root": {"uri": root or parent}}}


def mentions(*dids: str) -> dict[str, Any]:
    kind = "app.bsky.richtext.facet#mention"
    return {"facets": [{"features": [{"$type": kind, "did": did}]} for did in dids]}


async def test_a_post_gets_author_mentions_parent_root_and_quote_byte_for_byte(
    tmp_path: Path,
) -> None:
    parent, root, quoted = uri(BOB, "p"), uri(CAROL, "r"), uri(BOB, "q")
    views = [profile(ALICE, x=1.50), profile(BOB), view(parent), view(root), view(quoted)]
    async with bench(tmp_path) as made:
        made.know(*views)
        embed = {
            "$type": "app.bsky.embed.recordWithMedia",
            "record": {"record": {"uri": quoted}},
        }
        event = post(**reply_to(parent, root), **mentions(BOB, CAROL), embed=embed)
        made.take(event)
        shown = await made.metadata()
        body = made.records[0].body
    assert list(shown) == [
        "user",
        "mentions",
        "parent_post",
        "reply_post",
        "quote_post",
        "hydrated_us",
    ]
    assert shown["mentions"] == {BOB: json.loads(views[1]), CAROL: None}
    assert b'"user":%b,"mentions":{"%b":%b,' % (views[0], BOB.encode(), views[1]) in body
    assert b'"parent_post":%b,"reply_post":%b,"quote_post":%b,' % tuple(views[2:]) in body
    assert event.message in body


async def test_the_root_is_null_where_it_is_the_parent(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.know(view(uri(BOB, "p")))
        made.take(post(**reply_to(uri(BOB, "p"))))
        shown = await made.metadata()
    assert shown["parent_post"] is not None
    assert shown["reply_post"] is None


async def test_likes_and_follows_have_their_subject_and_other_events_no_such_key(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(BOB), view(uri(BOB, "p")))
        made.take(commit("app.bsky.feed.like", ALICE, subject={"uri": uri(BOB, "p")}))
        made.take(commit("app.bsky.graph.follow", ALICE, subject=BOB))
        made.take(commit("app.bsky.graph.follow", ALICE, subject="nobody"))
        made.take(commit("app.bsky.feed.like", ALICE, operation="delete"))
        await made.metadata()
        like, follow, nobody, delete = [await made.metadata(index) for index in range(4)]
    assert like["subject_post"]["uri"] == uri(BOB, "p")
    assert "subject_user" not in like
    assert follow["subject_user"]["did"] == BOB
    assert nobody["subject_user"] is None
    assert not {"subject_post", "subject_user"} & delete.keys()


async def test_what_is_missing_is_asked_for_once_however_many_wait_and_then_remembered(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(ALICE))
        for number in range(30):
            made.take(post(key=f"k{number}", **reply_to(uri(BOB, "old"))))
        await made.metadata()
        made.take(post(key="later", **reply_to(uri(BOB, "old"))))
        shown = await made.metadata()
        asked = [item for items in made.calls() for item in items]
    assert sorted(asked) == sorted([ALICE, uri(BOB, "old")])
    assert shown["parent_post"] is None
    assert "unresolved" not in shown


async def test_calls_are_filled_to_25(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        for number in range(50):
            made.take(post(f"did:plc:n{number}"))
        await made.metadata()
        assert sorted(len(items) for items in made.calls()) == [25, 25]


async def test_records_of_one_account_keep_their_order_and_others_do_not_wait(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(ALICE), profile(BOB))
        made.take(post(ALICE, "a0"))
        made.take(post(BOB, "b0"))
        await made.metadata()
        made.take(post(ALICE, "a1", **reply_to(uri(CAROL, "slow"))))
        made.take(post(ALICE, "a2"))
        made.take(post(BOB, "b1"))
        made.take(commit("app.bsky.feed.post", ALICE, "a1", operation="delete"))
        keys = [record.event.rkey for record in made.records]
        assert keys[2:] == ["b1"], "at once, and past the one that waits"
        await made.metadata()
        keys = [record.event.rkey for record in made.records]
    assert keys[3:] == ["a1", "a2", "a1"]


async def test_a_fresh_parent_that_the_appview_lacks_is_built_from_its_event(
    tmp_path: Path,
) -> None:
    key = tid(now_us())
    async with bench(tmp_path) as made:
        made.know(profile(ALICE), profile(BOB, displayName="Bob"))
        made.take(post(BOB, key, text="hello"), logged=False)
        made.take(post(**reply_to(uri(BOB, key))))
        shown = await made.metadata()
        calls = made.calls()
    assert shown["from_stream"] == [uri(BOB, key)]
    assert shown["parent_post"]["record"] == {"$type": "app.bsky.feed.post", "text": "hello"}
    assert shown["parent_post"]["author"]["displayName"] == "Bob"
    assert sum(uri(BOB, key) in items for items in calls) == 1, "built at once, not asked again"


async def test_a_fresh_parent_that_was_edited_is_built_from_the_edit(tmp_path: Path) -> None:
    key = tid(now_us())
    async with bench(tmp_path) as made:
        made.know(profile(ALICE), profile(BOB))
        made.take(post(BOB, key, text="helo"), logged=False)
        made.take(post(BOB, key, rev="r2", operation="update", text="hello"), logged=False)
        made.take(post(**reply_to(uri(BOB, key))))
        shown = await made.metadata()
    assert shown["from_stream"] == [uri(BOB, key)]
    assert shown["parent_post"]["record"]["text"] == "hello"


async def test_a_fresh_parent_that_was_not_seen_is_asked_for_once_more_after_a_second(
    tmp_path: Path,
) -> None:
    parent = uri(BOB, tid(now_us()))
    async with bench(tmp_path) as made:
        made.take(post(**reply_to(parent)))
        await trio.sleep(0.6)
        made.know(view(parent))
        shown = await made.metadata()
        assert shown["parent_post"]["uri"] == parent
        other = uri(BOB, tid(now_us()))
        made.take(post(key="k2", **reply_to(other)))
        shown = await made.metadata()
        assert shown["parent_post"] is None
        assert "unresolved" not in shown, "null is an answer"
        assert sum(other in items for items in made.calls()) == 2


async def test_what_is_deleted_deactivated_or_excluded_never_appears_after_its_event(
    tmp_path: Path,
) -> None:
    gone_post, nested = uri(CAROL, "gone"), uri(ALICE, "nested")
    embedded = {
        "$type": "app.bsky.embed.record#view",
        "record": {"uri": gone_post, "cid": "c", "author": {"did": CAROL, "handle": "h"}},
    }
    async with bench(tmp_path) as made:
        made.know(profile(ALICE), profile(BOB), profile(CAROL), view(gone_post))
        made.know(view(nested, embed=embedded), view(uri(BOB, "p")))
        about = {**reply_to(nested, gone_post), **mentions(BOB)}
        made.take(post(key="before", **about))
        shown = await made.metadata()
        assert shown["parent_post"], "nothing is gone yet"
        made.take(commit("app.bsky.feed.post", CAROL, "gone", rev="r2", operation="delete"))
        made.take(notice("account", BOB, active=False, status="deactivated"))
        made.take(post(key="after", **about))
        shown = await made.metadata()
        assert shown["parent_post"] is None, "it shows the deleted post inside"
        assert shown["reply_post"] is None
        assert shown["mentions"] == {BOB: None}
        made.take(post(BOB, "own"))
        assert (await made.metadata())["user"] is None
        made.take(notice("account", BOB, "t2", active=True))
        made.take(post(key="back", **about))
        shown = await made.metadata()
        assert shown["mentions"][BOB]["did"] == BOB


async def test_what_goes_while_its_view_is_under_way_is_not_shown_either(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(ALICE), profile(BOB), view(uri(BOB, "p")))
        made.appview.latency_seconds = 0.5
        made.take(post(**reply_to(uri(BOB, "p")), **mentions(BOB)))
        await trio.sleep(0.3)
        made.take(notice("account", BOB, active=False), logged=False)
        shown = await made.metadata()
    assert shown["mentions"] == {BOB: None}
    assert shown["parent_post"] is None


async def test_events_of_excluded_accounts_are_dropped_and_accounted_for(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.hydrator._cache.exclude(frozenset({BOB}))
        made.take(post(BOB))
        made.take(post(ALICE), logged=False)
        assert made.records == []
        assert made.dropped == [1, 2]


async def test_deletes_and_notices_take_their_author_from_the_cache_only(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(ALICE, handle="alice.test"), profile(BOB))
        made.take(commit("app.bsky.feed.like", BOB, operation="delete"))
        assert (await made.metadata())["user"] is None
        assert made.calls() == []
        made.take(post(ALICE))
        await made.metadata()
        made.take(commit("app.bsky.feed.like", ALICE, operation="delete"))
        assert (await made.metadata())["user"]["did"] == ALICE
        made.take(notice("identity", ALICE, handle="alice.test"))
        assert (await made.metadata())["user"]["did"] == ALICE, "nothing changed"
        made.take(notice("identity", ALICE, "t2", handle="new.test"))
        assert (await made.metadata())["user"] is None, "the profile shows the old handle"


async def test_a_profile_edit_is_seen_in_what_is_hydrated_after_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(ALICE, displayName="old"))
        made.take(post(key="k1"))
        await made.metadata()
        made.know(profile(ALICE, displayName="new"))
        made.take(commit("app.bsky.actor.profile", ALICE, "self", operation="update"))
        made.take(post(key="k2"))
        assert (await made.metadata())["user"]["displayName"] == "new"


async def test_an_edit_while_the_old_profile_is_under_way_is_seen_after_it_not_before(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(ALICE, displayName="old"))
        made.appview.latency_seconds = 0.3
        made.take(post(key="k1"))
        await trio.sleep(0.3)
        made.know(profile(ALICE, displayName="new"))
        made.take(commit("app.bsky.actor.profile", ALICE, "self", operation="update"))
        made.take(post(key="k2"))
        await made.metadata()
        names = [(await made.metadata(index))["user"]["displayName"] for index in range(3)]
    assert names == ["old", "new", "new"]


async def test_an_appview_that_does_not_answer_costs_the_deadline_and_is_named(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, deadline_seconds=0.5) as made:
        made.appview.go_down()
        started = trio.current_time()
        made.take(post(**mentions(BOB)))
        shown = await made.metadata()
        assert 0.4 < trio.current_time() - started < 3
        assert shown["unresolved"] == [ALICE, BOB]
        assert shown["user"] is None
        assert "hydrated_us" not in shown
        made.appview.come_up()
        made.know(profile(ALICE))
        await trio.sleep(1.5)
        made.take(post(key="k2"))
        assert (await made.metadata())["user"]["did"] == ALICE, "what failed is not remembered"


async def test_a_short_budget_alone_leaves_nothing_unresolved(tmp_path: Path) -> None:
    async with bench(tmp_path, deadline_seconds=1.5) as made:
        made.appview.budget = (1, 1)
        for number in range(100):
            made.know(profile(f"did:plc:n{number}"))
            made.take(post(f"did:plc:n{number}"))
        await made.metadata()
        shown = [await made.metadata(index) for index in range(100)]
    assert all(one["user"] and "unresolved" not in one for one in shown)


async def test_a_record_over_a_mebibyte_loses_its_largest_views_and_says_so(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(ALICE, description="x" * 600_000))
        made.know(view(uri(BOB, "p"), x="y" * 700_000), profile(BOB))
        made.take(post(**reply_to(uri(BOB, "p")), **mentions(BOB)))
        shown = await made.metadata()
        assert shown["parent_post"] is None
        assert shown["unresolved"] == [uri(BOB, "p")]
        assert shown["user"] is not None
        assert len(made.records[0].line(10**15)) <= 1024 * 1024


async def test_who_waits_long_for_the_budget_is_behind_until_it_has_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrator_module, "BEHIND_SECONDS", 0.5)
    seen = []
    async with bench(tmp_path) as made:
        made.appview.budget = (1, 3)
        for number in range(60):
            made.take(post(f"did:plc:n{number}"))
        for _ in range(4):
            seen.append(made.hydrator.is_behind)
            await trio.sleep(0.7)
        await made.metadata()
        await trio.sleep(1.1)
        seen.append(made.hydrator.is_behind)
    assert seen[0] is seen[-1] is False
    assert True in seen


async def test_one_bad_view_of_several_costs_only_itself(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.know(profile(ALICE), profile(CAROL))
        made.appview.answers[BOB] = b'{"did":"%b","handle":"\xff"}' % BOB.encode()
        made.take(post(**mentions(BOB, CAROL)))
        shown = await made.metadata()
    assert shown["mentions"][BOB] is None
    assert shown["mentions"][CAROL]["did"] == CAROL
    assert "unresolved" not in shown


async def test_room_is_bounded_and_comes_back(tmp_path: Path) -> None:
    async with bench(tmp_path, max_pending_bytes=1024 * 1024) as made:
        made.appview.latency_seconds = 0.3
        number = 0
        while made.hydrator.has_room:
            made.take(post(f"did:plc:n{number}", text="x" * 20_000))
            number += 1
        assert 30 < number < 60
        with trio.fail_after(10):
            await made.hydrator.room()
        await made.metadata()
        assert made.hydrator.statistics().waiting_bytes == 0
