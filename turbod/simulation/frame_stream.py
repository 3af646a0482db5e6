"""A stream on which ready-made WebSocket frames and those of trio-websocket take turns."""

from collections.abc import Callable

import trio

_SHORT = 126
_MEDIUM = 1 << 16


class FrameStream(trio.abc.Stream):
    """Whole writes, one at a time; while `muted()` they vanish."""

    def __init__(self, stream: trio.abc.Stream, *, muted: Callable[[], bool]) -> None:
        self._stream = stream
        self._muted = muted
        self._lock = trio.Lock()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write everything, after whoever is writing now."""
        async with self._lock:
            if not self._muted():
                await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream below may take something."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read from the stream below."""
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()


def frame(message: bytes) -> bytes:
    """Return an unmasked text frame, final and unfragmented (RFC 6455, 5.2)."""
    length = len(message)
    if length < _SHORT:
        return b"\x81%c%b" % (length, message)
    if length < _MEDIUM:
        return b"\x81\x7e%b%b" % (length.to_bytes(2, "big"), message)
    return b"\x81\x7f%b%b" % (length.to_bytes(8, "big"), message)
