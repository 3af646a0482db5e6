"""WebSocket frames as a server sends them (RFC 6455), and how records share them. Pure."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
import zstandard

TEXT: Final = 0x1
BINARY: Final = 0x2
PING: Final = 0x9
MAX_MESSAGE_BYTES: Final = 512 * 1024  # one record alone may be longer

_FIN = 0x80
_SHORT = 126  # lengths below stand in the second byte itself
_MEDIUM = 1 << 16
_ZSTD_LEVEL = 3


class Run(msgspec.Struct, frozen=True, gc=False):
    """The lines of one message and the cursor of the last of them."""

    lines: list[bytes]
    last: int


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return one whole unmasked frame."""
    return header(len(payload), opcode) + payload


def header(size: int, opcode: int) -> bytes:
    """Return the header of an unmasked frame that is a whole message."""
    first = _FIN | opcode
    if size < _SHORT:
        return bytes((first, size))
    if size < _MEDIUM:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def compressor() -> Callable[[bytes], bytes]:
    """Return what makes a text one zstd frame with its size in the header; for one thread."""
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True).compress


compressed: Final = compressor()


def array(lines: Iterable[bytes]) -> bytes:
    """Join records into the JSON array that is one message."""
    return b"[%b]" % b",".join(lines)


def runs(
    records: Iterable[tuple[int, bytes]], *, batch: int, max_bytes: int = MAX_MESSAGE_BYTES
) -> Iterator[Run]:
    """Cut (cursor, line) pairs into messages of at most `batch` lines and `max_bytes` as an array.

    A line that alone is longer makes a message of its own.
    """
    lines: list[bytes] = []
    size = last = 0
    for cursor, line in records:
        # An array of n lines has n + 1 bytes of brackets and commas.
        if lines and (len(lines) == batch or size + len(line) + len(lines) + 2 > max_bytes):
            yield Run(lines, last)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
        last = cursor
    if lines:
        yield Run(lines, last)
