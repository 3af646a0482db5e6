"""What is told of a line without parsing it whole: its cursor, its soundness. Pure."""

import re
from typing import Final

import msgspec

from turbod.cursor import LEAST, LIMIT

HEAD_BYTES: Final = 27

_head = re.compile(rb'\{"cursor":([1-9][0-9]{15}),').match


class _Line(msgspec.Struct):
    cursor: int


_decode = msgspec.json.Decoder(_Line).decode


def cursor_of(line: bytes) -> int:
    """Return the cursor of a line, from its first bytes where it begins as ours do.

    Raises:
        ValueError: where there is none.
    """
    return head_cursor(line) or _decode(line).cursor


def head_cursor(data: bytes) -> int:
    """Return the cursor that a line's first HEAD_BYTES tell; 0 where it begins otherwise."""
    head = _head(data)
    return int(head[1]) if head else 0


def sound_cursor(line: bytes) -> int:
    """Return the cursor of a line that is whole JSON in valid UTF-8, and 0 for any other.

    2 us for a line of 3.4 KB.
    """
    try:
        line.decode()  # the decoder passes over the text of what it is not asked for
        cursor = _decode(line).cursor
    except (ValueError, RecursionError):
        return 0
    return cursor if LEAST <= cursor < LIMIT else 0
