"""Blocking calls in threads: so many at once, each within its time, left behind where cancelled."""

from collections.abc import Callable
from typing import TypeVar

import trio

from turbod import heartbeat

T = TypeVar("T")


class LeftBehind(Exception):
    """Nobody waits for this call any more; it ends as soon as it notices, and leaves no trace."""


class Call:
    """What a call in a thread asks, at every step of long work, whether it shall go on."""

    def __init__(self) -> None:
        self._is_wanted = True
        self._heart = heartbeat.heart()

    def go_on(self) -> None:
        """Return where somebody waits for the result.

        Raises:
            LeftBehind: nobody does.
        """
        if not self._is_wanted:
            raise LeftBehind
        self._heart.beat()

    def leave(self) -> None:
        """Want the result no more."""
        self._is_wanted = False


class Threads:
    """Runs the blocking calls of one store.

    A disk or a server that hangs holds a thread, never whoever called: such a call is left behind,
    and counts among those at once until it ends.
    """

    def __init__(self, calls_at_once: int) -> None:
        self._limiter = trio.CapacityLimiter(calls_at_once)

    async def run(self, work: Callable[[Call], T], *, seconds: float) -> T:
        """Return what the work returns; it runs in a thread.

        Raises:
            trio.TooSlowError: it took longer than that, or none could begin.
        """
        call = Call()
        try:
            with heartbeat.allowing(seconds), trio.fail_after(seconds):
                return await trio.to_thread.run_sync(
                    work, call, abandon_on_cancel=True, limiter=self._limiter
                )
        finally:
            call.leave()
