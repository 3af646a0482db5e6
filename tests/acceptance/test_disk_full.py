"""A full disk: nothing is delivered that is not written, nobody is cut off, it goes on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.plain_scan import logged
from tests.acceptance.process import Turbod, serving
from tests.acceptance.settling import caught_up, settled, until
from turbod.simulation.world import simulated

SIZE = "32m"
LEFT_BYTES = 600_000  # for the log to fill


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, *, left_bytes: int) -> None:
    """Leave so much room and no more."""
    (folder / "ballast").unlink(missing_ok=True)
    disk = os.statvfs(folder)
    size = disk.f_bavail * disk.f_frsize - left_bytes
    (folder / "ballast").write_bytes(bytes(size))


async def fault(turbod: Turbod) -> str:
    """Return what /status says is wrong with the log."""
    return str((await turbod.status())["log"]["fault"] or "")


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_full_disk_stops_delivery_and_nothing_else(small_disk: Path) -> None:
    """Subscribers stay and are told, /status says why; with room again all comes, once."""
    async with (
        simulated(seed=11) as simulation,
        serving(simulation, small_disk) as turbod,
        trio.open_nursery() as nursery,
    ):
        follower, filtered = (
            Follower(turbod.port),
            Follower(turbod.port, extra=[("kinds", "account")]),
        )
        for each in (follower, filtered):
            await nursery.start(each.run)
        simulation.rate = 100
        await until(lambda: len(follower.lines) > 100, seconds=20, what="some events")
        fill(small_disk, left_bytes=LEFT_BYTES)

        async def is_full() -> bool:
            return "disk full" in await fault(turbod)

        await until(is_full, seconds=30, what="the disk is full")
        before = len(follower.lines)
        await until(
            lambda: follower.news[-1]["upstream"] == "stalled", seconds=25, what="told: stalled"
        )
        assert follower.news[-1]["reason"] == "heartbeat"
        assert follower.lines == logged(small_disk)[: len(follower.lines)]
        assert len(follower.lines) - before <= 100
        assert (await turbod.get("/readyz"))[0] == 200
        assert not follower.ends
        (small_disk / "ballast").unlink()
        simulation.rate = 0
        log = await settled(simulation, small_disk)
        await caught_up([follower], log)
        assert not await fault(turbod)
        assert not follower.ends
        assert not filtered.ends
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_start_on_a_full_disk_serves_what_there_is(small_disk: Path) -> None:
    """Killed while the disk is full and started again: it serves, and goes on with room."""
    async with (
        simulated(seed=12) as simulation,
        serving(simulation, small_disk) as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        simulation.rate = 100
        await until(lambda: len(follower.lines) > 100, seconds=20, what="some events")
        fill(small_disk, left_bytes=LEFT_BYTES)

        async def is_full() -> bool:
            return "disk full" in await fault(turbod)

        await until(is_full, seconds=30, what="the disk is full")
        await turbod.kill()
        fill(small_disk, left_bytes=0)
        await turbod.start()
        late = Follower(turbod.port)
        await nursery.start(late.run)
        await until(lambda: late.lines == logged(small_disk), seconds=10, what="what there is")
        await until(is_full, seconds=30, what="the disk is full still")
        (small_disk / "ballast").unlink()
        simulation.rate = 0
        log = await settled(simulation, small_disk)
        await caught_up([follower, late], log)
        nursery.cancel_scope.cancel()
