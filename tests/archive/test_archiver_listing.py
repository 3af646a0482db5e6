"""Listing the store: what is known of it stays true, whoever asks, whatever is done meanwhile."""

from pathlib import Path

import pytest
import structlog.testing
import trio

from tests.archive.archivers import (
    Machine,
    MoodyStore,
    folder_machine,
    put_into,
    retry_quickly,
    until,
)
from tests.archive.samples_archive import plain_lines
from turbod.archive.catalogue import LISTED_AT_ONCE, Catalogue
from turbod.archive.format.names import Name, parse_key
from turbod.archive.local import Local
from turbod.archive.stores.store import Listed, StoreFault
from turbod.archive.upload import archiver as archiver_module
from turbod.archive.upload.inventory import Inventory
from turbod.cursor import HOUR_US

T0 = 10**15 - 10**15 % HOUR_US + HOUR_US


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)


class SlowStore(MoodyStore):
    """Lists what it has when it is asked, and answers when it may."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.may_answer = trio.Event()
        self.has: list[Listed] = []
        self.listings = 0

    async def list(self, *, after: str = "") -> list[Listed]:
        self.listings += 1
        has = [each for each in self.has if each.key > after]
        fault = self.fault
        await self.may_answer.wait()
        if fault:
            raise StoreFault(fault)
        return has


def name(hour: int) -> Name:
    return Name(T0 + hour * HOUR_US, T0 + hour * HOUR_US + 5)


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path)


async def test_many_that_ask_at_once_share_a_listing_begun_after_they_asked(
    store: SlowStore,
) -> None:
    inventory = Inventory(store, Catalogue())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inventory.refresh)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(50):
            nursery.start_soon(inventory.refresh)
        await trio.testing.wait_all_tasks_blocked()
        store.has = [Listed(name(1).key, 10)]  # the first listing passed this
        store.may_answer.set()
    assert store.listings == 2
    assert inventory.stored_hours == 1


async def test_a_listing_of_years_leaves_others_their_turns(store: SlowStore) -> None:
    """Every hundred hours; all at once it took the event loop 10 ms for each thousand."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    catalogue = Catalogue()
    store.has = [Listed(name(hour).key, 10) for hour in range(5000)]
    store.may_answer.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await Inventory(store, catalogue).refresh()
        nursery.cancel_scope.cancel()
    assert len(catalogue) == 5000
    assert turns >= 5000 / 200 + 5000 / LISTED_AT_ONCE


async def test_many_that_ask_at_once_share_a_fault_as_well(store: SlowStore) -> None:
    inventory = Inventory(store, Catalogue())
    store.fault = "away"
    faults = []

    async def ask() -> None:
        try:
            await inventory.refresh()
        except StoreFault as fault:
            faults.append(str(fault))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(49):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        store.may_answer.set()
    assert faults == ["away"] * 50
    assert store.listings == 2


async def test_who_is_cancelled_while_listing_leaves_it_to_the_next(store: SlowStore) -> None:
    inventory = Inventory(store, Catalogue())
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.01):
            async with trio.open_nursery() as first:
                first.start_soon(inventory.refresh)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(inventory.refresh)
                await trio.testing.wait_all_tasks_blocked()
                store.has = [Listed(name(1).key, 10)]
                await trio.sleep_forever()
        store.may_answer.set()
    assert store.listings == 2
    assert inventory.stored_hours == 1


async def test_what_is_done_while_a_listing_is_under_way_holds_after_it(store: SlowStore) -> None:
    catalogue = Catalogue()
    inventory = Inventory(store, catalogue)
    store.has = [Listed(name(1).key, 10), Listed(name(2).key, 20)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inventory.refresh)
        await trio.testing.wait_all_tasks_blocked()
        inventory.stored(name(3), 30)
        inventory.removed(name(1))
        store.may_answer.set()
    assert [held.name for held in catalogue.stored()] == [name(2), name(3)]
    assert (inventory.stored_hours, inventory.stored_bytes) == (2, 50)
    inventory.stored(name(3), 30)
    assert (inventory.stored_hours, inventory.stored_bytes) == (2, 50)


async def test_what_is_foreign_is_named_once_counted_and_never_touched(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    put_into(archive, plain_lines(1, 5))
    foreign = ["README", "dt=2026-11-20/hour=08/1-2.jsonl.zst", "zzz"]
    for key in foreign:
        (archive / key).parent.mkdir(parents=True, exist_ok=True)
        (archive / key).write_text("mine")
    machine = folder_machine(tmp_path)
    with structlog.testing.capture_logs() as logs:
        archiver = await machine.start()
        for _ in range(3):
            await archiver.relist()
    assert archiver.statistics().foreign == 3
    (told,) = [each for each in logs if each["event"] == "archive_foreign"]
    assert (told["count"], sorted(told["objects"])) == (3, sorted(foreign))
    assert [held.name.key for held in machine.catalogue] == [
        path for path in (each.key for each in await machine.store.list()) if parse_key(path)
    ]
    for key in foreign:
        assert (archive / key).read_text() == "mine"


async def test_a_listing_each_hour_finds_what_became_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "LIST_SECONDS", 0.05)
    machine = folder_machine(tmp_path)
    stored = machine.seal(1)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded)
        (tmp_path / "archive" / stored.key).unlink()
        await until(lambda: archiver.statistics().stored_hours == 0)
        assert [held.is_stored for held in machine.catalogue] == [False]


async def test_readers_list_the_store_again_no_more_often_than_each_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.rate == 0
    monkeypatch.setattr(archiver_module, "RELIST_SECONDS", 10.0)
    store = SlowStore(tmp_path / "archive")
    store.may_answer.set()
    machine = Machine(tmp_path / "data", store)
    archiver = archiver_module.Archiver(
        store,
        Local(machine.data, Catalogue()),
        Catalogue(),
        machine.settings,
        data=machine.data,
        log_max_bytes=1,
    )
    began = trio.current_time()

    async def read() -> None:
        for _ in range(5):
            await archiver.relist()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(read)
    assert trio.current_time() - began == pytest.approx(40, abs=1)
    assert store.listings <= 10


async def test_two_objects_of_one_hour_are_counted(tmp_path: Path) -> None:
    put_into(tmp_path / "archive", plain_lines(1, 5))
    put_into(tmp_path / "archive", plain_lines(1, 6))
    archiver = await folder_machine(tmp_path).start()
    assert archiver.statistics().conflicts == 1


async def test_a_long_listing_does_not_hold_the_loop(
    store: SlowStore,
) -> None:
    inventory = Inventory(store, Catalogue())
    store.has = [Listed(name(hour).key, 10) for hour in range(20_000)]
    store.may_answer.set()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await inventory.refresh()
        nursery.cancel_scope.cancel()
    assert turns >= 100
