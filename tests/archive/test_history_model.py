"""History against a plain scan: random holes, damage, places, positions and filters."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.archive.samples_archive import (
    DIDS,
    HOUR,
    T0,
    Archive,
    cursor_of,
    filters,
    matching,
    plain_lines,
    read_all,
)
from turbod.archive.format.index import Frame
from turbod.archive.format.names import Name
from turbod.archive.reading.selection import Selection
from turbod.cursor import LIMIT
from turbod.eventlog.chunk import Gap
from turbod.filter import Filter

HOURS = (0, 1, 2, 4, 5)
LINES = 60
FRAME_BYTES = 8192


class Made:
    """An archive that was made once; each example takes a copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: dict[Name, list[bytes]] = {}
        self.frames: dict[Name, list[Frame]] = {}
        self.gaps: list[Gap] = []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("made"))
    archive = Archive(made.folder)
    previous = 0
    for hour in HOURS:
        lines = plain_lines(hour, LINES)
        gaps = [Gap(cursor_of(lines[30]), cursor_of(lines[31]), "lost")] if hour % 2 else []
        name = archive.add(lines, previous=previous, gaps=gaps, frame_bytes=FRAME_BYTES)
        made.lines[name] = lines
        made.gaps += gaps
        previous = name.last

    async def learn() -> None:
        await archive.relist()
        async with archive.opened() as history:
            for held in archive.catalogue:
                made.frames[held.name] = (await history.index(held)).frames

    trio.run(learn)
    return made


fates = st.sampled_from(["whole", "whole", "whole", "gone", "index", "frame", "end"])
places = st.sampled_from(["stored", "local", "both", "torn file"])
PLAN = st.tuples(fates, places, st.integers(0, 100))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(
    [("whole", "stored", 0)] * 4 + [("frame", "stored", 3)],
    Filter(about=frozenset({DIDS[2], *(f"did:web:x{number}" for number in range(9))})),
    0,
)
@given(
    st.lists(PLAN, min_size=len(HOURS), max_size=len(HOURS)),
    filters,
    st.one_of(st.just(0), st.integers(T0 - 1, T0 + 6 * HOUR)),
)
def test_what_is_there_comes_exactly_once_and_gaps_stand_where_some_is_missing(
    made: Made, plans: list[tuple[str, str, int]], chosen: Filter, position: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(made.folder, folder, dirs_exist_ok=True)
        trio.run(_compare, made, Archive(Path(folder)), plans, chosen, position)


async def _compare(
    made: Made,
    archive: Archive,
    plans: Sequence[tuple[str, str, int]],
    chosen: Filter,
    position: int,
) -> None:
    there: list[bytes] = []
    missing: list[int] = []
    for (name, lines), (fate, place, number) in zip(made.lines.items(), plans, strict=True):
        frames = made.frames[name]
        frame = frames[number % len(frames)]
        torn = _spoil(archive.path(name), fate, frame)
        # What the index rules out is not looked at, and nothing of it is missing for this filter.
        is_wanted = fate != "frame" or Selection(chosen).wants(frame)
        for line in lines:
            is_lost = any(low <= cursor_of(line) <= high for low, high in torn)
            if not is_lost:
                there.append(line)
            elif is_wanted:
                missing.append(cursor_of(line))
        if fate != "gone":
            _put(archive, name, place)
    await archive.relist()
    if not len(archive.catalogue):
        return
    position = position and max(position, archive.catalogue.floor)
    async with archive.opened() as history:
        found, told, last = await read_all(history, position, chosen)
    newest = list(archive.catalogue)[-1].name
    assert last >= newest.last or position >= newest.last
    assert found == matching(there, chosen, above=position)
    assert all(gap.before > position for gap in told)
    assert [gap.before for gap in told] == sorted(gap.before for gap in told)
    begin = max(position, archive.catalogue.floor)
    expected = [cursor for cursor in missing if begin < cursor <= newest.last]
    damage = [gap for gap in told if gap not in made.gaps]
    for cursor in expected:
        assert any(gap.after < cursor < gap.before for gap in damage), "missing in silence"
    for gap in damage:
        assert any(gap.after < cursor < gap.before for cursor in expected), "nothing is missing"
        inside = [each for each in there if gap.after < cursor_of(each) < gap.before]
        assert not inside, "what is there is no part of a gap"
    readable = {cursor_of(each) for each in there}
    assert [gap for gap in told if gap in made.gaps and gap.before in readable] == [
        gap for gap in made.gaps if gap.before > position and gap.before in readable
    ]


def _spoil(path: Path, fate: str, frame: Frame) -> list[tuple[int, int]]:
    """Do to an object what happened to it; return the cursors that cannot be read any more."""
    data = bytearray(path.read_bytes())
    if fate == "whole":
        return []
    if fate == "gone":
        path.unlink()
        return [(0, LIMIT)]
    if fate == "end":
        path.write_bytes(data[:-9])
        return [(0, LIMIT)]
    at = frame.offset + frame.size // 2 if fate == "frame" else len(data) - 40
    data[at] ^= 0x20
    path.write_bytes(data)
    return [(frame.first, frame.last)] if fate == "frame" else [(0, LIMIT)]


def _put(archive: Archive, name: Name, place: str) -> None:
    """Keep an object where it is to be."""
    if place != "stored":
        file = archive.keep(name)
        if place == "torn file":
            file.write_bytes(file.read_bytes()[:-50])
            archive.catalogue.add_local(name, archive.path(name).stat().st_size, file)
    if place == "local":
        archive.path(name).unlink()
