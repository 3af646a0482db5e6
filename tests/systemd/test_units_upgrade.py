"""Another version takes its place, and goes again; one that does not work never does."""

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.process import connected
from tests.acceptance.settling import caught_up, settled, until
from tests.systemd.machine import REPOSITORY, Figures
from tests.systemd.test_units_restart import Hammer
from tests.systemd.unit import INSTALL, SERVICE, SETTINGS, SOCKET, UNINSTALL, Unit, reading
from turbod.simulation.world import simulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NEWER = "/newer"
VERSION = "99.0.0"
PARTS = ("turbod", "systemd", "scripts", "requirements.lock", "pyproject.toml")


@pytest.fixture
async def newer(unit: Unit) -> AsyncIterator[str]:
    """The path of a script that installs a version from the future; it is gone in the end."""
    folder = unit.machine.path(NEWER)
    folder.mkdir()
    for part in PARTS:
        await trio.run_process(["cp", "-R", str(REPOSITORY / part), str(folder)])
    init = folder / "turbod" / "__init__.py"
    init.write_text(re.sub('__version__ = ".*"', f'__version__ = "{VERSION}"', init.read_text()))
    yield f"{NEWER}/scripts/install"
    shutil.rmtree(folder)
    await unit.run("systemctl", "stop", SOCKET, SERVICE, check=False)
    await unit.run(UNINSTALL)  # the next test installs this repository's anew


async def test_an_upgrade_and_the_way_back_lose_nothing(
    unit: Unit, newer: str, figures: Figures
) -> None:
    """Under load, with clients that follow and others that come: as a restart."""
    async with simulated(seed=71) as simulation, trio.open_nursery() as nursery:
        unit.settings(*reading(simulation))
        await unit.start()
        first = await release(unit)
        follower, hammer = Follower(unit.port), Hammer(unit)
        await nursery.start(follower.run)
        await nursery.start(hammer.run)
        await connected(simulation)
        simulation.rate = 50
        await until(lambda: len(follower.lines) > 50, seconds=30, what="events")
        with figures.timed("upgrade under load, packages fetched before"):
            await unit.run(newer)
        assert (await release(unit)).startswith(f"{VERSION}-")
        assert VERSION in await unit.run("/usr/local/bin/turbod", "--version")
        assert {path.name for path in releases(unit)} == {first, await release(unit)}
        with figures.timed("and back"):
            await unit.run(INSTALL, "--back")
        assert await release(unit) == first
        await unit.run(INSTALL, "--back")
        assert (await release(unit)).startswith(f"{VERSION}-"), "back is there and back again"
        simulation.rate = 0
        await caught_up([follower], await settled(simulation, unit.data))
        nursery.cancel_scope.cancel()
    assert set(follower.ends) == {1001}
    assert set(hammer.answers) == {"200"}


async def test_a_version_that_does_not_start_is_taken_back(unit: Unit, newer: str) -> None:
    """The one before runs again, and the script says why."""
    await unit.start()
    first = await release(unit)
    broken = unit.machine.path(f"{NEWER}/turbod/service.py")
    broken.write_text(
        f"{broken.read_text()}\n\nasync def serve(*_):\n    raise MemoryError('no')\n"
    )
    said = await unit.run(newer, check=False)
    assert "MemoryError: no" in said
    assert said.endswith(f"{first} runs, as before\n")
    assert await release(unit) == first
    assert (await unit.get("/readyz"))[0] == 200


async def test_a_version_that_suits_not_is_not_even_tried(unit: Unit, newer: str) -> None:
    """Not the settings, not the data: what runs is not stopped for it."""
    await unit.start()
    first, pid = await release(unit), await unit.main_pid()
    file = unit.machine.path(SETTINGS)
    text = file.read_text()
    file.write_text("wrong = 1\n")
    said = await unit.run(newer, check=False)
    assert "wrong in /etc/turbod/turbod.toml: no such setting" in said
    file.write_text(text)
    await unit.run(newer)
    (unit.data / "format").write_text("999\n")
    pid = await unit.main_pid()
    said = await unit.run(INSTALL, "--back", check=False)
    assert "newer format" in said
    assert said.endswith("nothing was changed\n")
    assert await unit.main_pid() == pid
    assert await release(unit) != first


async def test_a_checkout_that_only_root_may_read_serves_too(unit: Unit, newer: str) -> None:
    """As a clone under umask 077 is: the service's user reads what was installed from it."""
    await unit.run("chmod", "-R", "go=", NEWER)
    await unit.start()
    await unit.run(newer)
    assert (await release(unit)).startswith(f"{VERSION}-")
    assert (await unit.get("/readyz"))[0] == 200


async def release(unit: Unit) -> str:
    """Return the version that runs."""
    return (await unit.run("readlink", "/opt/turbod/current")).strip()


def releases(unit: Unit) -> list[Path]:
    """Return the folders of all versions."""
    return [path for path in unit.machine.path("/opt/turbod").iterdir() if not path.is_symlink()]
