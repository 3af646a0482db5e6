"""Compresses what is big in threads, so that the event loop is not held by it."""

from typing import Final

import trio

from turbod import frames
from turbod.server.packing import Frames, Piece, View

THREADS: Final = 2  # each some 700 MB/s
THREAD_BYTES: Final = 32 * 1024  # 0.1 ms; below, the way to a thread and back takes longer


class Compression:
    """A few threads' worth of compressors, each of which serves one thread at a time."""

    def __init__(self) -> None:
        self._idle = [frames.compressor() for _ in range(THREADS)]
        self._limiter = trio.CapacityLimiter(THREADS)

    async def framed(self, view: View, piece: Piece) -> Frames:
        """Return a piece as this view's frames; does not checkpoint where it is quickly done."""
        if not view.compress or len(piece) < THREAD_BYTES:
            return view.framed(piece)
        return await trio.to_thread.run_sync(self._compress, view, piece, limiter=self._limiter)

    def _compress(self, view: View, piece: Piece) -> Frames:
        compress = self._idle.pop()
        try:
            return view.framed(piece, compress)
        finally:
            self._idle.append(compress)
