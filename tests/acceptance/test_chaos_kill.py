"""kill -9 at random moments: nothing lost, nothing twice, the same bytes under the same cursor."""

import random
from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower, Wish
from tests.acceptance.plain_scan import disorder, events_of, objects, sent
from tests.acceptance.process import WRONG_CLOCK, serving
from tests.acceptance.settling import caught_up, settled, until
from turbod.cursor import HOUR_US
from turbod.simulation.jetstream_host import clock_us
from turbod.simulation.network import LIKE_THE_REAL_ONE
from turbod.simulation.world import Simulation, simulated
from turbod.upstream.position import SLOP_US

KILLS = 20
RATE = 150
SEED = 20_261_120
OPTIONS = {"hydration-deadline-seconds": 60}


def tear(data: Path, how: random.Random) -> None:
    """Leave behind the newest hour what a crash in the midst of a write may leave."""
    newest = max(path for path in (data / "live").glob("*.jsonl") if ".gaps" not in path.name)
    whole = newest.read_bytes()
    line = whole.splitlines()[-1] if whole else b"{}"
    kind = how.choice(("nothing", "zeros", "half a line", "garbage", "old line", "no break"))
    torn = {
        "nothing": b"",
        "zeros": bytes(how.randrange(1, 9000)),
        "half a line": line[: how.randrange(1, len(line))],
        "garbage": how.randbytes(how.randrange(1, 5000)),
        "old line": line + b"\n" + bytes(4096),
        "no break": line,
    }[kind]
    with newest.open("ab") as file:
        file.write(torn)


def wishes(simulation: Simulation) -> list[Wish]:
    """Return filters of several kinds."""
    people = [account.did for account in simulation.network.people.accounts]
    return [
        Wish(),
        Wish(collections=("app.bsky.feed.like", "app.bsky.graph.*"), kinds=("commit",)),
        Wish(dids=tuple(people[:5]), about=tuple(people[:20])),
        Wish(operations=("create",), shard=(1, 3)),
    ]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """Across SIGKILL at random moments log and subscribers have every event exactly once."""
    how = random.Random(SEED)
    async with (
        simulated(seed=SEED, mix=LIKE_THE_REAL_ONE, indexing_delay_seconds=0.3) as simulation,
        serving(simulation, tmp_path / "data", options=OPTIONS) as turbod,
        trio.open_nursery() as nursery,
    ):
        followers = [Follower(turbod.port, wish=wish) for wish in wishes(simulation)]
        followers.append(Follower(turbod.port, read_bytes=8192, pause_seconds=0.01))
        for follower in followers:
            await nursery.start(follower.run)
        await until(
            lambda: all(f.start is not None for f in followers), seconds=20, what="all connected"
        )
        simulation.rate = RATE
        for kill in range(KILLS):
            if kill == KILLS // 2:  # events wait longer than the seconds that a resume repeats
                simulation.appview.latency_seconds = 60.0
                await trio.sleep(SLOP_US / 1_000_000 + 4)
            longest = 3.0 if kill % 4 == 3 else 1.0  # now and then long enough to save positions
            await trio.sleep(how.uniform(0.05, longest))
            await turbod.kill()
            simulation.appview.latency_seconds = 0.03
            if how.random() < 0.7:
                tear(turbod.data, how)
            await trio.sleep(how.uniform(0, 0.3))
            await turbod.start(wait=how.random() < 0.8)
        await turbod.ready()
        simulation.rate = 0
        followers[-1].pause_seconds = 0
        log = await settled(simulation, turbod.data)
        assert disorder(sent(simulation), events_of(log)) == ""
        await caught_up(followers, log)
        nursery.cancel_scope.cancel()
        assert not any(follower.gaps for follower in followers)
        assert len(followers[0].ends) >= KILLS


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_kills_around_the_turn_of_an_hour_lose_nothing(tmp_path: Path) -> None:
    """The newest hour may be minutes or no record old: all is there, in a file and an object."""
    how = random.Random(SEED)
    ahead_us = HOUR_US - clock_us() % HOUR_US - 5_000_000  # the hour turns in five seconds
    (tmp_path / "ahead").write_text(str(ahead_us / 1_000_000))
    program = ("-c", WRONG_CLOCK, str(tmp_path / "ahead"))
    async with (
        simulated(seed=SEED, now_us=lambda: clock_us() + ahead_us) as simulation,
        serving(simulation, tmp_path / "data", program=program) as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        await until(lambda: follower.start is not None, seconds=20, what="connected")
        simulation.rate = RATE
        for _ in range(8):
            await trio.sleep(how.uniform(0.2, 0.8))
            await turbod.kill()
            tear(turbod.data, how)
            await turbod.start()
        simulation.rate = 0
        log = await settled(simulation, turbod.data)
        assert disorder(sent(simulation), events_of(log)) == ""
        late = Follower(turbod.port)
        await nursery.start(late.run)
        await caught_up([follower, late], log)
        assert len(list((turbod.data / "live").glob("*.jsonl"))) == 1
        assert len({path.name for path in objects(turbod.data)}) == 1
        nursery.cancel_scope.cancel()
