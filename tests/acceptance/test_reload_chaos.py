"""Collections change by SIGHUP while hosts come and go and turbod is killed, at random."""

import json
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.acceptance.plain_scan import events_of, is_wanted, key_of, logged
from tests.acceptance.process import Turbod, serving
from tests.acceptance.settling import until
from turbod.simulation.jetstream_host import JetstreamHost
from turbod.simulation.world import Simulation, simulated

ALWAYS = "app.bsky.feed.post"
SOMETIMES = ("app.bsky.feed.like", "app.bsky.feed.repost", "app.bsky.graph.*")
QUICK = {
    "jetstream-silence-seconds": 1,
    "jetstream-ping-seconds": 0.5,
    "jetstream-longest-backoff-seconds": 0.5,
}
STEPS = 40


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_what_was_wanted_all_the_time_is_there_once_and_no_gap_is_told(
    version: str, tmp_path: Path
) -> None:
    """At most one host is away at a time, so that the other one has it all.

    The file is read while it is written, too: then it is wrong, or has the default, ALWAYS.
    """
    dice, file = random.Random(31), tmp_path / "turbod.toml"
    file.write_text(f'collections = ["{ALWAYS}"]')
    async with (
        simulated(seed=31, version=version) as simulation,
        serving(
            simulation, tmp_path / "data", collections=(), options={"config": file, **QUICK}
        ) as turbod,
    ):
        simulation.rate = 150
        away: list[JetstreamHost] = []
        for _ in range(STEPS):
            others = [name for name in SOMETIMES if dice.random() < 0.5]
            file.write_text(f"collections = {json.dumps([ALWAYS, *others])}")
            turbod.process.send_signal(signal.SIGHUP)
            await trio.sleep(dice.choice([0, 0.005, 0.05, 0.2]))
            await disturb(simulation, turbod, dice, away)
            await trio.sleep(dice.choice([0, 0.01, 0.1, 0.3]))
        for host in away:
            host.come_up()
        simulation.rate = 0
        happened = [json.loads(message) for message in simulation.everything()]
        sure = {key_of(event) for event in happened if is_wanted(event, (ALWAYS,))}
        found: Counter[tuple[str, ...]] = Counter()

        def is_whole() -> bool:
            found.clear()
            found.update(map(key_of, events_of(logged(turbod.data))))
            return sure <= found.keys()

        await until(is_whole, seconds=30, what="all is logged")
        assert not [key for key, count in found.items() if count > 1]
        assert "upstream_gap" not in turbod.output


async def disturb(
    simulation: Simulation, turbod: Turbod, dice: random.Random, away: list[JetstreamHost]
) -> None:
    """Let a host go down, or come up, or kill turbod, or do nothing."""
    chance = dice.random()
    if away and chance < 0.5:
        away.pop().come_up()
    elif not away and chance < 0.4:
        away.append(dice.choice(simulation.jetstreams))
        away[0].go_down()
    elif chance > 0.95:
        await turbod.kill()
        await turbod.start()
