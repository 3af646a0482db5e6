"""A log that is full lets its oldest hours go: who is too slow is told so, nobody else notices."""

from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower, cursor_of
from tests.acceptance.plain_scan import differences, events_of, sent
from tests.acceptance.process import WRONG_CLOCK, serving
from tests.acceptance.settling import until
from turbod.simulation.jetstream_host import clock_us
from turbod.simulation.world import simulated

HOURS = 7
EVENTS_AN_HOUR = 1500  # some 4 MB
OPTIONS = {
    "log-max-bytes": 10 * 1024 * 1024,
    "log-memory-bytes": 1024 * 1024,
    "hydration-calls-per-second": 1000,
}


async def read_all(follower: Follower, count: int) -> None:
    """Wait until it has so many records."""
    await until(lambda: len(follower.lines) >= count, seconds=20, what=f"{count} records")


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_reader_that_is_too_slow_for_the_disk_is_told_what_it_lost(tmp_path: Path) -> None:
    """`ConsumerTooSlow` where it stands, then `OutdatedCursor`; between them lies what is lost."""
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    async with (
        simulated(
            seed=71, now_us=lambda: clock_us() + int(ahead.read_text()) * 1_000_000
        ) as network,
        serving(
            network,
            tmp_path / "data",
            options=OPTIONS,
            program=("-c", WRONG_CLOCK, str(ahead)),
        ) as turbod,
        trio.open_nursery() as nursery,
    ):
        prompt = Follower(turbod.port)
        slow = Follower(turbod.port, read_bytes=4096, pause_seconds=0.05)
        for follower in (prompt, slow):
            await nursery.start(follower.run)
        await until(lambda: slow.start is not None is not prompt.start, seconds=10, what="both")
        for hour in range(HOURS):
            ahead.with_suffix(".new").write_text(str(hour * 3600))
            ahead.with_suffix(".new").rename(ahead)
            network.emit(EVENTS_AN_HOUR)
            await read_all(prompt, len(sent(network)))
        assert differences(sent(network), events_of(prompt.lines)) == ""
        assert not prompt.ends
        slow.pause_seconds = 0.0
        await until(lambda: slow.lines[-1:] == prompt.lines[-1:], seconds=20, what="the end")
        status = await turbod.status()
        assert status["log"]["disk_bytes"] < OPTIONS["log-max-bytes"] * 1.5
        nursery.cancel_scope.cancel()
    errors = [told for told in slow.news if told["$type"] == "#error"]
    assert [told["error"] for told in errors] == ["ConsumerTooSlow"]
    assert slow.ends == [1008]
    outdated = next(n for n, told in enumerate(slow.news) if told.get("name") == "OutdatedCursor")
    lost_after, lost_until = errors[0]["cursor"], slow.news[outdated - 1]["cursor"]
    left = [line for line in prompt.lines if not lost_after < cursor_of(line) <= lost_until]
    assert slow.lines == left
    assert len(left) < len(prompt.lines)
