"""A bucket that is away, slow, refuses or spoils: live goes on, and it clears by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.acceptance.archive_faults import Kind, Race, racing
from tests.acceptance.settling import until
from tests.archive.faulty_s3 import FaultyS3

HOURS = 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def is_failing(race: Race) -> bool:
    return bool((await race.archiver())["state"] == "failing")


async def first_hours(race: Race) -> None:
    """Let two hours be stored while all is well."""
    await race.hours(3)
    await race.stored()


def refuse(proxy: FaultyS3, status: int, code: str) -> None:
    proxy.answer = status, code


FAULTS: dict[str, tuple[Callable[[FaultyS3], None], str]] = {
    "away": (FaultyS3.go_down, "no connection: refused: does the server run?"),
    "failing": (lambda proxy: refuse(proxy, 500, "InternalError"), "the server failed"),
    "busy": (lambda proxy: refuse(proxy, 503, "SlowDown"), "the server is busy (SlowDown)"),
    "refusing": (lambda proxy: refuse(proxy, 403, "AccessDenied"), "no permission"),
    "silent": (lambda proxy: setattr(proxy, "stalls", True), "not done within 5 s"),
    "breaking": (lambda proxy: setattr(proxy, "takes_bytes", 1000), "the connection broke"),
    "damaged": (lambda proxy: refuse(proxy, 400, "BadDigest"), "damaged on their way"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_hours_wait_while_the_bucket_does_not_take_them(tmp_path: Path, fault: str) -> None:
    """Nothing leaves the disk, live goes on, one line says why, and it clears by itself."""
    begin, words = FAULTS[fault]
    async with racing(tmp_path, "rclone", kept_bytes=1) as race:
        await first_hours(race)
        stored = race.place.listing()
        if fault == "breaking":
            race.proxy.only = "PUT"
        begin(race.proxy)
        await race.hours(HOURS)
        await race.waits(HOURS)
        await until(lambda: is_failing(race), seconds=20, what="failing")
        await race.hours(2)  # while it is tried again
        await race.waits(HOURS + 2)
        status = await race.archiver()
        assert words in status["fault"]
        assert status["oldest_waiting"] > 0
        assert words in (await race.turbod.get("/readyz"))[1].decode()
        assert (await race.turbod.get("/readyz"))[0] == 200
        assert race.place.listing() == stored
        race.check_kept()
        race.proxy.be_good()
        race.proxy.come_up()
        await race.check()
        assert 1 <= len(race.told("archive_failing")) <= 4
        assert len(race.told("archive_ok")) == 1
        assert not race.told("archive_conflict")


@pytest.mark.parametrize("kind", ["rclone", "moto"])
@pytest.mark.parametrize("fault", ["loses_answers", "spoils", "ignores_conditions"])
async def test_hours_are_stored_through_a_bucket_that_is_not_true(
    tmp_path: Path, kind: Kind, fault: str
) -> None:
    """Answers lost, stored bytes spoiled, conditions ignored: each hour is there once and whole."""
    async with racing(tmp_path, kind, kept_bytes=1) as race:
        await first_hours(race)
        race.proxy.only = "PUT"
        setattr(race.proxy, fault, True)
        await race.hours(HOURS)
        if fault == "spoils":
            await race.waits(HOURS)
            await until(lambda: is_failing(race), seconds=20, what="failing")
            await trio.sleep(3)  # several attempts
            await race.waits(HOURS)
            race.proxy.be_good()
        await race.check()
        assert len(race.told("archive_failing")) <= HOURS
        assert not race.told("archive_conflict")


async def test_a_slow_bucket_holds_up_nothing(tmp_path: Path) -> None:
    """Uploads take seconds; hours go on, wait, and are all stored in the end."""
    async with racing(tmp_path, "rclone", kept_bytes=1) as race:
        await first_hours(race)
        race.proxy.bytes_per_second = 20_000
        await race.hours(6)
        race.check_kept()
        await race.hours(2)
        race.proxy.bytes_per_second = 0
        await race.check()
        assert not race.told("archive_failing")


@pytest.mark.parametrize("kind", ["rclone", "moto"])
async def test_the_bucket_is_not_there_at_the_start_and_comes_later(
    tmp_path: Path, kind: Kind
) -> None:
    """Live at once, as soon as the wait for what the archive has is over; then all is stored."""
    async with racing(tmp_path, kind) as race:
        await first_hours(race)
        assert await race.turbod.stop() == 0
        race.proxy.go_down()
        await race.turbod.start()
        await race.hours(3)
        await race.waits(3)
        assert "refused" in (await race.archiver())["fault"]
        race.proxy.come_up()
        await race.check()
        assert len(race.told("archive_failing")) == 1
        assert not race.told("archive_conflict")
