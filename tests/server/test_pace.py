from itertools import pairwise

import pytest
import trio
import trio.testing

from turbod.server.pace import BURST_SECONDS, Pace


class Loop:
    """A loop on a clock that stands still unless history works, and what worked when."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.pace = Pace()
        self.turns = ""
        self.works: list[tuple[float, float]] = []
        self._clock = clock

    async def work(self, seconds: float, *, waits: float = 0.0) -> None:
        """Hold the loop, wait for something, and hold it again."""
        self._hold(seconds / 2)
        await trio.sleep(waits)
        self._hold(seconds / 2)

    def _hold(self, seconds: float) -> None:
        started = trio.current_time()
        self._clock.jump(seconds)
        self.works.append((started, trio.current_time()))

    async def read(self, name: str, *, pieces: int, seconds: float, waits: float = 0.0) -> None:
        """Read history as a subscriber does."""
        for _ in range(pieces):
            await self.pace.turn()
            self.turns += name
            await self.pace.measured(self.work(seconds, waits=waits))

    def worked(self, after: float, before: float) -> float:
        """For how long history held the loop between two times."""
        return sum(max(0.0, min(end, before) - max(start, after)) for start, end in self.works)


@pytest.mark.parametrize("readers", [1, 2, 12])
@pytest.mark.parametrize("seconds", [0.0001, 0.0007, 0.003])
@pytest.mark.parametrize("waits", [0.0, 0.0004])
async def test_all_readers_together_have_at_most_half_of_the_loop(
    autojump_clock: trio.testing.MockClock, readers: int, seconds: float, waits: float
) -> None:
    loop = Loop(autojump_clock)
    async with trio.open_nursery() as nursery:
        for number in range(readers):
            nursery.start_soon(
                lambda name: loop.read(name, pieces=600 // readers, seconds=seconds, waits=waits),
                str(number),
            )
    begin, end = loop.works[0][0], loop.works[-1][1]
    assert loop.pace.worked_seconds == pytest.approx(600 * seconds)
    # Beyond half: one burst, and a piece of each reader that had its turn before the rest began.
    most = BURST_SECONDS + (readers if waits else 1) * seconds
    window = 0.05
    for start in (begin + n * window / 3 for n in range(int((end - begin) / window * 3))):
        assert loop.worked(start, start + window) <= window / 2 + most


async def test_each_burst_is_followed_by_as_long_a_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    loop = Loop(autojump_clock)
    await loop.read("one", pieces=50, seconds=0.001)
    bursts = [[0.0, 0.0]]
    for (start, end), (following, _) in pairwise(loop.works):
        bursts[-1][0] += end - start
        if following > end:
            bursts[-1][1] = following - end
            bursts.append([0.0, 0.0])
    assert len(bursts) > 10
    for worked, rested in bursts[:-1]:
        assert rested >= worked - 1e-9
        assert worked <= BURST_SECONDS + 0.002


async def test_readers_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever asks again stands behind everybody who waits already."""
    loop = Loop(autojump_clock)
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(lambda name: loop.read(name, pieces=20, seconds=0.001), name)
    assert len(loop.turns) == 60
    for position in range(0, 60, 3):
        assert set(loop.turns[position : position + 3]) == {"a", "b", "c"}


async def test_an_idle_loop_owes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    loop = Loop(autojump_clock)
    await loop.read("one", pieces=1, seconds=0.5)
    await trio.sleep(0.5)
    started = trio.current_time()
    await loop.pace.turn()
    assert trio.current_time() == started


async def test_what_work_returns_or_raises_comes_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pace = Pace()

    async def give() -> int:
        await trio.sleep(1)
        autojump_clock.jump(0.25)
        return 7

    async def fail() -> None:
        await trio.sleep(1)
        raise LookupError("no")

    assert await pace.measured(give()) == 7
    with pytest.raises(LookupError, match="no"):
        await pace.measured(fail())
    with trio.move_on_after(0.5) as scope:
        await pace.measured(give())
    assert scope.cancelled_caught
    assert pace.worked_seconds == 0.25  # by the one that came to its end
