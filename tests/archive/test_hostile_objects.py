"""Objects whose checksums are right and whose content is not: a gap, never a fault of ours."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog.testing
import trio

from tests.archive.samples_archive import (
    DIDS,
    HOUR,
    POST,
    T0,
    Archive,
    cursor_of,
    line,
    plain_lines,
    read_all,
)
from turbod.archive.bulk.parts import Asked
from turbod.archive.bulk.selected import Selecting
from turbod.archive.format.did_filter import DidFilter, build
from turbod.archive.format.hour_object import Damaged, compressor, ending, index_span
from turbod.archive.format.hour_object import read_index as read
from turbod.archive.format.index import FORMAT, Frame, Index
from turbod.archive.format.names import Name
from turbod.cursor import hour_name
from turbod.eventlog.hour_file import LINE_BYTES
from turbod.filter import EVERYTHING, Filter

BEFORE, AFTER = plain_lines(0, 20), plain_lines(2, 20)
FORGED = T0 + HOUR
POSTS = Filter(collections=frozenset({POST}), kinds=frozenset({"commit"}))


def forge(
    frames: Sequence[tuple[bytes, dict[str, Any]]], *, span: tuple[int, int], **lies: Any
) -> tuple[Name, bytes]:
    """Return an object of these frames, whatever is said of them, all checksums right."""
    data, described, offset = b"", [], 0
    for lines, told in frames:
        compressed = compressor().compress(lines)
        truth: dict[str, Any] = {
            "offset": offset,
            "size": len(compressed),
            "sha256": sha256(compressed).hexdigest(),
            "raw_bytes": len(lines),
            "records": lines.count(b"\n"),
            "first": span[0],
            "last": span[1],
            "collections": [POST],
            "dids": build(DIDS),
        }
        described.append(Frame(**truth | told))
        data, offset = data + compressed, offset + len(compressed)
    index: dict[str, Any] = {
        "format": FORMAT,
        "instance": "test",
        "hour": hour_name(span[0]),
        "first": span[0],
        "last": span[1],
        "previous": cursor_of(BEFORE[-1]),
        "records": sum(frame.records for frame in described),
        "raw_bytes": sum(frame.raw_bytes for frame in described),
        "sha256": "0" * 64,
        "collections": {POST: sum(frame.records for frame in described)},
        "frames": described,
        "gaps": [],
        "upstreams": [],
        "turbod": "0",
    }
    return Name(*span), data + ending(Index(**index | lies))


async def archive_with(root: Path, name: Name, data: bytes) -> Archive:
    """Put an object between two honest hours."""
    archive = Archive(root)
    archive.add(BEFORE, previous=0)
    archive.add(AFTER, previous=name.last)
    path = archive.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    await archive.relist()
    return archive


def record_lines(count: int, odd: bytes | None = None, *, at: int = 5) -> bytes:
    """Return lines, one of them replaced."""
    lines = [line(FORGED + number) for number in range(count)]
    if odd is not None:
        lines[at] = odd
    return b"".join(each + b"\n" for each in lines)


deep = b'{"cursor":%d,"x":%b}' % (FORGED + 5, b"[" * 100_000 + b"]" * 100_000)
ODD_LINES = {
    "half a line": line(FORGED + 5)[:-9],
    "no JSON": b"x" * 300,
    "two values": line(FORGED + 5) + b"," + line(FORGED + 5),
    "nothing": b"",
    "a number": b"7",
    "a list": b"[" + line(FORGED + 5) + b"]",
    "no cursor": b'{"at_uri":"at://did:web:a"}',
    "a cursor beyond all": line(FORGED + 5).replace(b"%d" % (FORGED + 5), b"9" * 400, 1),
    "a cursor that was there": line(FORGED + 2),
    "a cursor that is yet to come": line(FORGED + 15),
    "deeper than anybody reads": deep,
    "no UTF-8": line(FORGED + 5).replace(b'"rev":"3l"', b'"rev":"\xff"'),
    "longer than any line": line(FORGED + 5, padding=LINE_BYTES),
}


@pytest.mark.parametrize("chosen", [EVERYTHING, POSTS, Filter(about=frozenset(DIDS))])
@pytest.mark.parametrize("odd", ODD_LINES)
async def test_a_frame_with_a_line_that_is_none_is_a_gap_for_everybody(
    tmp_path: Path, odd: str, chosen: Filter
) -> None:
    """Sent on as it lies it would be told to nobody as damage, and closed on by every client."""
    name, data = forge([(record_lines(20, ODD_LINES[odd]), {})], span=(FORGED, FORGED + 19))
    archive = await archive_with(tmp_path, name, data)
    async with archive.opened() as history:
        with structlog.testing.capture_logs() as logged:
            lines, gaps, _ = await read_all(history, 0, chosen)
    assert not [each for each in lines if FORGED <= cursor_of(each) < FORGED + HOUR]
    assert [(gap.after, gap.before) for gap in gaps] == [
        (cursor_of(BEFORE[-1]), cursor_of(AFTER[0]))
    ]
    assert [each["event"] for each in logged] == ["archive_damaged"]


async def test_a_few_bytes_that_become_millions_of_lines_take_no_memory(tmp_path: Path) -> None:
    """Six kilobytes of line breaks would be 2.5 GB of places where lines end."""
    head, tail = (line(FORGED + number) + b"\n" for number in (0, 10**8))
    lines = head + b"\n" * (48 * 1024 * 1024) + tail
    for told in ({}, {"records": 20}):
        name, data = forge([(lines, told)], span=(FORGED, FORGED + 10**8))
        assert len(data) < 20_000
        archive = await archive_with(tmp_path / str(len(told)), name, data)
        async with archive.opened() as history:
            started = time.process_time()
            _, gaps, _ = await read_all(history, 0)
            assert time.process_time() - started < 2
        assert [gap.before for gap in gaps] == [cursor_of(AFTER[0])]


@asynccontextmanager
async def noting_holds() -> AsyncIterator[list[float]]:
    """Note for how long the event loop was held between any two turns of another task's."""
    held = [0.0]

    async def note() -> None:
        while True:
            since = time.thread_time()  # of this thread alone, and not while others have the core
            await trio.lowlevel.checkpoint()
            held.append(time.thread_time() - since)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note)
        yield held
        nursery.cancel_scope.cancel()


