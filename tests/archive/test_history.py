"""Reading objects: what each reader gets is what a plain scan selects, or a gap in its place."""

import resource
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing
from trio.testing import MockClock

from tests.archive.samples_archive import (
    DIDS,
    HOUR,
    LIKE,
    POST,
    T0,
    Archive,
    NoLog,
    cursor_of,
    line,
    lines_above,
    matching,
    plain_lines,
    read_all,
)
from turbod.archive.reading.history import FRAMES_A_CALL, History
from turbod.archive.reading.nearest import FORGOTTEN_SECONDS
from turbod.archive.stores.store import Listed, Source, StoreFault
from turbod.eventlog.chunk import Gap
from turbod.eventlog.reader import HistoryUnavailable, Pruned
from turbod.filter import EVERYTHING, Filter

NOTHING = Filter(collections=frozenset({"com.example.nobody"}), kinds=frozenset({"commit"}))
POSTS = Filter(collections=frozenset({POST}), kinds=frozenset({"commit"}))
THREAD_SECONDS = 0.1  # of real time that the mocked clock lets a thread have


class Watched:
    """A store in between, which counts, waits or fails as it is told."""

    def __init__(self, store: Source) -> None:
        self._store = store
        self.reads: list[tuple[str, int, int]] = []
        self.fault: StoreFault | None = None
        self.before_read: Callable[[], object] = lambda: None
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.is_read = trio.Event()

    @property
    def url(self) -> str:
        return self._store.url

    async def list(self, *, after: str = "") -> list[Listed]:
        return await self._store.list(after=after)

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        self.reads.append((key, offset, size))
        self.before_read()
        self.is_read.set()
        await self.may_answer.wait()
        if self.fault is not None:
            raise self.fault
        return await self._store.read(key, offset=offset, size=size)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


# ---- What is there


async def test_all_records_of_all_hours_come_in_order(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 5], 90)
    await archive.relist()
    async with archive.opened() as history:
        assert await read_all(history, 0) == (every, [], cursor_of(every[-1]))


async def test_a_position_anywhere_is_gone_on_from(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 90)
    await archive.relist()
    async with archive.opened() as history:
        for number in (0, 1, 44, 88, 89, 90, 91, 178, 179):
            for step in (-1, 0, 1):
                position = cursor_of(every[number]) + step
                lines, gaps, _ = await read_all(history, position)
                assert lines == [each for each in every if cursor_of(each) > position]
                assert gaps == []


async def test_one_call_returns_about_a_mebibyte(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = plain_lines(0, 300, padding=20_000)
    archive.add(every, previous=0, frame_bytes=10**8)
    await archive.relist()
    async with archive.opened() as history:
        for chosen in (EVERYTHING, POSTS):
            stretch = await history.read(0, chosen, newer=NoLog())
            size = sum(map(len, lines_above(stretch.items, 0)))
            assert 2**20 <= size < 2 * 2**20 or chosen is POSTS
            assert size <= 2 * 2**20
            lines, _, _ = await read_all(history, 0, chosen)
            assert lines == matching(every, chosen)


async def test_a_filter_reads_only_frames_that_may_hold_something(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    by_others = [each for each in plain_lines(0, 200) if DIDS[3].encode() not in each]
    archive.add(by_others, previous=0)
    wanted = plain_lines(1, 200)
    archive.add(wanted, previous=cursor_of(by_others[-1]))
    await archive.relist()
    store = Watched(archive.store)
    chosen = Filter(dids=frozenset({DIDS[3]}))
    async with archive.opened(store=store) as history:
        lines, gaps, last = await read_all(history, 0, chosen)
        assert lines == matching(wanted, chosen)
        assert lines
        assert (gaps, last) == ([], cursor_of(wanted[-1]))
    first = archive.names()[0]
    assert len([key for key, *_ in store.reads if key == first.key]) == 1, "its index, no frame"


async def test_a_call_that_finds_nothing_moves_on_and_ends_after_a_bounded_number_of_frames(
    tmp_path: Path,
) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0], 300)
    await archive.relist()
    chosen = Filter(max_size_bytes=1)  # no index rules it out
    async with archive.opened() as history:
        index = await history.index(next(iter(archive.catalogue)))
        assert len(index.frames) > 2 * FRAMES_A_CALL
        stretch = await history.read(0, chosen, newer=NoLog())
        assert (stretch.items, stretch.last) == ([], index.frames[FRAMES_A_CALL - 1].last)
        assert await read_all(history, 0, chosen) == ([], [], cursor_of(every[-1]))


