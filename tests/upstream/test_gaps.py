"""A gap is certain or not reported, told once, and before the first event behind it."""

import math

import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.upstream.fake_jetstream import BASE_US, SECOND, FakeJetstream, FakeLog, post, reading
from turbod.event import Event, parse
from turbod.upstream.gaps import REORDER_US, Coverage, Resumption, Seen, can_judge
from turbod.upstream.gaps import _subtract as subtract
from turbod.upstream.intake import Intake
from turbod.upstream.position import Position, name_of
from turbod.upstream.subscription import Subscription


def event(number: int, *, at: int | None = None) -> Event:
    return parse(post(number, at=BASE_US + number * SECOND if at is None else at))


def position(*numbers: int) -> Position:
    events = [event(n) for n in numbers]
    return Position(
        events[0].time_us, 0, events[-1].time_us, tuple(name_of(event) for event in events)
    )


def test_an_anchor_that_comes_again_settles_it() -> None:
    resumption = Resumption(position(3, 4, 5), by_number=False)
    assert resumption.observe(event(2), known=True) is Seen.UNSURE
    assert resumption.observe(event(4), known=True) is Seen.REPEATED


def test_a_late_event_that_is_not_beyond_the_anchors_proves_nothing() -> None:
    resumption = Resumption(position(5), by_number=False)
    assert resumption.observe(event(100, at=BASE_US + 4 * SECOND), known=False) is Seen.UNSURE


def test_a_new_event_beyond_the_anchors_is_a_hole() -> None:
    resumption = Resumption(position(5), by_number=False)
    assert resumption.observe(event(6), known=False) is Seen.BEYOND


def test_a_known_event_is_beyond_only_where_reordering_cannot_explain_it() -> None:
    resumption = Resumption(position(5), by_number=False)
    soon = BASE_US + 5 * SECOND + REORDER_US
    assert resumption.observe(event(6, at=soon), known=True) is Seen.UNSURE
    assert resumption.observe(event(7, at=soon + 1), known=True) is Seen.BEYOND


def test_asked_by_number_anything_but_an_anchor_is_beyond() -> None:
    resumption = Resumption(position(5), by_number=True)
    assert resumption.observe(event(1), known=True) is Seen.BEYOND


def test_anchors_of_what_is_no_longer_subscribed_judge_nothing() -> None:
    assert can_judge(position(5), ["app.bsky.feed.post"])
    assert can_judge(position(5), ["app.bsky.*"])
    assert not can_judge(position(5), ["app.bsky.feed.like", "app.bsky.feed.posting"])
    assert not can_judge(Position(BASE_US), ["app.bsky.feed.post"])
    assert can_judge(Position(BASE_US, anchors=("identity#12",)), [])


def test_a_hole_of_one_host_that_another_covers_is_no_gap() -> None:
    coverage = Coverage(2)
    coverage.follow(0, 10)
    coverage.follow(1, 10)
    coverage.leave(1, 50)
    coverage.hole(1, 50, 90)
    assert coverage.is_gap(1, 50, 90) is False


def test_the_verdict_waits_for_a_host_that_may_yet_cover_and_then_is_its() -> None:
    coverage = Coverage(2)
    coverage.begin(0, 100)
    coverage.begin(1, 60)
    coverage.hole(1, 60, 200)
    assert coverage.is_gap(1, 60, 200) is None
    coverage.follow(0, 100)
    assert coverage.is_gap(1, 60, 200) is False


def test_two_holes_at_once_are_one_gap() -> None:
    coverage = Coverage(2)
    coverage.begin(0, 100)
    coverage.begin(1, 110)
    coverage.hole(1, 110, 200)
    coverage.hole(0, 100, 210)
    assert coverage.is_gap(1, 110, 200) is True
    coverage.told(110, 200)
    assert coverage.is_gap(0, 100, 210) is False


def test_a_host_alone_has_no_excuse() -> None:
    coverage = Coverage(1)
    coverage.begin(0, 100)
    coverage.hole(0, 100, 200)
    assert coverage.is_gap(0, 100, 200) is True


spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: tuple(sorted(pair))),
    max_size=8,
)


@given(start=st.integers(0, 30), length=st.integers(1, 20), covered=spans)
def test_what_is_left_of_a_hole_is_what_no_span_covers(
    start: int, length: int, covered: list[tuple[int, int]]
) -> None:
    left = subtract([(start, start + length)], covered)
    for at in range(70):
        middle = at + 0.5
        expected = start < middle < start + length and not any(
            low < middle < high for low, high in covered
        )
        assert any(low < middle < high for low, high in left) == expected


def test_closed_spans_are_bounded() -> None:
    coverage = Coverage(1)
    for n in range(10_000):
        coverage.told(10 * n, 10 * n + 5)
    assert len(coverage._closed) < 100
    assert math.isfinite(coverage._closed[-1][1])


def posts(first: int, last: int) -> list[bytes]:
    return [post(n, at=BASE_US + n * SECOND, account=n % 7) for n in range(first, last)]


async def test_both_hosts_having_lost_it_is_told_once_before_the_first_event_behind() -> None:
    hosts = FakeJetstream(), FakeJetstream()
    async with reading(*hosts) as read:
        await read.until(lambda: all(host.requests for host in hosts))
        for host in hosts:
            host.emit(*posts(0, 20))
        await read.until_taken(20)
        for host in hosts:
            host.answer = "hang up"
            await host.drop()
            host.lose()
            host.history = posts(30, 40)
        await trio.sleep(0.1)
        for host in hosts:
            host.answer = "serve"
        await read.until_taken(30)
        assert [place for place, _ in read.gaps] == [20]
        assert sorted(read.rkeys[20:]) == [f"r{n}" for n in range(30, 40)]
        assert read.upstream.statistics().gaps == 1


