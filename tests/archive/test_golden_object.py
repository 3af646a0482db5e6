"""The format does not change by accident: an object that was made once, and what it must mean.

`golden/` has the object, its lines, and the text of its index. It was sealed by turbod 0.1.0 with
frames of 2,000 bytes. Where the format changes on purpose, make another beside it: this one must
be read for ever.
"""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import zstandard

from tests.archive.samples_archive import DIDS, HOUR, T0
from turbod.archive.format.did_filter import build
from turbod.archive.format.hour_object import ending, index_span, read_frame, read_index
from turbod.archive.format.index import collection_of
from turbod.archive.format.names import parse_file
from turbod.archive.sealing import check
from turbod.record import Head, head_of_line

FOLDER = Path(__file__).parent / "golden"
OBJECT = FOLDER / "1795168801500000-1795172051500000.jsonl.zst"
LINES = FOLDER / "2026-11-20T10.jsonl"
INDEX = FOLDER / "index.json"
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "archive.md"

NAME = parse_file(OBJECT.name)
assert NAME is not None
DATA = OBJECT.read_bytes()


def test_it_is_read_as_it_was_meant() -> None:
    assert NAME is not None
    index = check(OBJECT, NAME)
    assert index.hour == "2026-11-20T10"
    assert (index.first, index.last, index.previous) == (*_edges(), T0 - HOUR + 5)
    assert (index.instance, index.turbod) == ("6f1c2b0e9a5d4c77", "0.1.0")
    assert [gap.message for gap in index.gaps] == [
        "the upstream no longer had events",
        "2026-11-20T10.jsonl was damaged",
        "2026-11-20T10.jsonl was damaged",
    ]
    assert index.gaps[-1].before == T0 + HOUR
    frames = [read_frame(DATA[frame.offset : frame.end], frame) for frame in index.frames]
    assert b"".join(frames) == LINES.read_bytes()


def test_the_index_is_written_as_it_was_byte_for_byte() -> None:
    """From what was read, and the seek table behind it."""
    assert NAME is not None
    offset, size = index_span(DATA, size=len(DATA))
    assert DATA[offset + 8 : offset + size] == INDEX.read_bytes()
    assert ending(read_index(DATA[offset : offset + size], NAME)) == DATA[offset:]


def test_what_it_tells_of_each_frame_is_told_today() -> None:
    """The filter's bits to the last one, and the collections."""
    assert NAME is not None
    heads = _heads()
    for frame in check(OBJECT, NAME).frames:
        held, heads = heads[: frame.records], heads[frame.records :]
        assert frame.collections == sorted(set(map(collection_of, held)))
        assert frame.dids == build({did for head in held for did in (head.did, *head.about)})
        parameters = zstandard.get_frame_parameters(DATA[frame.offset : frame.end])
        assert (parameters.has_checksum, parameters.dict_id) == (True, 0)
        assert parameters.content_size == frame.raw_bytes
    assert not heads


def test_the_reader_in_the_documentation_reads_it() -> None:
    """It knows nothing of turbod's code."""
    reader = _documented_reader()
    heads = _heads()
    read = [record["cursor"] for record in reader.records(DATA)]
    assert read == [head.cursor for head in heads]
    assert [record["cursor"] for record in reader.records(DATA, after=read[5])] == read[6:]
    for did in DIDS:
        wanted = [head.cursor for head in heads if did in (head.did, *head.about)]
        assert [record["cursor"] for record in reader.records(DATA, did=did)] == wanted
    assert list(reader.records(DATA, did="did:plc:nobody")) == []
    frames = reader.read_index(DATA)["frames"]
    assert not any(reader.may_hold(frame["dids"], "did:web:nobody.example") for frame in frames)


def _documented_reader() -> SimpleNamespace:
    code = re.search(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    return SimpleNamespace(**{name: names[name] for name in ("records", "read_index", "may_hold")})


def _heads() -> list[Head]:
    return list(map(head_of_line, LINES.read_bytes().splitlines()))


def _edges() -> tuple[int, int]:
    heads = _heads()
    return heads[0].cursor, heads[-1].cursor