async def test_objects_that_the_log_has_as_files_too_are_left_to_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 30)
    await archive.relist()
    log = NoLog(floor=T0 + HOUR - 1)
    async with archive.opened() as history:
        assert await read_all(history, 0, newer=log) == (every[:30], [], cursor_of(every[29]))


# ---- Gaps


async def test_gaps_of_an_index_are_told_once_whatever_is_selected(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    lines = plain_lines(0, 200)
    gaps = [
        Gap(cursor_of(lines[number - 1]), cursor_of(lines[number]), f"lost {number}")
        for number in (3, 77, 78, 150)
    ]
    archive.add(lines, previous=0, gaps=gaps)
    await archive.relist()
    async with archive.opened() as history:
        for chosen in (EVERYTHING, POSTS, NOTHING, Filter(max_size_bytes=1)):
            for number in (0, 76, 77, 149):
                position = cursor_of(lines[number])
                found, told, last = await read_all(history, position, chosen)
                assert told == [gap for gap in gaps if gap.before > position]
                assert found == matching(lines, chosen, above=position)
                assert last == cursor_of(lines[-1])


async def test_a_gap_before_every_record_is_told_at_its_place(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    lines = plain_lines(0, 60)
    cursors = [cursor_of(each) for each in lines]
    gaps = [Gap(after, before, "lost") for after, before in pairwise(cursors)]
    archive.add(lines, previous=0, gaps=gaps)
    await archive.relist()
    async with archive.opened() as history:
        for chosen in (EVERYTHING, POSTS):
            assert await read_all(history, 0, chosen) == (
                matching(lines, chosen),
                gaps,
                cursors[-1],
            )


async def test_gaps_in_frames_that_are_left_out_are_told_too(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    kinds = [POST] * 40 + [LIKE] * 40
    lines = [line(T0 + number, kind=kind) for number, kind in enumerate(kinds)]
    gaps = [Gap(T0 + number - 1, T0 + number, "lost") for number in (2, 30, 45, 79)]
    archive.add(lines, previous=0, gaps=gaps)
    await archive.relist()
    async with archive.opened() as history:
        for kind in (POST, LIKE):
            chosen = Filter(collections=frozenset({kind}))
            for position in (0, T0 + 20):
                found, told, _ = await read_all(history, position, chosen)
                assert found == matching(lines, chosen, above=position)
                assert told == [gap for gap in gaps if gap.before > position]


async def test_a_gap_behind_the_last_record_of_an_hour_is_told_too(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    first, second = plain_lines(0, 20), plain_lines(1, 20)
    name = archive.add(first, previous=0, torn=b"garbage")
    archive.add(second, previous=name.last)
    await archive.relist()
    async with archive.opened() as history:
        for chosen in (EVERYTHING, POSTS, NOTHING):
            found, told, _ = await read_all(history, 0, chosen)
            assert found == matching([*first, *second], chosen)
            assert [(gap.after, gap.before) for gap in told] == [(name.last, T0 + HOUR)]


async def test_a_hole_is_told_where_it_is_and_logged_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 2, 3], 30)
    names = archive.names()
    for name in names[1:3]:
        archive.path(name).unlink()
    await archive.relist()
    with structlog.testing.capture_logs() as logged:
        async with archive.opened() as history:
            for chosen in (EVERYTHING, POSTS, NOTHING, EVERYTHING):
                found, told, _ = await read_all(history, 0, chosen)
                assert found == matching([*every[:30], *every[90:]], chosen)
                (gap,) = told
                assert (gap.after, gap.before) == (names[0].last, names[3].first)
                assert names[3].key in gap.message
            # Who stands in the hole is told from there; who is past it is not told.
            found, told, _ = await read_all(history, names[1].first)
            assert [(gap.after, gap.before) for gap in told] == [(names[1].first, names[3].first)]
            assert (await read_all(history, names[2].last))[1] == []
            assert history.statistics().holes == 1
    assert [each["event"] for each in logged] == ["archive_hole"]


async def test_a_damaged_frame_is_a_gap_and_the_rest_comes(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 100)
    await archive.relist()
    first, second = archive.catalogue
    async with archive.opened() as history:
        frames = (await history.index(first)).frames
    for frame in (frames[1], frames[-1]):
        flip(archive.path(first.name), frame.offset + frame.size // 2)
    torn = [(frame.first, frame.last) for frame in (frames[1], frames[-1])]
    sound = [
        each for each in every if not any(low <= cursor_of(each) <= high for low, high in torn)
    ]
    with structlog.testing.capture_logs() as logged:
        async with archive.opened() as history:
            for chosen in (EVERYTHING, POSTS, EVERYTHING):
                found, told, _ = await read_all(history, 0, chosen)
                assert found == matching(sound, chosen)
                assert [(gap.after, gap.before) for gap in told] == [
                    (frames[0].last, frames[2].first),
                    (frames[-2].last, second.name.first),
                ]
            assert history.statistics().damaged == 2
    assert [each["event"] for each in logged] == ["archive_damaged"] * 2


async def test_an_object_whose_index_is_damaged_is_a_gap_as_a_whole(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 2], 50)
    await archive.relist()
    names = archive.names()
    flip(archive.path(names[1]), -1)
    flip(archive.path(names[2]), -1)
    async with archive.opened() as history:
        found, told, last = await read_all(history, 0)
        assert found == every[:50]
        assert last == names[2].last
        assert [(gap.after, gap.before) for gap in told] == [
            (names[0].last, names[2].first),
            (names[1].last, names[2].end),
        ]


async def test_a_gap_ends_where_memory_begins(tmp_path: Path) -> None:
    """An object may be damaged while memory still has its last records."""
    archive = Archive(tmp_path)
    every = archive.add_hours([0], 50)
    await archive.relist()
    (name,) = archive.names()
    flip(archive.path(name), -1)
    log = NoLog()
    log.memory = [cursor_of(each) for each in every[40:]]
    async with archive.opened() as history:
        _, told, last = await read_all(history, cursor_of(every[9]), newer=log)
        assert [(gap.after, gap.before) for gap in told] == [
            (cursor_of(every[9]), cursor_of(every[40]))
        ]
        assert last == log.memory[0] - 1, "what follows comes from there"
        assert await read_all(history, cursor_of(every[45]), newer=log) == (
            [], [], cursor_of(every[45]),
        )  # fmt: skip


async def test_what_was_listed_and_is_gone_is_looked_for_anew(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 2], 30)
    names = archive.names()
    await archive.relist()
    archive.path(names[1]).unlink()
    async with archive.opened() as history:
        found, told, _ = await read_all(history, 0)
        assert found == [*every[:30], *every[60:]]
        assert [(gap.after, gap.before) for gap in told] == [(names[0].last, names[2].first)]
        assert archive.relisted == 2
        assert len(archive.catalogue) == 2


async def test_what_the_store_lists_and_has_not_is_a_gap(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 2], 30)
    await archive.relist()
    names = archive.names()
    archive.path(names[1]).chmod(0o000)
    archive.path(names[1]).unlink()
    listing = [(name, 100) for name in names]

    async def relist() -> None:
        await trio.lowlevel.checkpoint()
        archive.catalogue.listed(listing)

    history = History(archive.catalogue, archive.store, read_ahead_bytes=2**26, relist=relist)
    archive.catalogue.listed(
        [(name, archive.path(name).stat().st_size if name != names[1] else 100) for name in names]
    )
    listing = [
        (name, archive.path(name).stat().st_size if name != names[1] else 100) for name in names
    ]
    async with trio.open_nursery() as nursery:
        await nursery.start(history.run)
        found, told, _ = await read_all(history, 0)
        assert found == [*every[:30], *every[60:]]
        assert [(gap.after, gap.before) for gap in told] == [(names[0].last, names[2].first)]
        assert "listed" in told[0].message
        nursery.cancel_scope.cancel()


