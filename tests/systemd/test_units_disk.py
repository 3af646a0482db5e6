"""A full state directory: it stays, says so, and goes on with room."""

import json
import os

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.process import connected
from tests.acceptance.settling import caught_up, settled, until
from tests.systemd.unit import DATA, SERVICE, Unit, reading
from turbod.simulation.world import simulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SIZE = "32m"
LEFT_BYTES = 600_000
WATCHDOG_SECONDS = 2
FULL_SECONDS = 12.0


async def test_a_full_disk_is_no_reason_to_be_restarted(unit: Unit) -> None:
    """For many of its watchdog's periods; systemctl says what is wrong; then all comes, once."""
    await unit.run("mkdir", "-p", DATA)
    await unit.run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", DATA)
    await unit.change_unit(SERVICE, "Service", f"WatchdogSec={WATCHDOG_SECONDS}s")
    async with simulated(seed=41) as simulation, trio.open_nursery() as nursery:
        unit.settings(*reading(simulation))
        await unit.start()
        follower = Follower(unit.port)
        await nursery.start(follower.run)
        await connected(simulation)
        simulation.rate = 100
        await until(lambda: len(follower.lines) > 100, seconds=30, what="events")
        data = f"/proc/{unit.machine.leader}/root{DATA}"
        disk = os.statvfs(data)
        size = disk.f_bavail * disk.f_frsize - LEFT_BYTES
        await unit.run("sh", "-c", f"head -c {size} /dev/zero >{DATA}/ballast")

        async def is_told() -> bool:
            return "disk full" in (await unit.show("StatusText"))["StatusText"].lower()

        await until(is_told, seconds=40, what="systemctl status says that the disk is full")
        await trio.sleep(FULL_SECONDS)
        assert await unit.restarts() == 0
        assert (await unit.get("/readyz"))[0] == 200
        await unit.run("rm", f"{DATA}/ballast")
        simulation.rate = 0
        unit.data = type(unit.data)(data)
        await caught_up([follower], await settled(simulation, unit.data))
        assert not follower.ends
        assert await unit.restarts() == 0
        nursery.cancel_scope.cancel()


async def test_the_archive_may_have_a_disk_of_its_own(unit: Unit) -> None:
    """Mounted where the folder is, and given to whom the data belongs."""
    archive = f"{DATA}/archive"
    await unit.start()
    await unit.run("systemctl", "stop", "turbod.socket")
    await unit.run("mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", archive)
    try:
        await unit.run("chown", f"--reference={DATA}", archive)
        await unit.start()
        assert json.loads((await unit.get("/readyz"))[1])["archive"] == "ok"
        assert (await unit.run("ls", "-A", archive)).split()
        await unit.run("systemctl", "stop", "turbod.socket")
    finally:
        await unit.run("umount", "--lazy", archive)
