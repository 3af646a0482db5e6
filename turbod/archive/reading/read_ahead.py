"""What is read for many at once: each thing fetched once, kept while there is room, bounded."""

from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

import msgspec
import trio

from turbod import heartbeat
from turbod.archive.format.hour_object import Damaged
from turbod.archive.stores.store import StoreFault

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

HOLD_SECONDS: Final = 2.0  # so long what a reader is in the middle of waits for it to go on
LONGEST_HOLD_SECONDS: Final = 10.0  # and no longer, however often a slow one asks
AFTER_SECONDS: Final = 0.1  # so long what a reader has done with waits for others that keep pace


class ReadAheadStatistics(msgspec.Struct, frozen=True):
    """What was fetched since the start, and what is kept."""

    fetched: int
    shared: int
    kept: int
    bytes: int


class _Entry(Generic[V]):
    """One thing: kept, under way, or waiting for room.

    Attributes:
        size: the bytes that it is counted with, 0 while it waits for room.
        used_at: when it was last asked for.
        fetched_at: when it came.
        askers: how many wait for it.
        waiting: cancelled where nobody does before its turn has come; None from then on.
    """

    __slots__ = (
        "askers",
        "fault",
        "fetched_at",
        "is_done",
        "is_finished",
        "size",
        "used_at",
        "value",
        "waiting",
    )

    def __init__(self, now: float) -> None:
        self.size = 0
        self.used_at = self.fetched_at = now
        self.askers = 0
        self.waiting: trio.CancelScope | None = None
        self.is_finished = False
        self.is_done = trio.Event()
        self.fault: Exception | None = None
        self.value: V | None = None


class ReadAhead(Generic[K, V]):
    """Things by their key, the longest unused first, within `max_bytes` together.

    What a reader is in the middle of is kept for HOLD_SECONDS after it last asked for it, so that
    more readers than there is room for take turns, and do not fetch the same again and again. Who
    needs room waits in order; one thing alone is always allowed, so there will be some.

    `run` must be running. A fetch that began goes on whether or not anybody still waits for it; one
    that waits for room does not, so that whoever comes and goes leaves nothing to be done.

    Attributes:
        max_bytes: it may be changed.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        size_of: Callable[[V], int],
        hold_seconds: float = HOLD_SECONDS,
        after_seconds: float = AFTER_SECONDS,
    ) -> None:
        self.max_bytes = max_bytes
        self._size_of = size_of
        self._hold_seconds = hold_seconds
        self._after_seconds = after_seconds
        self._entries: dict[K, _Entry[V]] = {}  # the longest unused first
        self._bytes = self._fetched = self._shared = 0
        self._turn = trio.StrictFIFOLock()
        self._changed = trio.Event()
        self._nursery: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what is asked for, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def get(self, key: K, fetch: Callable[[], Awaitable[V]], *, size: int) -> V:
        """Return what `key` stands for, fetched where it is not there: once for all who ask.

        Args:
            key: what it is.
            fetch: gets it, and may raise StoreFault or Damaged.
            size: how many bytes it may need while it is fetched.

        Raises:
            StoreFault: as `fetch` did.
            Damaged: as `fetch` did.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._add(key)
            entry.waiting = trio.CancelScope()
            self._nursery.start_soon(self._fetch_in_turn, key, entry, fetch, size)
        else:
            self._shared += 1
        self._use(key, entry)
        entry.askers += 1
        try:
            await entry.is_done.wait()
        finally:
            entry.askers -= 1
            if entry.waiting is not None and not entry.askers:
                entry.waiting.cancel()
                del self._entries[key]
        if entry.fault is not None:
            raise entry.fault.with_traceback(None)
        self._use(key, entry)
        assert entry.value is not None, "what is done has a fault or a value"
        return entry.value

    def peek(self, key: K) -> V | None:
        """Return it where it is there."""
        entry = self._entries.get(key)
        return entry.value if entry is not None else None

    def begin(self, key: K, fetch: Callable[[], Awaitable[V]], *, size: int) -> None:
        """Fetch something before it is asked for, if that puts out nothing that others use."""
        if key in self._entries or self._turn.locked() or not self._make_room(size):
            return
        entry = self._add(key)
        self._count(entry, size)
        self._nursery.start_soon(self._fetch, key, entry, fetch)

    def finished(self, key: K) -> None:
        """Note that a reader needs it no more; another may."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.is_finished = True
            self._change()

    def statistics(self) -> ReadAheadStatistics:
        """Return the figures of this moment."""
        return ReadAheadStatistics(self._fetched, self._shared, len(self._entries), self._bytes)

    def _add(self, key: K) -> _Entry[V]:
        entry = self._entries[key] = _Entry(trio.current_time())
        return entry

    def _use(self, key: K, entry: _Entry[V]) -> None:
        """Note that somebody is in the middle of it."""
        entry.used_at = trio.current_time()
        entry.is_finished = False
        if self._entries.get(key) is entry:
            self._entries[key] = self._entries.pop(key)

    async def _fetch_in_turn(
        self, key: K, entry: _Entry[V], fetch: Callable[[], Awaitable[V]], size: int
    ) -> None:
        assert entry.waiting is not None, "its turn comes once"
        with entry.waiting as waiting:
            async with self._turn:
                while not waiting.cancel_called and not self._make_room(size):
                    with trio.move_on_after(max(self._after_seconds, 0.01)):
                        await self._changed.wait()
                if not waiting.cancel_called:
                    entry.waiting = None
                    self._count(entry, size)
        if entry.waiting is None:
            await self._fetch(key, entry, fetch)

    async def _fetch(self, key: K, entry: _Entry[V], fetch: Callable[[], Awaitable[V]]) -> None:
        try:
            with heartbeat.beating("archive_read"):
                entry.value = await fetch()
        except (StoreFault, Damaged) as fault:
            entry.fault = fault
            del self._entries[key]
            self._count(entry, 0)
        else:
            self._fetched += 1
            entry.used_at = entry.fetched_at = trio.current_time()
            self._count(entry, self._size_of(entry.value))
        entry.is_done.set()

    def _make_room(self, size: int) -> bool:
        """Drop what nobody is in the middle of until `size` bytes fit; drop nothing in vain."""
        left, dropped = self._bytes, []
        idle = self._idle(trio.current_time())
        while left and left + size > self.max_bytes:
            if (key := next(idle, None)) is None:
                return False
            dropped.append(key)
            left -= self._entries[key].size
        for key in dropped:
            self._count(self._entries.pop(key), 0)
        return True

    def _idle(self, now: float) -> Iterator[K]:
        """Yield what nobody is in the middle of: first what readers have done with."""
        for is_finished in (True, False):
            for key, entry in self._entries.items():
                if entry.is_finished is is_finished and self._is_idle(entry, now):
                    yield key

    def _is_idle(self, entry: _Entry[V], now: float) -> bool:
        if not entry.is_done.is_set():
            return False
        seconds = self._after_seconds if entry.is_finished else self._hold_seconds
        return now >= min(entry.used_at + seconds, entry.fetched_at + LONGEST_HOLD_SECONDS)

    def _count(self, entry: _Entry[V], size: int) -> None:
        self._bytes += size - entry.size
        entry.size = size
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
