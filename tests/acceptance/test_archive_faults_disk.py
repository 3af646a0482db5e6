"""A disk or an archive that is full: hours wait where they are, live goes on, all comes in time."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.archive_faults import Race, racing, stored_lines
from tests.acceptance.follower import cursor_of
from tests.acceptance.plain_scan import line_differences
from tests.acceptance.settling import until
from tests.acceptance.test_disk_full import fill

MANY = 1000  # events of an hour, some 2.7 MB, so that its object may take a quarter of that
LEFT_BYTES = 500_000  # less than that, and enough for live
ROOM_BYTES = 80_000  # of a folder, some four hours

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_disk_too_full_to_seal_leaves_the_hour_plain(
    tmp_path: Path, tiny_disk: Path
) -> None:
    """It is said once, live goes on with the room that is left; with room again it is sealed."""
    async with racing(tmp_path, data=tiny_disk) as race:
        await race.hours(2)
        await race.hours(1, events=MANY)
        fill(tiny_disk, left_bytes=LEFT_BYTES)

        async def says_so() -> bool:
            return "disk full" in str((await race.archive())["sealer"]["fault"])

        await race.hours(2, events=20)
        await until(says_so, seconds=20, what="the sealer says that the disk is full")
        status = await race.archive()
        assert status["sealer"]["waiting"] == 2
        assert (await race.turbod.status())["log"]["fault"] is None
        assert (await race.turbod.get("/readyz"))[0] == 200
        assert "disk full" in (await race.turbod.get("/readyz"))[1].decode()
        assert len(race.told("hour_not_sealed")) == 1
        race.check_kept()
        (tiny_disk / "ballast").unlink()
        await race.check()
        assert len(race.told("sealing_again")) == 1


async def test_a_full_archive_lets_hours_wait(tmp_path: Path) -> None:
    """Nothing in it goes, nothing here goes; a larger bound and a restart bring all there."""
    options = {"archive-max-bytes": ROOM_BYTES}
    async with racing(tmp_path, kept_bytes=1, options=options) as race:
        await race.hours(9)

        async def is_full() -> bool:
            return bool((await race.archiver())["state"] == "full")

        await until(is_full, seconds=20, what="full")
        await race.waits(4)
        status = await race.archiver()
        assert "archive.max_bytes" in status["fault"]
        assert status["hours_left"] < 1
        assert status["stored_bytes"] <= ROOM_BYTES
        assert status["oldest_waiting"] > cursor_of(stored_lines(race.place)[-1])
        race.check_delivered()
        race.check_kept()
        await race.check_history()
        assert len(race.told("archive_full")) == 1
        assert await race.turbod.stop() == 0
        place = race.turbod.command.index("--archive-max-bytes")
        race.turbod.command[place + 1] = "10000000"
        await race.turbod.start()
        await race.check()


async def test_a_full_archive_may_lose_its_oldest(tmp_path: Path) -> None:
    """Where that was chosen: what is left is the newest, and is served from its beginning."""
    options = {"archive-max-bytes": ROOM_BYTES, "archive-when-full": "drop_oldest"}
    async with racing(tmp_path, kept_bytes=1, options=options) as race:
        await race.hours(9)
        await until(lambda: all_stored(race), seconds=30, what="all stored")
        assert (await race.archiver())["stored_bytes"] <= ROOM_BYTES
        assert (await race.archiver())["state"] == "ok"
        race.check_delivered()
        left = stored_lines(race.place)
        assert race.told("archive_hour_dropped")
        late = await race.follow()
        await until(lambda: late.lines[-1:] == race.lines[-1:], seconds=20, what="the end")
        assert late.lines[0] == left[0]
        assert line_differences(race.lines[-len(late.lines) :], late.lines) == ""
        assert not late.gaps
        await race.check_archive()


async def all_stored(race: Race) -> bool:
    newest = max(map(cursor_of, race.lines)) // 3_600_000_000
    archived = [cursor_of(line) // 3_600_000_000 for line in stored_lines(race.place)]
    return archived[-1:] == [newest - 1]
