"""An object of the archive, read as a stranger would who has only the description of the format.

Nothing of turbod is used: zstd, JSON, SHA-256 and `struct`.
"""

import json
import struct
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from typing import Any

import zstandard

from tests.acceptance.follower import concerned

BITS_PER_DID, HASHES = 10, 7
INDEX_MAGIC, TABLE_MAGIC, SEEKABLE_MAGIC = 0x184D2A5D, 0x184D2A5E, 0x8F92EAB1
FOOTER_BYTES, HEADER_BYTES = 9, 8


@dataclass(frozen=True)
class PlainObject:
    """What an object's bytes hold.

    Attributes:
        frames: the compressed bytes of each frame, by the seek table.
        parts: the lines of each frame.
        index: its JSON, decoded.
        index_text: its JSON.
    """

    frames: list[bytes]
    parts: list[bytes]
    index: dict[str, Any]
    index_text: bytes

    @property
    def lines(self) -> list[bytes]:
        """Every line without its break."""
        return b"".join(self.parts).split(b"\n")[:-1]


def take_apart(data: bytes) -> PlainObject:
    """Read an object from its end: seek table, index, frames; every byte belongs to one."""
    sizes, table_bytes = seek_table(data)
    places = [0]
    for compressed, _ in sizes:
        places.append(places[-1] + compressed)
    assert places[-1] + table_bytes == len(data), "the seek table accounts for every byte"
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    *frames, skippable = pieces
    assert sizes[-1][1] == 0, "the last entry is the index, which decompresses to nothing"
    assert struct.unpack("<II", skippable[:8]) == (INDEX_MAGIC, len(skippable) - 8)
    parts = [_decompressed(frame) for frame in frames]
    assert [len(part) for part in parts] == [raw for _, raw in sizes[:-1]]
    return PlainObject(frames, parts, json.loads(skippable[8:]), skippable[8:])


def seek_table(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """Return sizes, compressed and not, by Zstandard's seekable format, and the table's own size.

    A skippable frame of magic 0x184D2A5E: the entries, then their number in 4 bytes, a descriptor
    in one, whose highest bit says that each entry has a checksum, and 0x8F92EAB1; little-endian.
    """
    count, descriptor, magic = struct.unpack("<IBI", data[-FOOTER_BYTES:])
    assert magic == SEEKABLE_MAGIC
    assert descriptor & 0b0111_1100 == 0, "the reserved bits are 0"
    entry_bytes = 12 if descriptor & 0x80 else 8
    content = count * entry_bytes + FOOTER_BYTES
    begin = len(data) - content - HEADER_BYTES
    assert struct.unpack_from("<II", data, begin) == (TABLE_MAGIC, content)
    begin += HEADER_BYTES
    entries = [struct.unpack_from("<II", data, begin + n * entry_bytes) for n in range(count)]
    return [(compressed, raw) for compressed, raw in entries], content + HEADER_BYTES


def true_index(
    found: PlainObject, *, instance: str, previous: int, upstreams: Sequence[str], turbod: str
) -> dict[str, Any]:
    """Return what an index must say, counted anew from the lines."""
    records = [json.loads(line) for line in found.lines]
    body, _, _ = found.index_text.rpartition(b',"index_sha256":')
    return {
        "format": 1,
        "instance": instance,
        "hour": hour_of(records[0]["cursor"]),
        "first": records[0]["cursor"],
        "last": records[-1]["cursor"],
        "previous": previous,
        "records": len(records),
        "raw_bytes": sum(len(line) + 1 for line in found.lines),
        "sha256": sha256(b"".join(line + b"\n" for line in found.lines)).hexdigest(),
        "collections": Counter(map(_collection, records)),
        "frames": list(_frames(found)),
        "gaps": [],
        "upstreams": list(upstreams),
        "turbod": turbod,
        "index_sha256": sha256(body).hexdigest(),
    }


def hour_of(cursor: int) -> str:
    """Return the UTC hour of a cursor, by the calendar: `2026-11-20T08`."""
    return datetime.fromtimestamp(cursor // 1_000_000, UTC).strftime("%Y-%m-%dT%H")


def _frames(found: PlainObject) -> Iterable[dict[str, Any]]:
    offset = 0
    for data, part in zip(found.frames, found.parts, strict=True):
        assert part.endswith(b"\n"), "a frame holds whole lines"
        records = [json.loads(line) for line in part.split(b"\n")[:-1]]
        yield {
            "offset": offset,
            "size": len(data),
            "sha256": sha256(data).hexdigest(),
            "raw_bytes": len(part),
            "records": len(records),
            "first": records[0]["cursor"],
            "last": records[-1]["cursor"],
            "collections": sorted(set(map(_collection, records))),
            "dids": _filter(dids_of(records)),
        }
        offset += len(data)


def dids_of(records: Iterable[dict[str, Any]]) -> set[str]:
    """Return whom records come from or are about."""
    return {
        did
        for record in records
        for did in (record["message"]["did"], *concerned(record["message"]))
    }


def may_hold(dids: dict[str, Any], did: str) -> bool:
    """Ask the filter of a frame."""
    bits = b64decode(dids["bits"], validate=True)
    return all(bits[n // 8] & (1 << n % 8) for n in _bits(did, dids["hashes"], len(bits) * 8))


def _filter(dids: set[str]) -> dict[str, Any]:
    bits = bytearray(-(-len(dids) * BITS_PER_DID // 8))
    for did in dids:
        for number in _bits(did, HASHES, len(bits) * 8):
            bits[number // 8] |= 1 << number % 8
    return {"hashes": HASHES, "bits": b64encode(bits).decode()}


def _bits(did: str, hashes: int, count: int) -> list[int]:
    first, step = struct.unpack(">QQ", sha256(did.encode()).digest()[:16])
    return [(first + i * step) % 2**64 % count for i in range(hashes)]


def _collection(record: dict[str, Any]) -> str:
    message = record["message"]
    if message["kind"] != "commit":
        return f"#{message['kind']}"
    collection: str = message["commit"]["collection"]
    return collection


def _decompressed(frame: bytes) -> bytes:
    parameters = zstandard.get_frame_parameters(frame)
    assert parameters.has_checksum
    lines = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    assert parameters.content_size == len(lines)
    return lines
