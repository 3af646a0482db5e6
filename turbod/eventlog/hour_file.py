"""An hour's file: its name, which of its bytes are whole, and the file of its gaps. Pure."""

import re
from typing import Final

import msgspec

from turbod.cursor import HOUR_US, hour_name, hour_start
from turbod.eventlog.chunk import Gap
from turbod.eventlog.line import sound_cursor
from turbod.record import MAX_RECORD_BYTES

LINE_BYTES: Final = 2 * MAX_RECORD_BYTES  # what is longer without a break is no line of ours
MAX_GAP_MESSAGE: Final = 500  # characters

_NAME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2})(\.gaps)?\.jsonl", re.ASCII)
_decode_gap = msgspec.json.Decoder(Gap).decode
_encode = msgspec.json.Encoder().encode


def hour_of(cursor: int) -> int:
    """Return the first microsecond of the hour that a cursor belongs to."""
    return cursor - cursor % HOUR_US


def records_name(hour: int) -> str:
    """Return the name of the file that holds an hour's records."""
    return f"{hour_name(hour)}.jsonl"


def gaps_name(hour: int) -> str:
    """Return the name of the file that holds the gaps before records of an hour."""
    return f"{hour_name(hour)}.gaps.jsonl"


def parse_name(name: str) -> tuple[int, bool] | None:
    """Return a file's hour and whether it holds gaps; None where the name is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return hour_start(match[1]), match[2] is not None
    except ValueError:
        return None


def sound_bytes(block: bytes, *, hour: int, last: int) -> tuple[int, int]:
    """Return how many bytes of `block` are sound lines above `last`, and their last cursor.

    Sound is a line with its break that is whole JSON, whose cursor lies in the hour and above the
    line before. The block begins where a line does.
    """
    start, last = 0, max(last, hour - 1)
    while (end := block.find(b"\n", start)) >= 0:
        cursor = sound_cursor(block[start:end])
        if not last < cursor < hour + HOUR_US:
            break
        start, last = end + 1, cursor
    return start, last


def gap_line(gap: Gap) -> bytes:
    """Return a gap as it lies on disk, with its break."""
    return _encode(gap) + b"\n"


def read_gaps(data: bytes) -> list[Gap]:
    """Read a file of gaps; what is no gap is passed over, as a torn line is after a crash."""
    gaps = []
    for line in data.splitlines():
        try:
            gaps.append(_decode_gap(line))
        except ValueError:
            continue
    return gaps
