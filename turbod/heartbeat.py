"""Whether every long-lived task still comes round: each has a heart, and who is silent is late.

A task beats at every turn of its loop, and waits for what may never come in `resting`, which the
ticker interrupts: the loop then looks at its condition again, and rests again. So a quiet night is
answered like a busy one, a lost wake-up heals, and only a task that hangs falls silent. Which heart
is meant follows from the task that runs, so that what waits deep down needs none handed to it; in
tasks without one, all this does nothing but wait.
"""

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from turbod.histogram import Distribution, Histogram

TICK_SECONDS: Final = 5.0
LOOKS_PER_TICK: Final = 20  # at how late the event loop is
# A disk that is busy takes seconds for a sync, and a thread waits its turn for some. Nothing here
# takes a minute, unless it has a time limit of its own (`allowing`).
SILENT_SECONDS: Final = 60.0

log = structlog.get_logger()


class HeartStatistics(msgspec.Struct, frozen=True):
    """How the tasks are, and the event loop that they share.

    Attributes:
        hearts: long-lived tasks.
        late: by name, those that hang, with the seconds for which each is silent.
        tasks: of trio's, those of single connections among them.
        loop_lag_seconds: how late sleeps ended, four a second.
    """

    hearts: int
    late: dict[str, float]
    tasks: int
    loop_lag_seconds: Distribution


