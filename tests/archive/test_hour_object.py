"""An object's index, seek table and frames: what is read is true, and nothing else is read."""

import json
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.archive.samples_archive import DIDS, HOUR, OTHER, POST, T0, line, plain_lines, seal_lines
from turbod.archive.format import loading as reading
from turbod.archive.format.did_filter import build
from turbod.archive.format.hour_object import (
    Damaged,
    count_lines,
    ending,
    index_span,
    read_frame,
    read_index,
)
from turbod.archive.format.index import Frame, Index
from turbod.archive.format.loading import load_index
from turbod.archive.format.names import Name
from turbod.archive.format.object_writer import ObjectWriter
from turbod.archive.sealing import check
from turbod.archive.stores.store import Listed, NotThere
from turbod.eventlog.chunk import Gap
from turbod.record import head_of_line

GAP = Gap(T0 + 5, T0 + HOUR // 40, "the upstream had a hole")


class Made:
    """A small object: its bytes, its name, the index as it was meant."""

    def __init__(self, folder: Path) -> None:
        lines = plain_lines(0, 40)
        self.lines = b"".join(line + b"\n" for line in lines)
        self.name = seal_lines(folder, lines, previous=T0 - 7, gaps=[GAP], frame_bytes=2000)
        self.path = folder / self.name.file
        self.data = self.path.read_bytes()
        self.index = check(self.path, self.name)
        self.offset, size = index_span(self.data, size=len(self.data))
        self.skippable = self.data[self.offset : self.offset + size]

    def with_index(self, index: Index, *, name: str = "other") -> Path:
        """Write the same frames with another index, whole in itself."""
        path = self.path.with_name(name)
        path.write_bytes(self.data[: self.offset] + ending(index))
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("object"))


class Bytes:
    """A source that holds one object, and counts how often it is read."""

    url = "memory"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    async def list(self, *, after: str = "") -> list[Listed]:
        raise NotImplementedError(after)

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        if key != "there":
            raise NotThere(key)
        self.reads.append((offset, size))
        assert 0 <= offset <= offset + size <= len(self.data)
        return self.data[offset : offset + size]


def index_frame(tree: dict[str, Any]) -> bytes:
    """Return the skippable frame of an index that is written by somebody else."""
    text = json.dumps(tree).encode()[:-1]
    text += b',"index_sha256":"%b"}' % sha256(text).hexdigest().encode()
    return 0x184D2A5D.to_bytes(4, "little") + len(text).to_bytes(4, "little") + text


def tree_of(index: Index) -> dict[str, Any]:
    tree = msgspec.to_builtins(index)
    assert isinstance(tree, dict)
    return tree


def test_the_index_names_every_frame_and_the_frames_are_the_lines(made: Made) -> None:
    index = made.index
    assert len(index.frames) > 3
    read = [read_frame(made.data[frame.offset : frame.end], frame) for frame in index.frames]
    assert b"".join(read) == made.lines
    assert (index.first, index.last, index.previous) == (made.name.first, made.name.last, T0 - 7)
    assert (index.records, index.raw_bytes) == (40, len(made.lines))
    assert index.sha256 == sha256(made.lines).hexdigest()
    assert index.gaps == [GAP]
    assert index.hour == "2026-11-20T10"
    assert index.collections == {
        "#account": 6,
        "#identity": 6,
        "app.bsky.feed.like": 7,
        POST: 7,
        "app.bsky.graph.follow": 7,
        OTHER: 7,
    }


async def test_one_read_of_the_end_gives_the_index(made: Made) -> None:
    source = Bytes(made.data)
    index = await load_index(source, "there", len(made.data), made.name)
    assert index == made.index
    assert len(source.reads) == 1