async def test_what_the_other_host_still_has_is_no_gap() -> None:
    lost, kept = FakeJetstream(), FakeJetstream()
    async with reading(lost, kept) as read:
        await read.until(lambda: bool(lost.requests and kept.requests))
        lost.emit(*posts(0, 20))
        kept.emit(*posts(0, 20))
        await read.until_taken(20)
        for host in (lost, kept):
            host.answer = "hang up"
            await host.drop()
        lost.lose()
        lost.history = posts(30, 40)
        kept.history.extend(posts(20, 40))
        lost.answer = "serve"  # comes back first, and must wait for the other
        await read.until(lambda: len(lost.requests) >= 2)
        await trio.sleep(0.2)
        assert len(read.taken) == 20
        kept.answer = "serve"
        await read.until_taken(40)
        assert sorted(read.rkeys) == sorted(f"r{n}" for n in range(40))
        assert read.gaps == []


async def test_a_verdict_that_never_comes_is_not_waited_for_for_ever() -> None:
    lost, gone = FakeJetstream(), FakeJetstream()
    async with reading(lost, gone, verdict_seconds=0.5) as read:
        await read.until(lambda: bool(lost.requests and gone.requests))
        lost.emit(*posts(0, 20))
        gone.emit(*posts(0, 20))
        await read.until_taken(20)
        gone.answer = lost.answer = "hang up"
        await gone.drop()
        await lost.drop()
        lost.history = posts(30, 40)
        lost.answer = "serve"
        await read.until_taken(30)
        assert [place for place, _ in read.gaps] == [20]
        gone.history.extend(posts(20, 40))
        gone.answer = "serve"  # and fills it late
        await read.until_taken(40)
        assert sorted(read.rkeys) == sorted(f"r{n}" for n in range(40))
        assert len(read.gaps) == 1


async def test_a_host_that_is_merely_quiet_has_no_gap() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 20))
        await read.until_taken(20)
        await host.drop()
        await read.until(lambda: len(host.requests) >= 2)
        host.emit(*posts(3000, 3010))
        await read.until_taken(30)
        assert read.gaps == []


async def test_after_a_restart_a_host_that_lost_its_position_is_a_gap() -> None:
    host = FakeJetstream()
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        host.history = posts(100, 110)
        async with reading(host, positions={host.url: position(3, 4, 5)}) as read:
            await read.until_taken(10)
            assert [place for place, _ in read.gaps] == [0]
        nursery.cancel_scope.cancel()


async def test_a_host_never_read_that_begins_behind_the_logs_end_is_a_gap() -> None:
    """New hosts after a long downtime: what the log lacks, they no longer have either."""
    one, other = FakeJetstream(), FakeJetstream()
    one.history = posts(100, 110)
    other.history = posts(95, 110)
    async with reading(one, other, fallback=position(3, 4, 5)) as read:
        await read.until_taken(15)
        assert [place for place, _ in read.gaps] == [0]


async def test_a_host_never_read_that_has_what_is_older_has_no_gap() -> None:
    """Though it lacks the log's last events: it may be blind to those who made them."""
    host = FakeJetstream()
    host.history = [*posts(2, 3), *posts(100, 110)]
    async with reading(host, fallback=position(3, 4, 5)) as read:
        await read.until_taken(11)
        assert read.gaps == []


async def test_a_host_never_read_that_begins_with_the_logs_last_event_has_no_gap() -> None:
    host = FakeJetstream()
    host.history = [*posts(5, 6), *posts(100, 110)]
    async with reading(host, fallback=position(3, 4, 5)) as read:
        await read.until_taken(11)
        assert read.gaps == []


async def test_no_position_is_saved_behind_a_gap_that_is_not_on_disk_yet() -> None:
    """It is written with the next record: a restart before that has to find the hole again."""
    host = FakeJetstream()
    saved = position(3, 4, 5)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        host.history = posts(100, 110)  # these only feed the cache
        likes = ("app.bsky.feed.like",)
        async with reading(host, collections=likes, positions={host.url: saved}) as read:
            await read.until_taken(10)
            assert [place for place, _ in read.gaps] == [0]
            assert read.upstream.positions() == {host.url: saved}
            host.emit(post(111, at=BASE_US + 111 * SECOND).replace(b"feed.post", b"feed.like"))
            await read.until_taken(11)
            await read.until(lambda: read.upstream.positions() != {host.url: saved})
        nursery.cancel_scope.cancel()


async def test_a_gap_whose_telling_was_cut_short_is_told_at_the_next_connect() -> None:
    told: list[str] = []
    cut_short = trio.CancelScope()

    async def gap(message: str) -> None:
        await trio.lowlevel.checkpoint()
        cut_short.cancel()
        await trio.lowlevel.checkpoint()
        told.append(message)

    intake = Intake(
        hosts=["ws://a"],
        positions=[position(3, 4, 5)],
        subscription=Subscription(("app.bsky.feed.post",)),
        limit=100,
        older=FakeLog(),
        take=lambda *_: None,
        has_room=lambda: True,
        room=trio.lowlevel.checkpoint,
        gap=gap,
        now_us=lambda: BASE_US + 3600 * SECOND,
        verdict_seconds=1,
    )
    resumption = Resumption(position(3, 4, 5), by_number=False)
    with cut_short:
        await intake.judge(0, resumption, event(100))
    assert (told, intake.gaps) == ([], 0)
    intake.leave(0)
    await intake.judge(0, resumption, event(100))
    assert (len(told), intake.gaps) == (1, 1)
    await intake.judge(0, resumption, event(100))
    assert len(told) == 1
