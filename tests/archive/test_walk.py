"""Walking an archive: what a plain scan selects, once, in order, and gaps where it lacks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.sealed import (
    COLLECTIONS,
    DIDS,
    HOUR,
    T0,
    add_hour,
    hour_of_lines,
    make_archive,
)
from turbod.archive.bulk import parts, patience
from turbod.archive.bulk import walk as walking
from turbod.archive.bulk.parts import END
from turbod.archive.bulk.walk import Piece, Progress, walk
from turbod.archive.stores.folder import FolderStore
from turbod.archive.stores.store import Listed, NotThere, Source, StoreFault
from turbod.eventlog.chunk import Gap
from turbod.filter import EVERYTHING, Filter
from turbod.record import head_of_line

ALL = Filter()


class Unsteady:
    """A folder whose reads fail as the test wants, and that counts what goes on."""

    def __init__(self, folder: Path) -> None:
        self._store = FolderStore(folder)
        self.faults: list[StoreFault] = []
        self.lies: Callable[[str, int], bool] = lambda _key, _count: False
        self.breaks: Callable[[str, int], bool] = lambda _key, _count: False
        self.reads: list[tuple[str, int, int]] = []
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        """As any source."""
        return "unsteady"

    async def list(self, *, after: str = "") -> list[Listed]:
        """As the folder does."""
        return await self._store.list(after=after)

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        """Fail, lie, or read."""
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            self.reads.append((key, offset, size))
            count = sum(read[0] == key for read in self.reads)
            if self.breaks(key, count):
                raise StoreFault("broken")
            if self.faults:
                raise self.faults.pop()
            data = await self._store.read(key, offset=offset, size=size)
        finally:
            self.under_way -= 1
        if self.lies(key, count):
            return data[:-30] + bytes([data[-30] ^ 1]) + data[-29:]
        return data


async def walked(source: Source, **asked: object) -> list[Piece]:
    """Walk to the end."""
    async with walk(source, **asked) as pieces:  # type: ignore[arg-type]
        return [piece async for piece in pieces]


def lines_of(pieces: Sequence[Piece]) -> list[bytes]:
    """Return all lines, having looked at what each piece says of itself."""
    last = 0
    for piece in pieces:
        lines = piece.lines.splitlines(keepends=True)
        cursors = [cursor(line) for line in lines]
        assert piece.records == len(lines)
        assert all(last < each <= piece.last for each in cursors)
        assert piece.last >= last
        last = piece.last
    return b"".join(piece.lines for piece in pieces).splitlines(keepends=True)


def cursor(line: bytes) -> int:
    return int(json.loads(line)["cursor"])


def gaps_of(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    return [(gap.after, gap.before) for piece in pieces for gap in piece.gaps]


def key_at(archive: Path, hour: int) -> Path:
    """Return the object of an hour after T0."""
    return next(archive.glob(f"dt=*/hour={(10 + hour) % 24:02}/*.zst"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """Three hours with a quiet one among them, and the lines of all."""
    folder = tmp_path_factory.mktemp("archive")
    return folder, make_archive(folder, [0, 1, 3], count=60)


filters = st.builds(
    Filter,
    collections=st.frozensets(st.sampled_from(COLLECTIONS), max_size=2),
    prefixes=st.sampled_from([(), ("app.bsky.graph.",)]),
    dids=st.frozensets(st.sampled_from(DIDS), max_size=2),
    about=st.frozensets(st.sampled_from(DIDS), max_size=1),
    kinds=st.sampled_from([frozenset(), frozenset({"commit"}), frozenset({"identity"})]),
    max_size_bytes=st.sampled_from([0, 400]),
)
positions = st.one_of(
    st.integers(T0 - HOUR, T0 + 5 * HOUR),
    st.integers(0, 300).map(lambda step: T0 + step * HOUR // 60 + step % 3 - 1),
)


@settings(max_examples=60, deadline=None)
@given(chosen=st.one_of(st.just(ALL), filters), after=positions, until=positions)
def test_a_walk_gives_what_a_plain_scan_selects_once_and_in_order(
    archive: tuple[Path, list[bytes]], chosen: Filter, after: int, until: int
) -> None:
    folder, every = archive
    source = FolderStore(folder)
    pieces = trio.run(lambda: walked(source, after=after, until=until, filter=chosen))
    assert lines_of(pieces) == [
        line
        for line in every
        if after < cursor(line) <= until and chosen.matches(head_of_line(line), len(line) - 1)
    ]
    assert not gaps_of(pieces)
    assert all(piece.last <= until for piece in pieces)


async def test_a_walk_over_all_reports_how_far_it_is(archive: tuple[Path, list[bytes]]) -> None:
    folder, every = archive
    reports: list[Progress] = []
    pieces = await walked(FolderStore(folder), report=reports.append)
    assert lines_of(pieces) == every
    assert [report.cursor for report in reports] == [piece.last for piece in pieces]
    assert [report.passed_bytes for report in reports] == sorted(
        report.passed_bytes for report in reports
    )
    last = reports[-1]
    assert last.passed_bytes == last.total_bytes
    assert last.records == len(every)
    assert last.raw_bytes == sum(map(len, every))
    assert {piece.instance for piece in pieces} == {"here"}


async def test_frames_and_hours_that_hold_nothing_wanted_are_not_read(tmp_path: Path) -> None:
    rare, previous = DIDS[3], 0
    for hour in range(6):
        lines = hour_of_lines(hour, 60)
        kept = [
            line
            for index, line in enumerate(lines)
            if rare.encode() not in line or (hour == 4 and index < 10)
        ]
        add_hour(tmp_path, kept, previous=previous)
        previous = cursor(kept[-1])
    source = Unsteady(tmp_path)
    pieces = await walked(source, filter=Filter(dids=frozenset({rare})))
    assert len(lines_of(pieces)) > 0
    assert len(source.reads) == 6 + 1  # the indexes, and the first frame of the fifth hour
    assert pieces[-1].last == previous


async def test_frames_with_others_between_them_are_read_by_themselves(tmp_path: Path) -> None:
    rare, lines = DIDS[3], hour_of_lines(0, 120)
    kept = [
        line
        for index, line in enumerate(lines)
        if rare.encode() not in line or not 15 < index < 105
    ]
    add_hour(tmp_path, kept, previous=0)
    source, chosen = Unsteady(tmp_path), Filter(dids=frozenset({rare}))
    expected = [line for line in kept if chosen.matches(head_of_line(line), len(line))]
    assert lines_of(await walked(source, filter=chosen)) == expected
    assert len(source.reads) == 1 + 2


@pytest.mark.parametrize(
    "chosen",
    [
        Filter(max_size_bytes=500),
        Filter(shard=(1, 3)),
        Filter(operations=frozenset({"delete"})),
        Filter(kinds=frozenset({"identity"})),
        Filter(collections=frozenset(COLLECTIONS)),
        Filter(collections=frozenset(COLLECTIONS), max_size_bytes=500),
    ],
)
async def test_filters_that_no_index_decides_are_exact(
    archive: tuple[Path, list[bytes]], chosen: Filter
) -> None:
    assert lines_of(await walked(FolderStore(archive[0]), filter=chosen)) == [
        line for line in archive[1] if chosen.matches(head_of_line(line), len(line) - 1)
    ]


async def test_neighbouring_frames_are_read_at_one_go_and_bounded(
    archive: tuple[Path, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, every = archive
    source = Unsteady(folder)
    assert lines_of(await walked(source)) == every
    assert len(source.reads) == 6  # an index and a run for each of three
    monkeypatch.setattr(parts, "RUN_BYTES", 1000)
    source = Unsteady(folder)
    assert lines_of(await walked(source)) == every
    sizes = [size for _, offset, size in source.reads]
    assert len(sizes) > 6


async def test_no_more_reads_are_under_way_than_was_asked_for(
    archive: tuple[Path, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, every = archive
    monkeypatch.setattr(parts, "RUN_BYTES", 1)
    for parallel in (1, 3):
        source = Unsteady(folder)
        assert lines_of(await walked(source, parallel=parallel)) == every
        assert source.most_under_way <= parallel


async def test_what_is_done_ahead_is_bounded_while_nobody_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_archive(tmp_path, range(30), count=60)
    monkeypatch.setattr(walking, "ROOM_BYTES", 20_000)
    monkeypatch.setattr(walking, "RUN_BYTES", 5_000)
    monkeypatch.setattr(walking, "LEAST_BYTES", 1)
    source = Unsteady(tmp_path)
    async with walk(source, parallel=2) as pieces:
        async for _ in pieces:
            await trio.sleep(0.2)
            # Two indexes, three runs of which one is being decompressed, and two that were.
            assert len(source.reads) <= 2 * 7
            break


async def test_leaving_a_walk_early_leaves_nothing_behind(
    archive: tuple[Path, list[bytes]],
) -> None:
    source = Unsteady(archive[0])
    async with walk(source) as pieces:
        async for _ in pieces:
            break
    count = len(source.reads)
    await trio.sleep(0.05)
    assert (len(source.reads), source.under_way) == (count, 0)


async def test_a_source_that_fails_for_a_while_costs_time_only(
    archive: tuple[Path, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT_SECONDS", 0.001)
    source = Unsteady(archive[0])
    source.faults = [StoreFault("away")] * 5
    assert lines_of(await walked(source, parallel=1)) == archive[1]


@pytest.mark.parametrize("sound_reads", [0, 1])
async def test_a_source_that_fails_for_good_is_raised_behind_all_that_came_before(
    archive: tuple[Path, list[bytes]], monkeypatch: pytest.MonkeyPatch, sound_reads: int
) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT_SECONDS", 0.001)
    source = Unsteady(archive[0])
    source.breaks = lambda key, count: "hour=13" in key and count > sound_reads  # the index first
    found: list[Piece] = []

    async def take() -> None:
        async with walk(source) as pieces:
            async for piece in pieces:
                found.append(piece)  # noqa: PERF401 - what came before the fault is looked at

    with pytest.raises(StoreFault, match="broken"):
        await take()
    assert lines_of(found) == archive[1][:120]


@pytest.mark.parametrize("sound_reads", [0, 1])
async def test_bytes_damaged_on_their_way_are_read_again(
    archive: tuple[Path, list[bytes]], sound_reads: int
) -> None:
    source = Unsteady(archive[0])
    source.lies = lambda key, count: "hour=11" in key and count == sound_reads + 1
    pieces = await walked(source)
    assert (lines_of(pieces), gaps_of(pieces)) == (archive[1], [])
    assert len(source.reads) == 7
    source.lies = lambda key, count: "hour=11" in key and count > sound_reads
    assert gaps_of(await walked(source))


async def test_a_damaged_frame_is_a_gap_in_its_place(tmp_path: Path) -> None:
    every = make_archive(tmp_path, [0, 1], count=60)
    path = key_at(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[50] ^= 1  # in the first frame
    path.write_bytes(data)
    pieces = await walked(FolderStore(tmp_path))
    lines = lines_of(pieces)
    assert lines == every[-len(lines) :]
    assert 60 < len(lines) < 120
    assert gaps_of(pieces) == [(0, cursor(lines[0]))]
    assert path.name in pieces[0].gaps[0].message


async def test_the_last_frame_damaged_is_a_gap_up_to_the_next_hour(tmp_path: Path) -> None:
    every = make_archive(tmp_path, [0, 1], count=20)
    path = key_at(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[50] ^= 1  # so short an hour is two frames
    path.write_bytes(data)
    pieces = await walked(FolderStore(tmp_path), after=cursor(every[2]))
    assert gaps_of(pieces)[0][0] == cursor(every[2])


@pytest.mark.parametrize("damage", ["truncated", "garbage", "gone", "empty"])
async def test_an_object_that_cannot_be_read_is_a_gap_to_the_next(
    tmp_path: Path, damage: str
) -> None:
    every = make_archive(tmp_path, [0, 1, 2], count=30)
    path = key_at(tmp_path, 1)
    source: Source = FolderStore(tmp_path)
    if damage == "gone":
        source = Vanishing(tmp_path, str(path.relative_to(tmp_path)))
    else:
        data = path.read_bytes()
        path.write_bytes({"truncated": data[:-40], "garbage": b"x" * 999, "empty": b""}[damage])
    for after in (0, cursor(every[5]), cursor(every[35])):
        pieces = await walked(source, after=after)
        rest = [line for line in every[:30] + every[60:] if cursor(line) > after]
        assert lines_of(pieces) == rest
        assert gaps_of(pieces) == [(max(cursor(every[29]), after), cursor(every[60]))]
    # Nobody misses what was not asked for.
    assert not gaps_of(await walked(source, until=cursor(every[29])))
    assert not gaps_of(await walked(source, after=cursor(every[59])))


class Vanishing(Unsteady):
    """A folder of which one object goes away after it was listed."""

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__(folder)
        self._gone = key

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        """Read, unless it is that one."""
        if key == self._gone:
            raise NotThere("gone")
        return await super().read(key, offset=offset, size=size)


async def test_a_missing_hour_is_a_gap_and_a_quiet_one_is_none(tmp_path: Path) -> None:
    every = make_archive(tmp_path, [0, 1, 2, 5], count=30)
    key_at(tmp_path, 1).unlink()
    source = FolderStore(tmp_path)
    hole = (cursor(every[29]), cursor(every[60]))
    pieces = await walked(source)
    assert lines_of(pieces) == every[:30] + every[60:]
    assert gaps_of(pieces) == [hole]
    # It is told wherever some of it was asked for, also at the end.
    assert gaps_of(await walked(source, until=T0 + HOUR)) == [hole]
    assert gaps_of(await walked(source, until=cursor(every[29]))) == []
    assert gaps_of(await walked(source, until=T0 + HOUR, after=T0 + HOUR - 5))
    inside = T0 + HOUR + HOUR // 2
    assert gaps_of(await walked(source, after=inside)) == [(inside, cursor(every[60]))]
    assert gaps_of(await walked(source, after=cursor(every[60]))) == []


async def test_gaps_of_the_upstream_are_told_also_where_the_record_behind_is_filtered_out(
    tmp_path: Path,
) -> None:
    lines = hour_of_lines(0, 60)
    gap = Gap(cursor(lines[20]), cursor(lines[21]), "the upstream no longer had them")
    add_hour(tmp_path, lines, previous=0, gaps=[gap])
    source = FolderStore(tmp_path)
    nobody = Filter(dids=frozenset({"did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"}))
    for chosen in (EVERYTHING, nobody):
        pieces = await walked(source, filter=chosen)
        assert [each for piece in pieces for each in piece.gaps] == [gap]
    pieces = await walked(source)
    (told,) = [number for number, piece in enumerate(pieces) if piece.gaps]
    assert 0 < told < len(pieces) - 1
    assert pieces[told - 1].last < gap.before <= pieces[told].last
    assert not gaps_of(await walked(source, after=cursor(lines[21])))
    assert not gaps_of(await walked(source, until=cursor(lines[20])))
    assert gaps_of(await walked(source, after=gap.after, until=gap.after + 1))


async def test_a_gap_at_the_end_of_an_hour_is_told(tmp_path: Path) -> None:
    lines = hour_of_lines(0, 60)
    gap = Gap(cursor(lines[-1]), T0 + HOUR, "the last minutes are missing")
    add_hour(tmp_path, lines, previous=0, gaps=[gap])
    pieces = await walked(FolderStore(tmp_path))
    assert lines_of(pieces) == lines
    assert [each for piece in pieces for each in piece.gaps] == [gap]


async def test_before_the_oldest_is_a_gap_only_for_whom_asked_for_it(tmp_path: Path) -> None:
    every = make_archive(tmp_path, [0, 1], count=30)
    key_at(tmp_path, 0).unlink()
    source = FolderStore(tmp_path)
    assert not gaps_of(await walked(source))
    assert gaps_of(await walked(source, after=T0 - 5)) == [(T0 - 5, cursor(every[30]))]
    assert not gaps_of(await walked(source, after=cursor(every[29])))


async def test_two_objects_of_one_hour_are_read_as_one(tmp_path: Path) -> None:
    every = make_archive(tmp_path, [0, 1], count=30)
    add_hour(tmp_path, every[:10], previous=0)
    assert lines_of(await walked(FolderStore(tmp_path))) == every


async def test_foreign_files_are_passed_over(tmp_path: Path) -> None:
    every = make_archive(tmp_path, [0], count=30)
    (key_at(tmp_path, 0).parent / "notes.txt").write_text("mine")
    assert lines_of(await walked(FolderStore(tmp_path))) == every


async def test_an_archive_without_objects_has_no_pieces(tmp_path: Path) -> None:
    assert await walked(FolderStore(tmp_path)) == []


async def test_skipped_objects_are_not_read(archive: tuple[Path, list[bytes]]) -> None:
    source = Unsteady(archive[0])
    pieces = await walked(source, skip=lambda name: name.hour == T0)
    assert lines_of(pieces) == archive[1][60:]
    assert not gaps_of(pieces)
    assert not [key for key, _, _ in source.reads if "hour=10" in key]


def test_the_end_is_above_every_cursor() -> None:
    assert END == 2**53 - 1
