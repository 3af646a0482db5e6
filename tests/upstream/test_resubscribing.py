"""Other collections while hosts are read: nothing is lost or repeated, and no gap is made up."""

import pytest

from tests.upstream.fake_jetstream import (
    BASE_US,
    POST,
    SECOND,
    FakeJetstream,
    FakeLog,
    post,
    reading,
)
from turbod.event import parse
from turbod.upstream.position import Position, Trail, name_of
from turbod.upstream.subscription import CACHE_FEEDERS

LIKE = "app.bsky.feed.like"
REPOST = "app.bsky.feed.repost"
PROFILE = "app.bsky.actor.profile"
NOW = BASE_US + 10**6 * SECOND


def events(first: int, last: int, *, numbered: bool) -> list[bytes]:
    """Return posts, likes and reposts in turn."""
    return [
        post(
            n,
            at=BASE_US + n * SECOND,
            collection=(POST, LIKE, REPOST)[n % 3],
            cursor=100 + n if numbered else 0,
        )
        for n in range(first, last)
    ]


def rkeys(first: int, last: int, *remainders: int) -> list[str]:
    return [f"r{n}" for n in range(first, last) if n % 3 in remainders]


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("hosts", [1, 2])
async def test_a_change_of_collections_loses_nothing_repeats_nothing_and_is_no_gap(
    hosts: int,
    numbered: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Likes go and reposts come, between whose last and first all are asked anew."""
    fakes = [FakeJetstream() for _ in range(hosts)]
    for fake in fakes:
        fake.picks = True
    async with reading(*fakes, collections=(POST, LIKE)) as read:
        await read.until(lambda: all(fake.requests for fake in fakes))
        for fake in fakes:
            fake.emit(*events(0, 91, numbered=numbered))
        await read.until(lambda: len(read.rkeys) >= len(rkeys(0, 91, 0, 1)))
        read.upstream.subscribe((POST, REPOST))
        await read.until(lambda: all(len(fake.requests) == 2 for fake in fakes))
        for fake in fakes:
            assert REPOST in fake.requests[1]["wantedCollections"]
            assert LIKE not in fake.requests[1]["wantedCollections"]
            fake.emit(*events(91, 150, numbered=numbered))
        await read.until(lambda: "r149" in read.rkeys and "r147" in read.rkeys)
        found = read.rkeys
    assert len(set(found)) == len(found)
    assert set(rkeys(0, 150, 0)) <= set(found)
    assert set(rkeys(91, 150, 2)) <= set(found)
    assert not set(rkeys(91, 150, 1)) & set(found)
    assert read.gaps == []
    assert [len(fake.requests) for fake in fakes] == [2] * hosts


async def test_a_hole_behind_a_change_of_collections_is_a_gap() -> None:
    host = FakeJetstream()
    host.picks = True
    async with reading(host, collections=(POST, LIKE)) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*events(0, 91, numbered=True))
        await read.until(lambda: "r90" in read.rkeys)
        host.lose()
        host.history.extend(events(200, 260, numbered=True))
        read.upstream.subscribe((POST, REPOST))
        await read.until(lambda: "r258" in read.rkeys)
    assert len(read.gaps) == 1


async def test_what_was_read_for_the_cache_already_is_logged_without_asking_anew() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*(post(n, at=BASE_US + n * SECOND, collection=PROFILE) for n in range(5)))
        await read.until_taken(5)
        read.upstream.subscribe((POST, PROFILE))
        host.emit(*(post(n, at=BASE_US + n * SECOND, collection=PROFILE) for n in range(5, 9)))
        await read.until_taken(9)
        assert read.rkeys == ["r5", "r6", "r7", "r8"]
        assert len(host.requests) == 1


async def test_while_a_host_is_away_the_next_connect_asks_for_what_is_wanted_then() -> None:
    host = FakeJetstream()
    host.answer = "503 Service Unavailable"
    async with reading(host) as read:
        await read.until(lambda: host.connects >= 1)
        read.upstream.subscribe((POST, LIKE))
        host.answer = "serve"
        await read.until(lambda: bool(host.requests))
        assert LIKE in host.requests[-1]["wantedCollections"]


async def test_during_the_start_a_change_of_collections_holds_from_the_first_connect() -> None:
    host = FakeJetstream()
    log = FakeLog()
    async with reading(host, log=log) as read:
        read.upstream.subscribe((POST, LIKE))
        await read.until(lambda: bool(host.requests) and LIKE in str(host.requests[-1]))
        host.emit(*events(0, 10, numbered=False))
        await read.until(lambda: len(read.rkeys) >= 7)


def wants(collection: str) -> bool:
    return collection in {*CACHE_FEEDERS, ""}


def test_anchors_are_the_newest_of_what_is_still_sent_and_the_place_stays() -> None:
    trail = Trail(Position(BASE_US - 3600 * SECOND))
    made = [parse(message) for message in events(0, 40, numbered=True)]
    for event in made:
        trail.note(event)
    before = trail.position(NOW)
    trail.subscribe(wants, now_us=NOW)
    after = trail.position(NOW)
    assert before is not None
    assert after is not None
    assert after.time_us == before.time_us
    assert after.anchors == tuple(name_of(made[n]) for n in (30, 33, 36, 39))
    assert after.cursor == 130


def test_without_anything_that_is_still_sent_nothing_is_judged_and_nothing_left_out() -> None:
    for start in (None, Position(BASE_US, cursor=7, anchors=(f"{LIKE}#00",))):
        trail = Trail(start)
        if start is None:
            trail.note(parse(events(0, 2, numbered=True)[1]))
        before = trail.position(NOW)
        trail.subscribe(wants, now_us=NOW)
        after = trail.position(NOW)
        assert before is not None
        assert after is not None
        assert (after.time_us, after.cursor) == (before.time_us, before.cursor)
        assert after.anchors == ()


def test_a_host_that_sent_nothing_yet_keeps_its_anchors_where_all_are_still_sent() -> None:
    start = Position(BASE_US, cursor=7, anchors=(f"{POST}#00", "identity#11"))
    trail = Trail(start)
    trail.subscribe(wants, now_us=NOW)
    assert trail.position(NOW) == start