async def test_a_position_whose_object_was_dropped_is_no_longer_retained(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 2], 30)
    await archive.relist()
    async with archive.opened() as history:
        archive.catalogue.remove_stored(archive.names()[0])
        with pytest.raises(Pruned):
            await history.read(cursor_of(every[10]), EVERYTHING, newer=NoLog())
        lines, gaps, _ = await read_all(history, 0)
        assert (lines, gaps) == (every[30:], []), "who asks for the oldest misses nothing"
        lines, gaps, _ = await read_all(history, cursor_of(every[30]) - 1)
        assert (lines, gaps) == (every[30:], [])


# ---- Where it lies


async def test_a_file_on_this_disk_is_read_before_the_store(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 30)
    await archive.relist()
    archive.keep(archive.names()[1])
    store = Watched(archive.store)
    async with archive.opened(store=store) as history:
        assert (await read_all(history, 0))[:2] == (every, [])
    assert {key for key, *_ in store.reads} == {archive.names()[0].key}


async def test_a_file_that_is_pruned_or_moved_under_a_reader_is_read_where_it_is(
    tmp_path: Path,
) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 60)
    await archive.relist()
    pruned, moved = archive.names()
    (path := archive.keep(pruned)).unlink()
    archive.keep(moved)
    async with archive.opened() as history:
        index = await history.index(next(iter(archive.catalogue)))
        assert index.records == 60
        elsewhere = tmp_path / "elsewhere"
        archive.path(moved).rename(elsewhere)
        archive.catalogue.remove_stored(moved)
        (tmp_path / "verified" / moved.file).rename(tmp_path / "moved")
        archive.catalogue.add_local(moved, elsewhere.stat().st_size, tmp_path / "moved")
        assert (await read_all(history, 0))[:2] == (every, [])
    assert not path.exists()


