"""What was read and not yet taken: bounded in bytes."""

from collections import deque
from typing import Final, Generic, TypeVar

import trio

T = TypeVar("T")

ROOM_BYTES: Final = 4 * 1024 * 1024  # one item may bring it above: a frame of the archive


class Buffer(Generic[T]):
    """One task puts, another takes."""

    def __init__(self) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._used_bytes = 0
        self._changed = trio.Event()

    def put(self, item: T, size: int = 0) -> None:
        """Add an item of so many bytes. To be called after `room`, else the bound is passed."""
        self._items.append((item, size))
        self._used_bytes += size
        self._change()

    async def room(self) -> None:
        """Wait until there is room."""
        await trio.lowlevel.checkpoint()
        while self._used_bytes >= ROOM_BYTES:
            await self._changed.wait()

    async def take(self) -> T:
        """Return the next item as soon as there is one."""
        await trio.lowlevel.checkpoint()
        while not self._items:
            await self._changed.wait()
        item, size = self._items.popleft()
        self._used_bytes -= size
        self._change()
        return item

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
