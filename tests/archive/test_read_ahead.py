"""What is read for many: fetched once, bounded, in turn, whoever leaves."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from turbod.archive.format.hour_object import Damaged
from turbod.archive.reading.read_ahead import HOLD_SECONDS, LONGEST_HOLD_SECONDS, ReadAhead
from turbod.archive.stores.store import StoreFault

Things = ReadAhead[int, bytes]
LIMIT = 100


class Fetches:
    """Makes things of ten bytes for each ten of their key, in a second each."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.under_way = self.most_under_way = 0
        self.fault: Exception | None = None

    async def fetch(self, key: int) -> bytes:
        self.begun.append(key)
        self.under_way += key
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await trio.sleep(1)
        finally:
            self.under_way -= key
        if self.fault is not None:
            raise self.fault
        return b"x" * key

    async def get(self, things: Things, key: int) -> bytes:
        return await things.get(key, lambda: self.fetch(key), size=key)

    def begin(self, things: Things, key: int) -> None:
        things.begin(key, lambda: self.fetch(key), size=key)


@asynccontextmanager
async def running(max_bytes: int = LIMIT) -> AsyncIterator[Things]:
    things = Things(max_bytes=max_bytes, size_of=len)
    async with trio.open_nursery() as nursery:
        await nursery.start(things.run)
        yield things
        nursery.cancel_scope.cancel()


async def test_what_several_ask_for_is_fetched_once(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    async with running() as things:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fetches.get, things, 40)
        assert await fetches.get(things, 40) == b"x" * 40
        assert fetches.begun == [40]
        assert things.statistics().bytes == 40
        assert (things.statistics().fetched, things.statistics().shared) == (1, 5)
    assert autojump_clock.current_time() >= 1


