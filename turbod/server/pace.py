"""How much of the event loop history may have: at most half, for all its readers together."""

from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from types import coroutine
from typing import Any, Final, TypeVar

import trio

T = TypeVar("T")

BURST_SECONDS: Final = 0.002  # epoll sleeps whole milliseconds: short pieces share a rest


class Pace:
    """Counts for how long history holds the loop, and keeps it from the loop for as long.

    Work comes in pieces of a millisecond or two; before each its reader waits for its `turn`. As
    soon as a rest of more than BURST_SECONDS is owed, no turn comes before all of it is over.

    Attributes:
        worked_seconds: for which history held the loop since the start.
    """

    def __init__(self) -> None:
        self._order = trio.StrictFIFOLock()
        self._rested_at = 0.0  # by then it will have rested for as long as it worked
        self.worked_seconds = 0.0

    async def turn(self) -> None:
        """Wait for leave to do one piece of work, behind whoever asked before."""
        async with self._order:
            if self._rested_at > trio.current_time() + BURST_SECONDS:
                await trio.sleep_until(self._rested_at)

    @coroutine
    def measured(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await work on history; count what holds the loop, and nothing for which it waits."""
        answer = None
        try:
            while True:
                try:
                    with self.working():
                        trap = work.send(answer)
                except StopIteration as end:
                    result: T = end.value
                    return result
                answer = yield trap
        finally:
            work.close()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a piece of work that awaits nothing."""
        started = trio.current_time()
        try:
            yield
        finally:
            seconds = trio.current_time() - started
            self.worked_seconds += seconds
            self._rested_at = max(self._rested_at, started) + 2 * seconds