async def test_the_index_of_a_busy_hour_does_not_hold_the_loop(tmp_path: Path) -> None:
    """12 MB, as 900 frames with 8,000 DIDs each have, took 50 ms."""
    lines = record_lines(20)
    many = DidFilter(7, b"\xa5" * 10_500)
    frames = [
        (lines, {"dids": many, "first": FORGED + 100 * n, "last": FORGED + 100 * n + 19})
        for n in range(900)
    ]
    name, data = forge(frames, span=(FORGED, FORGED + 89_919))
    archive = await archive_with(tmp_path, name, data)
    async with archive.opened() as history, noting_holds() as held:
        held_object = archive.catalogue.after(FORGED)
        assert held_object is not None
        assert len((await history.index(held_object)).frames) == 900
    assert max(held) < 0.01


async def test_ten_thousand_absent_dids_do_not_hold_the_loop(tmp_path: Path) -> None:
    """A client that knows what is there can choose DIDs of which no filter has any by chance."""
    nobody = DidFilter(7, b"\0" * 64)
    frames = [
        (
            record_lines(20),
            {"dids": nobody, "first": FORGED + 100 * n, "last": FORGED + 100 * n + 19},
        )
        for n in range(60)
    ]
    name, data = forge(frames, span=(FORGED, FORGED + 5919))
    archive = await archive_with(tmp_path, name, data)
    chosen = Filter(dids=frozenset(f"did:web:x{n}.example.com" for n in range(3000)))
    async with archive.opened() as history, noting_holds() as held:
        assert (await read_all(history, cursor_of(BEFORE[-1]), chosen))[:2] == ([], [])
    assert max(held) < 0.02, "60 times 1 ms, and 3,000 DIDs are hashed once"


LIES: dict[str, dict[str, Any]] = {
    "gaps at numbers that are no cursors": {
        "gaps": [{"after": -(10**30), "before": FORGED + 3, "message": ""}]
    },
    "a gap behind its hour": {
        "gaps": [{"after": FORGED, "before": FORGED + HOUR + 1, "message": ""}]
    },
    "a gap before its first record": {
        "gaps": [{"after": FORGED - 9, "before": FORGED - 1, "message": ""}]
    },
    "fewer than no records": {"collections": {POST: 20 + 10**30, "b": -(10**30)}},
}


@pytest.mark.parametrize("lie", LIES)
def test_numbers_that_nobody_could_be_told_are_damage(lie: str) -> None:
    name, data = forge([(record_lines(20), {})], span=(FORGED, FORGED + 19))
    offset, size = index_span(data, size=len(data))
    honest = read(data[offset : offset + size], name)
    tree = msgspec.to_builtins(honest) | LIES[lie]
    text = json.dumps(tree).encode()[:-1]  # which writes numbers of any size
    text += b',"index_sha256":"%b"}' % sha256(text).hexdigest().encode()
    with pytest.raises(Damaged, match="contradicts itself"):
        read(data[offset : offset + 4] + len(text).to_bytes(4, "little") + text, name)


def test_a_gap_that_ends_with_its_hour_is_told() -> None:
    gap = {"after": FORGED + 19, "before": FORGED + HOUR, "message": "cut short"}
    gaps = [msgspec.convert(gap, type=Index.__annotations__["gaps"].__args__[0])]
    name, data = forge([(record_lines(20), {})], span=(FORGED, FORGED + 19), gaps=gaps)
    offset, size = index_span(data, size=len(data))
    assert read(data[offset : offset + size], name).gaps == gaps


def test_what_is_cut_out_of_a_frame_without_cursors_is_damage() -> None:
    """For the commands and the client: a range that ends inside such a frame."""
    name, data = forge([(record_lines(20, b"{}" * 40, at=9), {})], span=(FORGED, FORGED + 19))
    offset, size = index_span(data, size=len(data))
    frame = read(data[offset : offset + size], name).frames[0]
    selecting = Selecting(Asked(FORGED + 8, FORGED + 12), EVERYTHING)
    with pytest.raises(Damaged):
        selecting.lines(data[: frame.size], frame)