async def test_a_file_that_is_damaged_on_this_disk_is_read_from_the_store(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 2], 60)
    await archive.relist()
    for number, name in enumerate(archive.names()):
        path = archive.keep(name)
        if number == 0:
            flip(path, 10)
        elif number == 1:
            flip(path, -1)
        else:
            path.write_bytes(path.read_bytes()[:100])
    with structlog.testing.capture_logs() as logged:
        async with archive.opened() as history:
            assert (await read_all(history, 0))[:2] == (every, [])
    assert [each["event"] for each in logged] == ["archive_file_damaged"] * 2


async def test_a_damaged_file_that_is_not_stored_is_a_gap(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 60)
    first, second = archive.names()
    flip(archive.keep(first), -1)
    archive.path(first).unlink()
    await archive.relist()
    async with archive.opened() as history:
        found, told, _ = await read_all(history, 0)
        assert found == every[60:]
        assert [(gap.after, gap.before) for gap in told] == [(first.first - 1, second.first)]


# ---- A store that does not answer


async def test_a_reader_waits_for_the_store_and_is_never_taken_past_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = THREAD_SECONDS
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 60)
    await archive.relist()
    store = Watched(archive.store)
    with structlog.testing.capture_logs() as logged:
        async with archive.opened(store=store) as history, trio.open_nursery() as nursery:
            stretch = await history.read(0, EVERYTHING, newer=NoLog())
            store.fault = StoreFault("the bucket is on holiday")

            async def return_later() -> None:
                await trio.sleep(45)
                store.fault = None

            nursery.start_soon(return_later)
            began = trio.current_time()
            found, told, _ = await read_all(history, stretch.last)
            assert lines_above(stretch.items, 0) + found == every
            assert told == []
            assert 45 <= trio.current_time() - began < 57
            assert history.statistics().fault is None
    assert [each["event"] for each in logged] == ["archive_away", "archive_back"]


