"""Who is woken by what is published, and how many events a minute there were."""

import pytest
import trio
import trio.testing

from tests.eventlog.samples import DIDS, T0, chunk
from turbod.eventlog.rate import EventRate
from turbod.eventlog.watch import Watch, Watches


async def is_news(watch: Watch) -> bool:
    """Tell whether a wait returns without anything more being published."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.wait)
        await trio.testing.wait_all_tasks_blocked()
        waits = bool(nursery.child_tasks)
        nursery.cancel_scope.cancel()
    return not waits


def publish(watches: Watches, number: int) -> None:
    """Publish an event of DIDS[number]."""
    watches.publish(chunk([T0 + number], after=T0 + number - 1))


async def test_a_publish_between_two_waits_is_not_missed() -> None:
    watches = Watches()
    both = [watches.add(None), watches.add(frozenset(DIDS[:1]))]
    assert [await is_news(watch) for watch in both] == [False, False]
    publish(watches, 0)
    publish(watches, 0)
    assert [await is_news(watch) for watch in both] == [True, True]
    assert [await is_news(watch) for watch in both] == [False, False]


async def test_only_whom_a_chunk_may_concern_is_woken() -> None:
    watches = Watches()
    interests = [None, frozenset(DIDS[:1]), frozenset(DIDS[1:2]), frozenset[str]()]
    woken: list[frozenset[str] | None] = []

    async def wait(dids: frozenset[str] | None) -> None:
        watch = watches.add(dids)
        try:
            await watch.wait()
            woken.append(dids)
        finally:
            watch.close()

    async with trio.open_nursery() as nursery:
        for dids in interests:
            nursery.start_soon(wait, dids)
        await trio.testing.wait_all_tasks_blocked()
        publish(watches, 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(woken, key=str) == sorted([None, frozenset(DIDS[1:2])], key=str)
    assert not watches.open
    assert not watches.choosy


async def test_news_outlasts_a_cancelled_wait() -> None:
    watches = Watches()
    for dids in (None, frozenset(DIDS)):
        watch = watches.add(dids)
        with trio.CancelScope() as scope:
            publish(watches, 0)
            scope.cancel()
            await watch.wait()
        assert scope.cancelled_caught
        assert await is_news(watch)


@pytest.mark.parametrize("before", [None, frozenset(DIDS[:1])])
@pytest.mark.parametrize("after", [None, frozenset(DIDS[1:2])])
async def test_a_change_wakes_and_holds(
    before: frozenset[str] | None, after: frozenset[str] | None
) -> None:
    watches = Watches()
    watch, other = watches.add(before), watches.add(None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.wait)
        nursery.start_soon(other.wait)
        await trio.testing.wait_all_tasks_blocked()
        watch.change(after)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1, "only the other one still waits"
        publish(watches, 1)
    assert await is_news(watch)
    watch.close()
    watch.close()


async def test_a_wait_with_news_lets_others_run() -> None:
    watches = Watches()
    watch = watches.add(None)
    publish(watches, 0)
    with trio.testing.assert_checkpoints():
        await watch.wait()


def test_the_rate_is_right_from_the_first_seconds_and_fades() -> None:
    rate = EventRate(now_seconds=100.0)
    for tenth in range(200):
        rate.add(4, now_seconds=100.0 + tenth / 10)
    assert rate.per_minute(now_seconds=120.0) == pytest.approx(2400, rel=0.03)
    for tenth in range(200, 6000):
        rate.add(1, now_seconds=100.0 + tenth / 10)
    assert rate.per_minute(now_seconds=700.0) == pytest.approx(600, rel=0.03)
    assert rate.per_minute(now_seconds=1300.0) < 1


def test_one_event_at_once_is_not_a_flood() -> None:
    rate = EventRate(now_seconds=0.0)
    rate.add(1, now_seconds=0.001)
    assert rate.per_minute(now_seconds=0.002) < 20
