"""The machine's clock is set forward and back while turbod runs and between two starts."""

from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.plain_scan import disorder, events_of, sent
from tests.acceptance.process import WRONG_CLOCK, serving
from tests.acceptance.settling import caught_up, settled, until
from turbod.simulation.world import simulated

STEPS_SECONDS = (90, -120, 4000, -7200, 30, 0)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_clock_steps_lose_nothing_and_cursors_rise(tmp_path: Path) -> None:
    """Forward and back by seconds and hours, while it runs, with kills and drops between."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    async with (
        simulated(seed=31) as simulation,
        serving(simulation, tmp_path / "data", program=("-c", WRONG_CLOCK, str(offset))) as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        await until(lambda: follower.start is not None, seconds=10, what="connected")
        simulation.rate = 100
        await trio.sleep(2)
        for number, seconds in enumerate(STEPS_SECONDS):
            offset.with_suffix(".new").write_text(str(seconds))
            offset.with_suffix(".new").rename(offset)
            await trio.sleep(1.2)
            if number % 3 == 1:
                await turbod.kill()
                await turbod.start()
            elif number % 3 == 2:
                simulation.jetstreams[number % 2].drop_connections()
            await trio.sleep(0.5)
        simulation.rate = 0
        log = await settled(simulation, turbod.data)
        assert disorder(sent(simulation), events_of(log)) == ""
        await caught_up([follower], log)
        assert not follower.gaps
        nursery.cancel_scope.cancel()
