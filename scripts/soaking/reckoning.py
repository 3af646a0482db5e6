"""Disk and archive, read plainly: every record once, and what each reader got."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from soaking.readers import Expectation, Reader
from tests.acceptance.archive_places import Place

HOUR_US = 3_600_000_000


class _Line(msgspec.Struct, frozen=True):
    cursor: int
    message: dict[str, Any]


_decode = msgspec.json.Decoder(_Line).decode


def reckon(data: Path, place: Place, readers: Sequence[Reader]) -> tuple[int, list[str]]:
    """Return how many records there are, and what is wrong, in words."""
    expectations = [Expectation(reader) for reader in readers]
    last = count = 0
    words = []
    for line in _lines(data, place):
        found = _decode(line)
        if found.cursor <= last:
            words.append(f"cursor {found.cursor} after {last}")
        last = found.cursor
        count += 1
        for expectation in expectations:
            expectation.add(line, found.cursor, found.message)
    words += [complaint for each in expectations if (complaint := each.complaint())]
    return count, words


def _lines(data: Path, place: Place) -> Iterator[bytes]:
    """Yield every line: of the archive's objects, then of hours that it has not."""
    objects = [key for key in place.listing() if key.endswith(".jsonl.zst")]
    hours = [int(key.rpartition("/")[2][:16]) // HOUR_US for key in objects]
    assert len(set(hours)) == len(hours), "one object an hour"
    for key in objects:
        yield from _decompressed(place.read(key))
    for path in sorted(data.glob("live/*.jsonl")):
        if not path.name.endswith(".gaps.jsonl"):
            lines = path.read_bytes().split(b"\n")[:-1]
            if lines and _decode(lines[0]).cursor // HOUR_US not in hours:
                yield from lines


def _decompressed(data: bytes) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    rest = b""
    while block := reader.read(1 << 20):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    assert not rest, "an object ends with a line's end"