async def test_after_a_minute_without_an_answer_history_is_unavailable(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = THREAD_SECONDS
    archive = Archive(tmp_path)
    archive.add_hours([0, 1], 60)
    await archive.relist()
    store = Watched(archive.store)
    with structlog.testing.capture_logs() as logged:
        async with archive.opened(store=store) as history:
            store.fault = StoreFault("the bucket is on holiday")
            for _ in range(2):
                began = trio.current_time()
                with pytest.raises(HistoryUnavailable, match="on holiday"):
                    await history.read(0, EVERYTHING, newer=NoLog())
                assert 59 < trio.current_time() - began < 61
            store.fault = None
            store.may_answer = trio.Event()
            with pytest.raises(HistoryUnavailable, match="did not answer"):
                await history.read(0, EVERYTHING, newer=NoLog())
            assert history.statistics().fault == "the bucket is on holiday"
    assert [each["event"] for each in logged] == ["archive_away"]


async def test_a_fault_that_nobody_meets_any_more_is_forgotten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Who met it went away, and nobody else asks whether the store is back."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    archive = Archive(tmp_path)
    archive.add_hours([0], 60)
    await archive.relist()
    store = Watched(archive.store)
    store.fault = StoreFault("the bucket is on holiday")
    async with archive.opened(store=store) as history:
        with trio.move_on_after(20):
            await history.read(0, EVERYTHING, newer=NoLog())
        await trio.sleep(FORGOTTEN_SECONDS - 30)
        assert history.statistics().fault == "the bucket is on holiday"
        await trio.sleep(30)
        assert history.statistics().fault is None


async def test_what_is_remembered_of_a_store_is_no_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The index is in memory, the frame is not."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    archive = Archive(tmp_path)
    archive.add_hours([0], 90)
    await archive.relist()
    store = Watched(archive.store)
    async with archive.opened(store=store) as history:
        await history.index(next(iter(archive.catalogue)))
        store.fault = StoreFault("the bucket is on holiday")
        began = trio.current_time()
        with pytest.raises(HistoryUnavailable, match="on holiday"):
            await history.read(0, EVERYTHING, newer=NoLog())
        assert 59 < trio.current_time() - began < 61


async def test_a_slow_store_is_no_absent_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What counts is the time without any answer."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 60)
    await archive.relist()

    class Slow(Watched):
        async def read(self, key: str, *, offset: int, size: int) -> bytes:
            await trio.sleep(40)
            return await super().read(key, offset=offset, size=size)

    async with archive.opened(store=Slow(archive.store)) as history:
        assert (await read_all(history, 0, POSTS))[:2] == (matching(every, POSTS), [])


async def test_what_was_read_before_the_store_went_is_returned_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sooner than the first retry."""
    monkeypatch.setattr("turbod.archive.reading.history.FIRST_RETRY_SECONDS", 50.0)
    monkeypatch.setattr("turbod.archive.reading.history.LONGEST_RETRY_SECONDS", 50.0)
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1], 60)
    await archive.relist()
    archive.keep(archive.names()[0])
    store = Watched(archive.store)
    store.fault = StoreFault("gone")
    async with archive.opened(store=store) as history:
        with trio.fail_after(10):
            stretch = await history.read(0, EVERYTHING, newer=NoLog())
        assert stretch.last <= cursor_of(every[59])
        assert lines_above(stretch.items, 0) == [
            each for each in every if cursor_of(each) <= stretch.last
        ]


async def test_a_store_that_was_not_listed_is_waited_for_where_it_may_have_more(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = THREAD_SECONDS
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 2], 30)
    archive.keep(archive.names()[2])
    async with archive.opened() as history, trio.open_nursery() as nursery:
        position = cursor_of(every[59])
        stretch = await history.read(position, EVERYTHING, newer=NoLog())
        assert lines_above(stretch.items, position) == every[60:], "nothing is missing before it"
        for position in (0, cursor_of(every[5]), cursor_of(every[58])):
            with pytest.raises(HistoryUnavailable, match="listed"):
                await history.read(position, EVERYTHING, newer=NoLog())

        async def list_later() -> None:
            await trio.sleep(20)
            await archive.relist()

        nursery.start_soon(list_later)
        lines, gaps, _ = await read_all(history, 0)
        assert (lines, gaps) == (every, [])


# ---- Many readers


async def test_what_many_readers_want_is_fetched_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0, 1, 2], 100)
    await archive.relist()
    store = Watched(archive.store)
    async with archive.opened(store=store) as history, trio.open_nursery() as nursery:

        async def read(chosen: Filter) -> None:
            assert (await read_all(history, 0, chosen))[0] == matching(every, chosen)

        for _ in range(6):
            nursery.start_soon(read, EVERYTHING)
            nursery.start_soon(read, POSTS)
    assert len(store.reads) == len(set(store.reads))


async def test_a_reader_that_leaves_takes_nothing_from_the_others(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    every = archive.add_hours([0], 50)
    await archive.relist()
    store = Watched(archive.store)
    store.may_answer = trio.Event()
    found: list[list[bytes]] = []
    async with archive.opened(store=store) as history, trio.open_nursery() as nursery:

        async def read() -> None:
            found.append((await read_all(history, 0))[0])

        async with trio.open_nursery() as leaving:
            leaving.start_soon(read)
            await store.is_read.wait()
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
        store.may_answer.set()
    assert found == [every]
    assert len(store.reads) == len(set(store.reads))


class ListedLately(Archive):
    """The store was listed a moment ago, and is not asked again so soon."""

    async def relist(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_no_file_to_be_opened_now_is_no_gap(tmp_path: Path) -> None:
    """Where clients hold every descriptor, an hour that is only on this disk is there all the same.

    A gap would be told of it, and the reader taken past it for good.
    """
    archive = ListedLately(tmp_path)
    every = archive.add_hours([0, 1], 20)
    for name in archive.names():
        archive.keep(name)
    archive.catalogue.listed([])
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with archive.opened() as history:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
        try:
            with trio.move_on_after(0.2) as scope:
                await read_all(history, 0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
        assert scope.cancelled_caught, "it is waited for"
        assert (await read_all(history, 0))[:2] == (every, [])
        assert history.statistics().damaged == 0


async def test_no_client_is_told_where_the_operator_keeps_the_archive(tmp_path: Path) -> None:
    """What is listed and cannot be found is told by its key alone."""
    archive = ListedLately(tmp_path)
    archive.add_hours([0, 1], 20)
    await Archive.relist(archive)
    first = archive.names()[0]
    archive.path(first).unlink()
    async with archive.opened() as history:
        _, (gap,), _ = await read_all(history, 0)
    assert first.key in gap.message
    assert str(tmp_path) not in gap.message