class Heart:
    """One task's.

    Attributes:
        name: of the task, for people.
        has_beaten: since the last tick.
        silent_seconds: since the last beat that a tick saw.
        allowed_seconds: for which silence means nothing, beside SILENT_SECONDS.
        rest: what a tick interrupts.
        is_late: whether that was told.
    """

    __slots__ = ("allowed_seconds", "has_beaten", "is_late", "name", "rest", "silent_seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_beaten = True
        self.silent_seconds = 0.0
        self.allowed_seconds = 0.0
        self.rest: trio.CancelScope | None = None
        self.is_late = False

    def beat(self) -> None:
        """Say that the task goes on; from any thread."""
        self.has_beaten = True

    def tick(self) -> bool:
        """Count one tick, and interrupt a rest; tell whether the heart is late.

        Ticks are counted, not time: a process that was stopped for an hour has no silent tasks.
        """
        self.silent_seconds = 0.0 if self.has_beaten else self.silent_seconds + TICK_SECONDS
        self.has_beaten = False
        if self.rest is not None:
            self.rest.cancel()
        return self.silent_seconds >= SILENT_SECONDS + self.allowed_seconds


class Heartbeats:
    """The hearts of all tasks that were started within `watching`; as many as there are tasks."""

    def __init__(self) -> None:
        self.hearts: dict[trio.lowlevel.Task, Heart] = {}
        self._ticked_at = math.inf
        self._loop_lag = Histogram()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this task, where it has a heart, and those that are started from here."""
        token = _watching.set(self)
        try:
            yield
        finally:
            _watching.reset(token)

    async def run(self) -> None:
        """Tick until cancelled, and log who becomes late and who comes back."""
        while True:
            self._ticked_at = trio.current_time()
            self.tick()
            for _ in range(LOOKS_PER_TICK):
                await self._look_at_loop(TICK_SECONDS / LOOKS_PER_TICK)

    async def _look_at_loop(self, seconds: float) -> None:
        until = trio.current_time() + seconds
        await trio.sleep_until(until)
        self._loop_lag.add(max(trio.current_time() - until, 0.0))

    def tick(self) -> None:
        """Ask every heart for a beat until the next tick."""
        for task, heart in self.hearts.items():
            is_late = heart.tick()
            if is_late and not heart.is_late:
                log.error(
                    "task_hangs",
                    task=heart.name,
                    silent_seconds=heart.silent_seconds,
                    at=_where(task),
                    todo="look for a disk that hangs; restart turbod where systemd does not",
                )
            elif heart.is_late and not is_late:
                log.warning("task_goes_on", task=heart.name)
            heart.is_late = is_late

    def late(self, now: float) -> list[tuple[str, float]]:
        """Return the tasks that hang, with the seconds for which each is silent.

        `now` is the event loop's clock, by which the ticker must not have stopped.
        """
        late = [(each.name, each.silent_seconds) for each in self.hearts.values() if each.is_late]
        unticked_seconds = now - self._ticked_at
        if unticked_seconds > SILENT_SECONDS:
            late.append(("heartbeats", unticked_seconds))
        return late

    def statistics(self) -> HeartStatistics:
        """Return the figures of this moment."""
        return HeartStatistics(
            hearts=len(self.hearts),
            late=dict(self.late(trio.current_time())),
            tasks=trio.lowlevel.current_statistics().tasks_living,
            loop_lag_seconds=self._loop_lag.distribution(),
        )


_watching: ContextVar[Heartbeats | None] = ContextVar("heartbeats", default=None)


@contextmanager
def beating(name: str) -> Iterator[None]:
    """Give this task a heart, which ends with the block."""
    heartbeats, task = _watching.get(), trio.lowlevel.current_task()
    if heartbeats is None:
        yield
        return
    assert task not in heartbeats.hearts, "a task has one heart"
    heartbeats.hearts[task] = Heart(name)
    try:
        yield
    finally:
        del heartbeats.hearts[task]


def heart() -> Heart:
    """Return this task's heart; one that nobody looks at where it has none."""
    heartbeats = _watching.get()
    found = heartbeats and heartbeats.hearts.get(trio.lowlevel.current_task())
    return found or Heart("")


def beat() -> None:
    """Say that this task goes on: at every turn of a loop, and of work in steps."""
    heart().beat()


@contextmanager
def resting(*, until: float = math.inf) -> Iterator[None]:
    """Wait in here for what may never come, until a tick or a time. Look again behind it.

    What is awaited must be safe to cancel: an event, a parking lot, a lock, a receive or an accept;
    never a send or a thread.
    """
    mine, scope = heart(), trio.CancelScope(deadline=until)
    mine.beat()
    outer, mine.rest = mine.rest, scope
    try:
        with scope:
            yield
    finally:
        mine.rest = outer
        mine.beat()


@contextmanager
def allowing(seconds: float) -> Iterator[None]:
    """Do in here what may take so long without a beat, as it has a time limit of its own."""
    mine = heart()
    mine.beat()
    outer = mine.allowed_seconds
    mine.allowed_seconds = max(outer, seconds)
    try:
        yield
    finally:
        mine.allowed_seconds = outer
        mine.beat()


async def sleep(seconds: float) -> None:
    """Sleep, and answer the ticks meanwhile."""
    until = trio.current_time() + seconds
    await trio.lowlevel.checkpoint()
    while trio.current_time() < until:
        with resting(until=until):
            await trio.sleep_forever()


async def wait(event: trio.Event, *, until: float = math.inf) -> None:
    """Wait for an event or a time, and answer the ticks meanwhile."""
    await trio.lowlevel.checkpoint()
    while not event.is_set() and trio.current_time() < until:
        with resting(until=until):
            await event.wait()


@asynccontextmanager
async def holding(lock: trio.Lock) -> AsyncIterator[None]:
    """Hold a lock that others may hold for long, and answer the ticks while waiting for it."""
    is_held = False
    while not is_held:
        with resting():
            await lock.acquire()
            is_held = True
    try:
        yield
    finally:
        lock.release()


def _where(task: trio.lowlevel.Task) -> str:
    """Return the innermost place in turbod that a task waits at: file, line and function."""
    places = [
        f"{Path(frame.f_code.co_filename).relative_to(_HERE)}:{line} {frame.f_code.co_name}"
        for frame, line in task.iter_await_frames()
        if Path(frame.f_code.co_filename).is_relative_to(_HERE)
    ]
    return places[-1] if places else ""


_HERE: Final = Path(__file__).parent
