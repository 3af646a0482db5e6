"""Hearts: who comes round is never late, however quiet it is; who hangs is, after a minute."""
# ruff: noqa: ARG001 - a clock works by being asked for

import math
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from turbod import heartbeat
from turbod.config import LogSettings
from turbod.eventlog.log import EventLog
from turbod.eventlog.writer import Writer
from turbod.heartbeat import SILENT_SECONDS, TICK_SECONDS, Heartbeats
from turbod.histogram import SECONDS

DAY = 24 * 3600.0
MARGIN = 2 * TICK_SECONDS


@asynccontextmanager
async def watching(*tasks: Callable[[], Awaitable[None]]) -> AsyncIterator[Heartbeats]:
    """Watch these tasks, each with a heart of the function's name."""
    heartbeats = Heartbeats()

    async def beating(task: Callable[[], Awaitable[None]]) -> None:
        with heartbeat.beating(task.__name__):
            await task()

    with heartbeats.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heartbeats.run)
            for task in tasks:
                nursery.start_soon(beating, task)
            yield heartbeats
            nursery.cancel_scope.cancel()


def names(heartbeats: Heartbeats) -> list[str]:
    return [name for name, _ in heartbeats.late(trio.current_time())]


async def test_who_rests_is_not_late_for_a_day(autojump_clock: MockClock) -> None:
    turns = 0

    async def quiet() -> None:
        nonlocal turns
        while True:
            turns += 1
            with heartbeat.resting():
                await trio.Event().wait()

    async def sleeping() -> None:
        while True:
            await heartbeat.sleep(7200)

    async def waiting() -> None:
        await heartbeat.wait(trio.Event())

    async with watching(quiet, sleeping, waiting) as heartbeats:
        for _ in range(int(DAY / 60)):
            await trio.sleep(60)
            assert heartbeats.late(trio.current_time()) == []
    assert turns >= DAY / TICK_SECONDS - 1


async def test_who_hangs_is_late_after_a_minute_and_not_before(autojump_clock: MockClock) -> None:
    async def hanging() -> None:
        await trio.Event().wait()

    with structlog.testing.capture_logs() as logs:
        async with watching(hanging) as heartbeats:
            await trio.sleep(SILENT_SECONDS - 1)
            assert names(heartbeats) == []
            await trio.sleep(1 + MARGIN)
            [(name, seconds)] = heartbeats.late(trio.current_time())
            assert name == "hanging"
            assert SILENT_SECONDS <= seconds <= SILENT_SECONDS + MARGIN
            await trio.sleep(3600)
    assert [each["event"] for each in logs] == ["task_hangs"]


async def test_the_log_says_where_in_turbod_a_task_hangs(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Stuck:
        async def flush(self) -> None:
            await trio.sleep_forever()

    async def hanging() -> None:
        log = EventLog(tmp_path, LogSettings(), written=lambda _: None)
        log._writer = cast("Writer", Stuck())
        await log.flush()

    with structlog.testing.capture_logs() as logs:
        async with watching(hanging):
            await trio.sleep(SILENT_SECONDS + MARGIN)
    assert re.fullmatch(r"eventlog/log\.py:\d+ flush", logs[0]["at"])


async def test_who_goes_on_is_late_no_longer(autojump_clock: MockClock) -> None:
    stuck = trio.Event()

    async def slow() -> None:
        await stuck.wait()
        await heartbeat.sleep(math.inf)

    with structlog.testing.capture_logs() as logs:
        async with watching(slow) as heartbeats:
            await trio.sleep(SILENT_SECONDS + MARGIN)
            assert names(heartbeats) == ["slow"]
            stuck.set()
            await trio.sleep(MARGIN)
            assert names(heartbeats) == []
    assert [each["event"] for each in logs] == ["task_hangs", "task_goes_on"]


async def test_a_rest_that_cannot_be_interrupted_is_a_hang(autojump_clock: MockClock) -> None:
    async def shielded() -> None:
        with heartbeat.resting(), trio.move_on_after(10 * SILENT_SECONDS, shield=True):
            await trio.sleep_forever()

    async with watching(shielded) as heartbeats:
        await trio.sleep(SILENT_SECONDS + MARGIN)
        assert names(heartbeats) == ["shielded"]


async def test_a_loop_that_only_spins_is_late(autojump_clock: MockClock) -> None:
    async def spinning() -> None:
        for _ in range(10_000):
            await trio.sleep(0.1)

    async with watching(spinning) as heartbeats:
        await trio.sleep(SILENT_SECONDS + MARGIN)
        assert names(heartbeats) == ["spinning"]


async def test_a_lost_wake_up_heals_at_the_next_tick(autojump_clock: MockClock) -> None:
    lot = trio.lowlevel.ParkingLot()
    queue: list[str] = []
    taken: list[str] = []

    async def taking() -> None:
        while True:
            while not queue:
                with heartbeat.resting():
                    await lot.park()
            taken.append(queue.pop())

    async with watching(taking):
        await trio.sleep(1)
        queue.append("nobody unparks whoever waits for it")
        await trio.sleep(TICK_SECONDS)
        assert taken


async def test_work_with_a_limit_of_its_own_may_take_so_long(autojump_clock: MockClock) -> None:
    async def working() -> None:
        with heartbeat.allowing(300), heartbeat.allowing(30):
            await trio.sleep_forever()

    async with watching(working) as heartbeats:
        await trio.sleep(300 + SILENT_SECONDS - 1)
        assert names(heartbeats) == []
        await trio.sleep(1 + MARGIN)
        assert names(heartbeats) == ["working"]


async def test_what_was_allowed_ends_with_the_work(autojump_clock: MockClock) -> None:
    async def working() -> None:
        with heartbeat.allowing(300):
            pass
        await trio.sleep_forever()

    async with watching(working) as heartbeats:
        await trio.sleep(SILENT_SECONDS + MARGIN)
        assert names(heartbeats) == ["working"]


async def test_a_process_that_was_stopped_finds_nobody_late(
    autojump_clock: MockClock,
) -> None:
    async def working() -> None:
        await trio.sleep(SILENT_SECONDS / 2)
        autojump_clock.jump(3600)
        await trio.sleep(SILENT_SECONDS / 4)
        await heartbeat.sleep(math.inf)

    async with watching(working) as heartbeats:
        for _ in range(20):
            await trio.sleep(TICK_SECONDS + 1)
            assert "working" not in names(heartbeats)


async def test_a_ticker_that_stopped_is_late_itself(autojump_clock: MockClock) -> None:
    heartbeats = Heartbeats()
    assert heartbeats.late(trio.current_time()) == []
    with trio.move_on_after(1):
        await heartbeats.run()
    await trio.sleep(SILENT_SECONDS)
    assert names(heartbeats) == ["heartbeats"]


async def test_a_heart_ends_with_its_task(autojump_clock: MockClock) -> None:
    async def brief() -> None:
        await trio.sleep(1)

    async with watching(brief) as heartbeats:
        await trio.sleep(0.5)
        assert len(heartbeats.hearts) == 1
        await trio.sleep(SILENT_SECONDS + MARGIN)
        assert not heartbeats.hearts
        assert names(heartbeats) == []


async def test_nobody_beats_for_another_task(autojump_clock: MockClock) -> None:
    async def lively() -> None:
        while True:
            await heartbeat.sleep(1)

    async def hanging() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lively)

    async with watching(hanging) as heartbeats:
        await trio.sleep(SILENT_SECONDS + MARGIN)
        assert names(heartbeats) == ["hanging"]


