"""kill -9 while hours are sealed, uploaded and pruned: nothing lost, nothing twice, all stored."""

import random
from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.acceptance.archive_faults import Kind, Race, racing
from tests.acceptance.test_chaos_kill import tear

KILLS = 50
# In the midst of each of these it is to be killed at least once.
STAGES = (
    "an object was being made",
    "an hour was to be sealed",
    "an object waited",
    "an object was stored and not yet verified",
)
SEED = 20_261_121
KEPT_BYTES = 150_000  # some hours

pytestmark = [pytest.mark.slow, pytest.mark.timeout(800)]


def stages(race: Race) -> set[str]:
    """Say in the midst of what it was killed, as the files tell."""
    data = race.turbod.data
    plain = {path.stem for path in data.glob("live/*.jsonl") if ".gaps" not in path.name}
    sealed = {path.name for path in data.glob("sealed/[0-9]*.zst")}
    stored = {key.rpartition("/")[2] for key in race.place.listing()}
    found = {
        "an object was being made": any(data.glob("sealed/.*.making")),
        "an hour was to be sealed": len(plain) > 1,
        "an object waited": bool(sealed),
        "an object was stored and not yet verified": bool(sealed & stored),
        "nothing was under way": len(plain) <= 1 and not sealed,
    }
    return {stage for stage, is_so in found.items() if is_so}


async def live_and_die(race: Race, how: random.Random) -> None:
    """Let what happened before be delivered, then hours, and kill it somewhere on its way.

    No hour begins before the last one was delivered: hydration takes a part of a second, which
    must not be hours.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, race, how.randrange(10, 40))
        await moment(race, how)
        await race.turbod.kill()
        nursery.cancel_scope.cancel()


async def live(race: Race, events: int) -> None:
    await race.delivered()
    await race.hours(20, events=events)


async def moment(race: Race, how: random.Random) -> None:
    """Wait for a good moment to die: any, or shortly after something has begun."""
    await trio.sleep(how.choice((how.uniform(0, 0.5), how.uniform(0.5, 3))))
    if pattern := how.choice(("", "sealed/.*.making", "sealed/[0-9]*.zst", "sealed/[0-9]*.zst")):
        with trio.move_on_after(5):
            while not any(race.turbod.data.glob(pattern)):  # noqa: ASYNC110 - no event
                await trio.sleep(0.001)
        await trio.sleep(how.choice((0, 0.01, 0.03)) * how.random())


@pytest.mark.parametrize("kind", ["folder", "rclone"])
async def test_fifty_kills_lose_no_hour(tmp_path: Path, kind: Kind) -> None:
    """Every event is in the archive or on disk, once, under the cursor that was delivered.

    Fifty times, and more where none of these yet hit a stage: some last a few milliseconds.
    """
    how = random.Random(SEED)
    died: Counter[str] = Counter()
    kills = 0
    async with racing(tmp_path, kind, kept_bytes=KEPT_BYTES) as race:
        while kills < KILLS or not all(died[stage] for stage in STAGES):
            assert kills < 3 * KILLS, died
            kills += 1
            await live_and_die(race, how)
            died.update(stages(race))
            if how.random() < 0.7 and any(race.turbod.data.glob("live/*.jsonl")):
                tear(race.turbod.data, how)
            race.happen(how.randrange(20))
            await race.turbod.start(wait=how.random() < 0.8)
        await race.turbod.ready()
        await race.delivered()
        race.slowest_seconds = 0.0
        await race.hours(2)
        await race.check()
        assert len(race.live[0].ends) >= KILLS / 2
