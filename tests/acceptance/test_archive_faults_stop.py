"""SIGTERM while an hour is sealed or uploaded: an exit in time, with 0, and it goes on after."""

import time
from pathlib import Path

import pytest

from tests.acceptance.archive_faults import Race, racing
from tests.acceptance.settling import until

SHUTDOWN_SECONDS = 5.0
SLACK_SECONDS = 2.0
OPTIONS = {"server-shutdown-seconds": SHUTDOWN_SECONDS}
BIG = 4000  # events of an hour, whose object takes a while to make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def stop(race: Race) -> None:
    """Stop turbod; fail where it takes too long or does not end well."""
    began = time.monotonic()
    assert await race.turbod.stop() == 0
    assert time.monotonic() - began < SHUTDOWN_SECONDS + SLACK_SECONDS


async def test_sigterm_while_an_hour_is_sealed(tmp_path: Path) -> None:
    """No half object stays; the hour is sealed by the next start."""
    async with racing(tmp_path, options=OPTIONS) as race:
        data = race.turbod.data
        await race.hours(1)
        race.clock.advance()
        race.happen(BIG)
        await race.delivered()
        race.clock.advance()
        race.happen(20)
        await until(lambda: len(list(data.glob("live/*.jsonl"))) == 2, seconds=10, what="two hours")
        while not any(data.glob("sealed/.*.making")):
            assert len(list(data.glob("live/*.jsonl"))) > 1, "it was sealed at once"
        await stop(race)
        assert not any(data.glob("sealed/.*.making"))
        await race.turbod.start()
        await race.hours(1)
        await race.check()


async def test_sigterm_while_an_hour_is_uploaded(tmp_path: Path) -> None:
    """A slow upload is given up; the hour waits, and the next start brings it."""
    async with racing(tmp_path, "rclone", options=OPTIONS) as race:
        await race.hours(3)
        await race.stored()
        before = race.place.listing()
        race.proxy.bytes_per_second = 500
        race.proxy.only = "PUT"
        puts = count_puts(race)
        await race.hours(2)
        await until(lambda: count_puts(race) > puts, seconds=10, what="an upload begins")
        await stop(race)
        assert race.place.listing() == before
        assert len(list(race.turbod.data.glob("sealed/[0-9]*.zst"))) == 2
        race.proxy.be_good()
        await race.turbod.start()
        await race.hours(1)
        await race.check()


def count_puts(race: Race) -> int:
    return sum(count for what, count in race.proxy.seen.items() if what.startswith("PUT"))
