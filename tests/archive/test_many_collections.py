"""Collections without number: an hour is sealed all the same, and nothing of it is overlooked."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.archive.samples_archive import DIDS, T0, Archive, line, plain_lines, read_all
from turbod.archive.bulk.parts import Asked
from turbod.archive.bulk.selected import Selecting
from turbod.archive.format import index as indexes
from turbod.archive.format import object_writer
from turbod.archive.format.hour_object import Damaged, index_span, read_index
from turbod.archive.format.index import MAX_NAMED, OTHERS, Index
from turbod.archive.format.names import Name
from turbod.archive.sealing import check
from turbod.filter import EVERYTHING, Filter
from turbod.record import head_of_line

BIG = 10**9  # of a frame: all is in one


def nsid(number: int) -> str:
    return f"com.example.thing{number}"


def lines_of(collections: int, *, again: int = 0) -> list[bytes]:
    """Return a line of each collection; then the first `again` of them twice more; an identity."""
    kinds = [nsid(number) for number in range(collections)]
    kinds += [nsid(number % again) for number in range(2 * again)] + ["identity"]
    return [line(T0 + place, did=DIDS[place % 9], kind=kind) for place, kind in enumerate(kinds)]


def sealed(
    archive: Archive, lines: Sequence[bytes], *, frame_bytes: int = BIG
) -> tuple[Name, Index]:
    """Seal an hour, as whole as `turbod archive verify` wants it."""
    name = archive.add(lines, previous=0, frame_bytes=frame_bytes)
    return name, check(archive.path(name), name)


async def assert_all_is_found(archive: Archive, lines: Sequence[bytes]) -> None:
    """By collection, by prefix, by kind; over the stream and in bulk."""
    await archive.relist()
    for chosen in (
        EVERYTHING,
        Filter(collections=frozenset({nsid(0)})),
        Filter(collections=frozenset({nsid(MAX_NAMED + 50)})),
        Filter(prefixes=("com.example.",)),
        Filter(kinds=frozenset({"identity"})),
        Filter(kinds=frozenset({"commit"})),
        Filter(
            dids=frozenset({DIDS[3], DIDS[5]}),
            collections=frozenset({nsid(3), nsid(MAX_NAMED + 54)}),
        ),
    ):
        wanted = [each for each in lines if chosen.matches(head_of_line(each), len(each))]
        assert wanted
        async with archive.opened() as history:
            found = (await read_all(history, 0, chosen))[0]
        assert found == wanted
        assert _in_bulk(archive, chosen) == b"".join(each + b"\n" for each in wanted)


def _in_bulk(archive: Archive, chosen: Filter) -> bytes:
    selecting, found = Selecting(Asked(), chosen), b""
    for held in archive.catalogue:
        data = archive.path(held.name).read_bytes()
        for frame in check(archive.path(held.name), held.name).frames:
            if selecting.wants(frame):
                found += selecting.lines(data[frame.offset : frame.end], frame)[0]
    return found


async def test_the_most_frequent_are_named_and_all_are_found(tmp_path: Path) -> None:
    archive, lines = Archive(tmp_path), lines_of(MAX_NAMED + 100, again=MAX_NAMED - 100)
    _, index = sealed(archive, lines)
    assert index.format == 2
    assert len(index.collections) == len(index.frames[0].collections) == MAX_NAMED + 1
    assert set(index.collections) == set(index.frames[0].collections)
    assert all(index.collections[nsid(number)] == 3 for number in range(MAX_NAMED - 100))
    assert index.collections[OTHERS] == 101
    await assert_all_is_found(archive, lines)


async def test_many_in_the_hour_may_be_few_in_each_frame(tmp_path: Path) -> None:
    archive, lines = Archive(tmp_path), lines_of(MAX_NAMED + 100)
    _, index = sealed(archive, lines, frame_bytes=20_000)
    assert len(index.frames) > 5
    assert not any(OTHERS in frame.collections for frame in index.frames)
    assert (index.format, index.collections[OTHERS]) == (2, 101)
    await assert_all_is_found(archive, lines)


def test_few_are_all_named_for_readers_of_format_1(tmp_path: Path) -> None:
    _, index = sealed(Archive(tmp_path), lines_of(MAX_NAMED - 1))
    assert index.format == 1
    assert OTHERS not in {*index.collections, *index.frames[0].collections}
    assert len(index.collections) == MAX_NAMED


async def test_an_index_that_nobody_would_read_tells_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those frames of which most is told, so that there is always an object that is read."""
    archive, lines = Archive(tmp_path), lines_of(MAX_NAMED + 100)
    monkeypatch.setattr(object_writer, "MAX_TOLD_BYTES", 10_000)
    _, index = sealed(archive, lines, frame_bytes=20_000)
    vague = [frame for frame in index.frames if frame.collections == [OTHERS]]
    assert 0 < len(vague) < len(index.frames)
    assert all(frame.dids.bits == b"\xff" for frame in vague)
    await assert_all_is_found(archive, lines)


async def test_an_object_that_names_more_than_is_read_at_one_go_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions sealed them: all are named, and taken for OTHERS."""
    archive, lines = Archive(tmp_path), lines_of(6000)
    with monkeypatch.context() as earlier:
        earlier.setattr(indexes, "MAX_NAMED", 10**6)
        _, index = sealed(archive, lines)
    assert (index.format, index.collections) == (1, {OTHERS: 6001})
    await assert_all_is_found(archive, lines)


def forged(folder: Path, change: Callable[[dict[str, Any]], None]) -> tuple[bytes, Name]:
    """Return an index that was changed, its checksum right, and its object's name."""
    archive = Archive(folder)
    name = archive.add(plain_lines(0, 20), previous=0, frame_bytes=BIG)
    data = archive.path(name).read_bytes()
    offset, size = index_span(data, size=len(data))
    tree = msgspec.to_builtins(read_index(data[offset : offset + size], name))
    change(tree)
    text = msgspec.json.encode(tree)[:-1]
    text += b',"index_sha256":"%b"}' % sha256(text).hexdigest().encode()
    return data[offset : offset + 4] + len(text).to_bytes(4, "little") + text, name


@contextmanager
def quickly() -> Iterator[None]:
    """Hold that nothing is decoded at one go: a million collections took 0.7 s."""
    began = time.thread_time()
    yield
    assert time.thread_time() - began < 0.15, "some 20 ms of them for the SHA-256"


@pytest.mark.parametrize("what", ["frames", "gaps", "upstreams"])
def test_a_forged_index_of_millions_is_refused_at_once(tmp_path: Path, what: str) -> None:
    data, name = forged(tmp_path, lambda tree: tree.update({what: [0] * 2_000_000}))
    with quickly(), pytest.raises(Damaged, match=f"too many {what}"):
        read_index(data, name)


def test_a_million_collections_of_an_hour_are_not_decoded(tmp_path: Path) -> None:
    many = {f"a.b{number}": 1 for number in range(1_000_000)}
    data, name = forged(tmp_path, lambda tree: tree.update(collections=many))
    with quickly():
        assert read_index(data, name).collections == {OTHERS: 20}


def test_a_million_collections_of_a_frame_are_not_decoded(tmp_path: Path) -> None:
    many = [f"a.b{number}" for number in range(900_000)]
    data, name = forged(tmp_path, lambda tree: tree["frames"][0].update(collections=many))
    with quickly():
        assert read_index(data, name).frames[0].collections == [OTHERS]
