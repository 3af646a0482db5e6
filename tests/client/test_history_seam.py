"""A real turbod whose hours are sealed and stored while its records are read."""

import json
from pathlib import Path

import pytest
import trio

from tests.acceptance.process import WRONG_CLOCK, Turbod, serving
from tests.client.programs import running, until
from turbod.simulation.jetstream_host import clock_us
from turbod.simulation.world import simulated

BEGIN = -6 * 3600  # in seconds before now, so that it is old to the client
OPTIONS = {"archive-public": "true", "hydration-calls-per-second": 1000}


async def stored(turbod: Turbod) -> int:
    """How many hours are listed."""
    status, body = await turbod.get("/archive")
    return len(json.loads(body)["hours"]) if status == 200 else 0


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_objects_sealed_hours_and_the_live_stream_are_one_sequence(tmp_path: Path) -> None:
    """From the oldest and from the middle, by objects or by the stream alone: the same lines."""
    ahead = tmp_path / "ahead"
    ahead.write_text(str(BEGIN))

    def set_clock(hour: int) -> None:
        ahead.with_suffix(".new").write_text(str(BEGIN + hour * 3600))
        ahead.with_suffix(".new").rename(ahead)

    async with (
        simulated(
            seed=5, now_us=lambda: clock_us() + int(ahead.read_text()) * 1_000_000
        ) as network,
        serving(
            network, tmp_path / "data", options=OPTIONS, program=("-c", WRONG_CLOCK, str(ahead))
        ) as turbod,
    ):
        url = f"ws://127.0.0.1:{turbod.port}"
        async with running(f"{url}/app/api/v1/turbostream/turbostream", cursor=0) as plain:
            for hour in range(4):
                set_clock(hour)
                network.emit(400)
                await until(lambda hour=hour: len(plain.lines) >= 390 * (hour + 1), seconds=20)  # type: ignore[misc]
            with trio.fail_after(30):
                while await stored(turbod) < 3:  # noqa: ASYNC110 - another process makes them
                    await trio.sleep(0.1)
            middle = json.loads(plain.lines[600])["cursor"]
            async with running(url, cursor=0) as whole, running(url, cursor=middle) as half:
                for hour in (4, 5):
                    set_clock(hour)
                    network.emit(400)
                    await until(lambda hour=hour: len(plain.lines) >= 390 * (hour + 1), seconds=20)  # type: ignore[misc]
                await trio.sleep(0.5)
                await until(lambda: whole.lines[-1:] == plain.lines[-1:], seconds=20)
                await until(lambda: half.lines[-1:] == plain.lines[-1:], seconds=20)
                assert whole.lines == plain.lines
                assert half.lines == plain.lines[601:]
                for program in (whole, half):
                    assert program.words == ["connected"], "nothing was refused or lost"
                    assert not program.gaps
