"""Work begun ahead of whoever takes its results: several at once, taken in order, bounded."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar

import trio

from turbod.archive.stores.store import StoreFault

T = TypeVar("T")


class _Begun(Generic[T]):
    """One piece of work: its result, or why there is none."""

    def __init__(self, cost: int) -> None:
        self.cost = cost
        self.is_done = trio.Event()
        self.fault: StoreFault | None = None
        self.result: T


class Ahead(Generic[T]):
    """Work whose results one task takes, in the order in which another began it.

    What is under way, done, and in the hands of the taker costs no more than `room` together; one
    alone is always allowed. A StoreFault is raised where its result would have been taken; any
    other exception ends the nursery.
    """

    def __init__(self, nursery: trio.Nursery, *, room: int) -> None:
        self._nursery = nursery
        self._room = room
        self._used = 0
        self._begun: deque[_Begun[T]] = deque()
        self._in_hand: _Begun[T] | None = None
        self._has_ended = False
        self._changed = trio.Event()

    async def begin(self, work: Callable[[], Awaitable[T]], *, cost: int) -> None:
        """Begin the next as soon as there is room for it."""
        while self._used and self._used + cost > self._room:
            await self._changed.wait()
        begun = _Begun[T](cost)
        self._used += cost
        self._begun.append(begun)
        self._nursery.start_soon(self._do, work, begun)
        self._change()

    def end(self) -> None:
        """Say that no more will be begun."""
        self._has_ended = True
        self._change()

    def __aiter__(self) -> Self:
        """Take the results; each belongs to the taker until it asks for the next."""
        return self

    async def __anext__(self) -> T:
        """Return the next result.

        Raises:
            StoreFault: as its work did.
        """
        self._let_go()
        while not self._begun:
            if self._has_ended:
                raise StopAsyncIteration
            await self._changed.wait()
        self._in_hand = begun = self._begun.popleft()
        await begun.is_done.wait()
        if begun.fault is not None:
            raise begun.fault
        return begun.result

    async def _do(self, work: Callable[[], Awaitable[T]], begun: _Begun[T]) -> None:
        try:
            begun.result = await work()
        except StoreFault as fault:
            begun.fault = fault
        begun.is_done.set()

    def _let_go(self) -> None:
        if self._in_hand is not None:
            self._used -= self._in_hand.cost
            self._in_hand = None
            self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