async def test_two_reads_give_an_index_that_is_longer_than_the_first(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TAIL_BYTES", 200)
    source = Bytes(made.data)
    assert await load_index(source, "there", len(made.data), made.name) == made.index
    assert source.reads == [(len(made.data) - 200, 200), (made.offset, len(made.skippable))]


async def test_of_indexes_that_are_longer_than_that_one_is_read_at_a_time(
    made: Made, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Among those that share a turn: each may have 16 MiB, which nobody counts beforehand."""
    monkeypatch.setattr(reading, "TAIL_BYTES", 200)
    now = most = 0

    class Slow(Bytes):
        async def read(self, key: str, *, offset: int, size: int) -> bytes:
            nonlocal now, most
            if offset == made.offset:
                now += 1
                most = max(most, now)
                await trio.sleep(1)
                now -= 1
            return await super().read(key, offset=offset, size=size)

    turn, source = trio.Lock(), Slow(made.data)
    load = partial(load_index, source, "there", len(made.data), made.name, turn=turn)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(load)
    assert (most, len(source.reads), autojump_clock.rate) == (1, 6, 0)


async def test_what_the_source_says_of_a_missing_object_comes_through(made: Made) -> None:
    with pytest.raises(NotThere):
        await load_index(Bytes(made.data), "gone", len(made.data), made.name)


async def test_a_truncated_object_is_damaged_wherever_it_ends(made: Made) -> None:
    for size in range(0, len(made.data), 7):
        with pytest.raises(Damaged):
            await load_index(Bytes(made.data[:size]), "there", size, made.name)


async def test_an_object_under_another_name_is_damaged(made: Made) -> None:
    for name in (Name(T0, T0 + 1), Name(made.name.first, made.name.last + 1)):
        with pytest.raises(Damaged, match="the index is that of"):
            await load_index(Bytes(made.data), "there", len(made.data), name)


def test_keys_that_a_later_version_added_are_passed_over(made: Made) -> None:
    tree = tree_of(made.index) | {"later": [1]}
    for part in (*tree["frames"], *tree["gaps"], tree["frames"][0]["dids"]):
        part["later"] = {"a": None}
    assert read_index(index_frame(tree), made.name) == made.index


def test_a_later_format_is_refused_and_says_what_to_do(made: Made) -> None:
    tree = {"format": 3, "frames": "of another kind"}
    with pytest.raises(Damaged, match="its format is 3; this turbod reads up to 2: update turbod"):
        read_index(index_frame(tree), made.name)


LIES: dict[str, dict[str, Any]] = {
    "no frames": {"frames": []},
    "another hour": {"hour": "2026-11-20T11"},
    "nothing before": {"previous": T0},
    "a negative number before": {"previous": -1},
    "one record more": {"records": 41},
    "one byte more": {"raw_bytes": 1},
    "one collection less": {"collections": {POST: 7}},
    "a gap that ends before it begins": {"gaps": [{"after": 9, "before": 8, "message": ""}]},
    "gaps out of order": {
        "gaps": [{"after": 1, "before": before, "message": ""} for before in (T0 + 9, T0 + 8)]
    },
    "a word for a number": {"first": "2026"},
    "no list of gaps": {"gaps": None},
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_contradicts_itself_is_damaged(made: Made, lie: str) -> None:
    with pytest.raises(Damaged):
        read_index(index_frame(tree_of(made.index) | LIES[lie]), made.name)


FRAME_LIES: dict[str, dict[str, Any]] = {
    "another place": {"offset": 1},
    "no size": {"size": 0},
    "no lines": {"raw_bytes": 0},
    "more than may be taken into memory": {"raw_bytes": 64 * 1024 * 1024 + 1},
    "no records": {"records": 0},
    "more records than cursors": {"records": HOUR},
    "ends behind the next": {"last": T0 + HOUR - 1},
    "ends before it begins": {"last": T0 - 1},
    "a filter without bits": {"dids": {"hashes": 7, "bits": ""}},
}


@pytest.mark.parametrize("lie", FRAME_LIES)
def test_an_impossible_frame_is_damaged(made: Made, lie: str) -> None:
    tree = tree_of(made.index)
    tree["frames"][1] |= FRAME_LIES[lie]
    with pytest.raises(Damaged):
        read_index(index_frame(tree), made.name)


def test_a_checked_object_has_no_lie_in_its_index(made: Made) -> None:
    """What is whole in itself but not true of the lines is found by reading all of them."""
    index, replace = made.index, msgspec.structs.replace
    first, *others = index.frames
    lies = [
        replace(index, sha256=sha256(b"").hexdigest()),
        replace(index, collections=dict(zip(index.collections, (7, 6, 7, 6, 7, 7), strict=True))),
        replace(index, gaps=[Gap(T0 + 5, T0 + 6, "before no record")]),
        replace(index, frames=[replace(first, collections=[POST]), *others]),
        replace(index, frames=[replace(first, dids=build(["did:web:nobody"])), *others]),
    ]
    for lie in lies:
        path = made.with_index(lie)
        with pytest.raises(Damaged):
            check(path, made.name)
    gap_at_the_end = Gap(index.last, T0 + HOUR, "behind the last record")
    honest = replace(index, gaps=[*index.gaps, gap_at_the_end])
    assert check(made.with_index(honest), made.name) == honest


def test_an_object_whose_cursors_do_not_rise_is_damaged(tmp_path: Path) -> None:
    lines = [line(T0 + n) for n in (0, 20, 10, 10, 30)]
    path = tmp_path / "object"
    with path.open("w+b") as file:
        writer = ObjectWriter(file, frame_bytes=10_000, pause=lambda: None)
        for each in lines:
            writer.add(each + b"\n", head_of_line(each))
        writer.close_frame()
        name = writer.finish(previous=0, instance="", upstreams=[], gaps=[])
    with pytest.raises(Damaged, match="cursors do not rise"):
        check(path, name)


def test_a_frame_is_compared_with_what_the_index_says_of_it(made: Made) -> None:
    frame = made.index.frames[1]
    data = made.data[frame.offset : frame.end]
    replace = msgspec.structs.replace
    wrong: list[tuple[bytes, Frame]] = [
        (data, replace(frame, raw_bytes=frame.raw_bytes + 1)),
        (data, replace(frame, records=frame.records - 1)),
        (data, replace(frame, first=frame.first + 1)),
        (data, replace(frame, last=frame.last + 1)),
        (data[:-1], frame),
        (data + b"\0", frame),
        (data + data, frame),
        (b"", frame),
    ]
    for written, said in wrong:
        with pytest.raises(Damaged):
            read_frame(written, said)
        with pytest.raises(Damaged):
            read_frame(written, replace(said, sha256=sha256(written).hexdigest()))
    assert count_lines(read_frame(data, frame), most=10**9) == frame.records


def test_one_flipped_bit_anywhere_is_found(made: Made) -> None:
    """Those too of which zstd makes nothing, some in every frame."""
    path = made.path.with_name("flipped")
    for place in range(0, len(made.data), 3):
        flipped = bytearray(made.data)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(Damaged):
            check(path, made.name)


def test_what_zstd_refuses_is_damaged_whatever_checksum_the_index_has(made: Made) -> None:
    frame = made.index.frames[1]
    for place in range(frame.size):
        flipped = bytearray(made.data[frame.offset : frame.end])
        flipped[place] ^= 0x55
        said = msgspec.structs.replace(frame, sha256=sha256(flipped).hexdigest())
        with suppress(Damaged):
            assert read_frame(bytes(flipped), said) == read_frame(
                made.data[frame.offset : frame.end], frame
            )


@given(st.binary(max_size=200), st.integers(0, 300))
def test_whatever_bytes_come_they_are_damaged_and_nothing_else(data: bytes, size: int) -> None:
    name = Name(T0, T0 + 1)
    frame = Frame(0, 1, sha256(data).hexdigest(), 10, 1, T0, T0, [], build(DIDS))
    with pytest.raises(Damaged):
        index_span(data, size=size)
    with pytest.raises(Damaged):
        read_index(data, name)
    with pytest.raises(Damaged):
        read_frame(data, frame)