async def test_a_fault_is_everybodys_and_is_not_kept(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    faults: list[Exception] = []
    async with running() as things:

        async def get() -> None:
            try:
                await fetches.get(things, 40)
            except (StoreFault, Damaged) as fault:
                faults.append(fault)

        for fetches.fault in (StoreFault("away"), Damaged("torn")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
                nursery.start_soon(get)
        assert [str(fault) for fault in faults] == ["away", "away", "torn", "torn"]
        assert things.statistics().bytes == things.statistics().kept == 0
        fetches.fault = None
        assert await fetches.get(things, 40) == b"x" * 40
    assert autojump_clock.current_time() >= 3


async def test_who_leaves_takes_nothing_from_who_stays(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    async with running() as things, trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            await fetches.get(things, 40)
        nursery.start_soon(fetches.get, things, 40)
    assert fetches.begun == [40]
    assert autojump_clock.current_time() < 1.5


async def test_who_leaves_before_his_turn_leaves_nothing_to_be_fetched(
    autojump_clock: MockClock,
) -> None:
    """Clients who come and go would have others wait for what nobody wants."""
    fetches = Fetches()
    async with running() as things, trio.open_nursery() as nursery:
        nursery.start_soon(fetches.get, things, 70)
        await trio.testing.wait_all_tasks_blocked()
        for key in range(71, 90):
            with trio.move_on_after(0.001):
                await fetches.get(things, key)
        nursery.start_soon(fetches.get, things, 90)
        with trio.move_on_after(0.001):
            await fetches.get(things, 90)
        await trio.testing.wait_all_tasks_blocked()
        assert things.statistics().kept == 2
        assert len(nursery.child_tasks) == 2
    assert fetches.begun == [70, 90], "90 is still waited for"
    assert autojump_clock.current_time() < LONGEST_HOLD_SECONDS


async def test_room_among_many_small_things_takes_no_time() -> None:
    """A quiet network has thousands of small indexes: 5 ms of the loop for each new one."""

    async def fetch() -> bytes:
        return b"x" * 10

    things = ReadAhead[int, bytes](max_bytes=200_000, size_of=len, hold_seconds=0, after_seconds=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(things.run)
        for key in range(20_000):
            things.begin(key, fetch, size=10)
        await trio.testing.wait_all_tasks_blocked()
        assert things.statistics().kept == 20_000
        began = time.process_time()
        for key in range(20_000, 20_200):
            assert len(await things.get(key, fetch, size=10)) == 10
        assert time.process_time() - began < 1
        assert things.statistics().kept == 20_000
        nursery.cancel_scope.cancel()


async def test_the_longest_unused_goes_when_there_is_no_room(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    async with running() as things:
        for key in (31, 32, 33):
            await fetches.get(things, key)
        await trio.sleep(HOLD_SECONDS)
        await fetches.get(things, 31)
        await fetches.get(things, 34)
        assert [key for key in (31, 32, 33, 34) if things.peek(key)] == [31, 33, 34]
        await trio.sleep(HOLD_SECONDS)
        things.finished(34)
        await fetches.get(things, 35)
        assert [key for key in (31, 33, 34, 35) if things.peek(key)] == [31, 33, 35], "done with"
    assert autojump_clock.current_time() > 0


async def test_what_a_reader_is_in_the_middle_of_stays_while_it_goes_on(
    autojump_clock: MockClock,
) -> None:
    """Two readers, room for one: they take turns, and do not fetch the same again and again."""
    fetches = Fetches()
    done: list[int] = []
    async with running() as things, trio.open_nursery() as nursery:

        async def read(key: int) -> None:
            for _ in range(10):
                await fetches.get(things, key)
                await trio.sleep(0.3)
            things.finished(key)
            done.append(key)

        nursery.start_soon(read, 70)
        await trio.sleep(0.5)
        nursery.start_soon(read, 80)
    assert fetches.begun == [70, 80]
    assert done == [70, 80]
    assert autojump_clock.current_time() < 10


async def test_a_slow_reader_does_not_keep_others_out_for_ever(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    async with running() as things, trio.open_nursery() as nursery:

        async def read_slowly() -> None:
            while True:
                await fetches.get(things, 70)
                await trio.sleep(HOLD_SECONDS * 0.9)

        nursery.start_soon(read_slowly)
        await trio.sleep(1.5)
        began = trio.current_time()
        await fetches.get(things, 80)
        assert trio.current_time() - began < LONGEST_HOLD_SECONDS + 3
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() > 0


async def test_what_is_bigger_than_all_room_comes_alone(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    async with running() as things, trio.open_nursery() as nursery:
        for key in (300, 50, 200):
            nursery.start_soon(fetches.get, things, key)
    assert sorted(fetches.begun) == [50, 200, 300]
    assert fetches.most_under_way == 300
    assert autojump_clock.current_time() > 0


async def test_who_waits_for_much_room_is_not_passed_by_who_needs_little(
    autojump_clock: MockClock,
) -> None:
    fetches = Fetches()
    async with running() as things, trio.open_nursery() as nursery:
        for key in (60, 90, 11, 12, 13):
            nursery.start_soon(fetches.get, things, key)
            await trio.testing.wait_all_tasks_blocked()
    assert fetches.begun == [60, 90, 11, 12, 13]
    assert autojump_clock.current_time() > 0


async def test_reading_ahead_does_not_pass_who_waits_for_room(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    async with running() as things, trio.open_nursery() as nursery:
        nursery.start_soon(fetches.get, things, 60)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(fetches.get, things, 90)
        await trio.testing.wait_all_tasks_blocked()
        fetches.begin(things, 10)
    assert fetches.begun == [60, 90]
    assert autojump_clock.current_time() > 0


async def test_reading_ahead_puts_out_nothing_that_is_in_use(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    async with running() as things:
        await fetches.get(things, 60)
        fetches.begin(things, 50)
        await trio.testing.wait_all_tasks_blocked()
        assert fetches.begun == [60], "there is no room"
        fetches.begin(things, 40)
        fetches.begin(things, 40)
        assert await fetches.get(things, 40) == b"x" * 40
        assert fetches.begun == [60, 40]
        things.finished(60)
        await trio.sleep(0.2)
        fetches.begin(things, 55)
        await trio.testing.wait_all_tasks_blocked()
        assert fetches.begun == [60, 40, 55]
        assert things.peek(60) is None
    assert autojump_clock.current_time() > 0


async def test_a_fault_ahead_of_its_reader_is_nobodys(autojump_clock: MockClock) -> None:
    fetches = Fetches()
    fetches.fault = StoreFault("away")
    async with running() as things:
        fetches.begin(things, 40)
        await trio.sleep(2)
        fetches.fault = None
        assert await fetches.get(things, 40) == b"x" * 40
    assert autojump_clock.current_time() > 0


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_asked_for_the_bound_holds_and_everybody_is_served(
    autojump_clock: MockClock, seed: int
) -> None:
    fetches = Fetches()
    draw = Random(seed)
    served = 0
    async with running() as things, trio.open_nursery() as nursery:

        async def read(draw: Random) -> None:
            nonlocal served
            for _ in range(20):
                key = draw.randrange(1, LIMIT)
                with trio.move_on_after(draw.choice([0.5, 1000.0])):
                    assert len(await fetches.get(things, key)) == key
                    served += 1
                assert things.statistics().bytes <= LIMIT
                if draw.random() < 0.5:
                    things.finished(key)
                fetches.begin(things, draw.randrange(1, LIMIT))
                assert things.statistics().bytes <= LIMIT
                await trio.sleep(draw.choice([0, 0.1, 1]))

        for _ in range(6):
            nursery.start_soon(read, Random(draw.random()))
    assert fetches.most_under_way <= LIMIT
    assert served > 30
    assert autojump_clock.current_time() < 1000
