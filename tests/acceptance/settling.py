"""Waiting until all is where it must be, and saying in words what is not."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from tests.acceptance.follower import Follower
from tests.acceptance.plain_scan import differences, events_of, line_differences, logged, sent
from turbod.simulation.world import Simulation

POLL_SECONDS = 0.1


async def until(
    condition: Callable[[], bool | Awaitable[bool]], *, seconds: float, what: str
) -> None:
    """Wait for a condition, and fail in words when it does not come."""
    if not await _comes(condition, seconds=seconds):
        raise AssertionError(f"after {seconds:g} s still not: {what}")


async def settled(simulation: Simulation, data: Path, *, seconds: float = 30.0) -> list[bytes]:
    """Wait until all that was sent is on disk; return the log, which has each event once."""
    network = sent(simulation)
    await _comes(lambda: len(logged(data)) >= len(network), seconds=seconds)
    log = logged(data)
    if words := differences(network, events_of(log)):
        raise AssertionError(words)
    return log


async def caught_up(
    followers: Sequence[Follower], log: Sequence[bytes], *, seconds: float = 30.0
) -> None:
    """Wait until everybody has as much as a plain scan selects, and compare it all, to the byte.

    Nobody changes a filter any more; a change that is under way is waited for.
    """
    await until(
        lambda: all(follower.may_change() for follower in followers),
        seconds=seconds,
        what="all connected, with the filters that they asked for last",
    )
    expected = [follower.expected(log) for follower in followers]
    await _comes(
        lambda: all(len(f.lines) >= len(e) for f, e in zip(followers, expected, strict=True)),
        seconds=seconds,
    )
    for number, follower in enumerate(followers):
        if found := line_differences(expected[number], follower.lines):
            raise AssertionError(
                f"follower {number}, {len(follower.ends)} connections, at {follower.cursor}: "
                f"{found}; told {follower.news[-1:]}, refused {follower.refusals[-1:]}"
            )


async def _comes(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        while True:
            answer = condition()
            if (await answer) if inspect.isawaitable(answer) else answer:
                return True
            await trio.sleep(POLL_SECONDS)
    return False