async def test_a_thread_may_beat_for_the_task_that_waits_for_it() -> None:
    heartbeats = Heartbeats()
    goes_on, beats = threading.Event(), threading.Event()

    def work(heart: heartbeat.Heart) -> None:
        while not goes_on.wait(0.001):
            heart.beat()
            beats.set()

    async def working() -> None:
        with heartbeat.beating("working"):
            await trio.to_thread.run_sync(work, heartbeat.heart())

    with heartbeats.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(working)
            for _ in range(3 * int(SILENT_SECONDS / TICK_SECONDS)):
                beats.clear()
                assert await trio.to_thread.run_sync(beats.wait, 10)
                heartbeats.tick()
            assert not any(heart.silent_seconds for heart in heartbeats.hearts.values())
            goes_on.set()


async def test_who_waits_for_a_lock_that_others_hold_is_not_late_and_gets_it(
    autojump_clock: MockClock,
) -> None:
    lock, got = trio.Lock(), []

    async def waiting() -> None:
        async with heartbeat.holding(lock):
            got.append(trio.current_time())
        await heartbeat.sleep(math.inf)

    async with lock, watching(waiting) as heartbeats:
        await trio.sleep(3600)
        assert names(heartbeats) == []
        assert not got
        lock.release()
        await trio.sleep(1)
        assert got
        assert not lock.locked()
        await lock.acquire()


async def test_sleep_and_wait_end_when_they_should_whatever_ticks(
    autojump_clock: MockClock,
) -> None:
    ended: list[float] = []

    async def sleeping() -> None:
        begun = trio.current_time()
        await heartbeat.sleep(33)
        ended.append(trio.current_time() - begun)
        await heartbeat.wait(trio.Event(), until=begun + 50)
        ended.append(trio.current_time() - begun)
        event = trio.Event()
        event.set()
        await heartbeat.wait(event)
        ended.append(trio.current_time() - begun)

    async with watching(sleeping):
        await trio.sleep(100)
    assert ended == pytest.approx([33, 50, 50])


async def test_without_hearts_everything_waits_as_ever(autojump_clock: MockClock) -> None:
    """Parts run in tests and in clients, where nobody watches."""
    with heartbeat.beating("nobody looks"):
        begun = trio.current_time()
        with heartbeat.resting(until=begun + 3), heartbeat.allowing(9):
            heartbeat.beat()
            await trio.Event().wait()
        await heartbeat.sleep(4)
    assert trio.current_time() - begun == pytest.approx(7)


async def test_the_loop_is_looked_at_four_times_a_second(autojump_clock: MockClock) -> None:
    async with watching() as heartbeats:
        await trio.sleep(100.1)
        lag = heartbeats.statistics().loop_lag_seconds
    assert lag.count == 400
    assert lag.sum < 0.001


async def test_who_blocks_the_loop_is_seen_in_its_lag() -> None:
    async with watching() as heartbeats:
        await trio.sleep(0.1)
        time.sleep(0.8)  # noqa: ASYNC251 - that is what it is about
        await trio.sleep(0.1)
        lag = heartbeats.statistics().loop_lag_seconds
    assert 0.5 < lag.sum < 1.5
    assert lag.cumulative[SECONDS.index(0.5)] == lag.count - 1
