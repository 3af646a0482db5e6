"""From nothing to serving: what the first installation leaves, and that it needs no network."""

import pytest

from tests.systemd.conftest import Installation
from tests.systemd.machine import Figures, Machine
from tests.systemd.unit import INSTALL, NOWHERE, SERVICE, SOCKET, Unit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DOCUMENTED = (
    "/opt/turbod",
    "/usr/local/bin/turbod",
    "/etc/turbod",
    "/etc/systemd/system/turbod.service",
    "/etc/systemd/system/turbod.socket",
    "/etc/systemd/system/multi-user.target.wants/turbod.service",
    "/etc/systemd/system/sockets.target.wants",
    "/var/lib/turbod",
    "/var/lib/private",
)
MOST_EXPOSED = 1.5


def test_one_command_installs_it_and_leaves_nothing_elsewhere(installation: Installation) -> None:
    new = installation.after - installation.before
    assert "/usr/local/bin/turbod" in new
    assert [path for path in new if not path.startswith(DOCUMENTED)] == []
    assert installation.said.startswith("turbod ")
    assert installation.said.endswith(f"http://127.0.0.1:{installation.port}/\n")


async def test_installing_again_changes_nothing_and_stops_nothing(unit: Unit) -> None:
    """Own settings stay, no environment is made anew, the port stays open."""
    unit.settings(*NOWHERE, "# mine")
    await unit.start()
    release = await unit.run("readlink", "/opt/turbod/current")
    made = unit.machine.path(f"/opt/turbod/{release.strip()}/pyvenv.cfg").stat().st_mtime_ns
    socket = await unit.show("ActiveEnterTimestamp", unit=SOCKET)
    said = await unit.run(INSTALL)
    assert "installed already" in said
    assert await unit.run("readlink", "/opt/turbod/current") == release
    again = unit.machine.path(f"/opt/turbod/{release.strip()}/pyvenv.cfg").stat().st_mtime_ns
    assert again == made
    assert unit.machine.path("/etc/turbod/turbod.toml").read_text().endswith("# mine\n")
    assert unit.machine.path("/etc/turbod/turbod.toml.example").is_file()
    assert await unit.show("ActiveEnterTimestamp", unit=SOCKET) == socket
    assert (await unit.get("/readyz"))[0] == 200


async def test_a_dry_run_changes_nothing(unit: Unit) -> None:
    before = await _state(unit)
    said = await unit.run(INSTALL, "--dry-run")
    assert "systemctl restart turbod.service" in said
    said = await unit.run("/turbod/scripts/uninstall", "--dry-run", "--purge")
    assert "rm -rf /opt/turbod" in said
    assert await _state(unit) == before


async def test_it_is_ready_though_bluesky_cannot_be_reached(unit: Unit, figures: Figures) -> None:
    """The manager is told when subscribers can be served, and in words how it is."""
    with figures.timed("start to ready, Bluesky unreachable"):
        await unit.start()
    assert (await unit.get("/readyz"))[0] == 200
    shown = await unit.show("ActiveState", "StatusText", "WatchdogUSec", "NotifyAccess")
    assert shown["ActiveState"] == "active"
    assert shown["StatusText"]
    assert shown["WatchdogUSec"] == "1min"
    assert (await unit.run("/usr/local/bin/turbod", "--version")).startswith("turbod ")


async def test_it_starts_at_boot_and_at_the_first_connection(unit: Unit) -> None:
    said = await unit.run("systemctl", "is-enabled", SERVICE, SOCKET)
    assert said.split() == ["enabled", "enabled"]
    await unit.run("systemctl", "start", SOCKET)
    assert await unit.state() == "dead"
    assert (await unit.get("/healthz"))[0] == 200
    await unit.running()
    await unit.run("systemctl", "stop", SOCKET)
    assert await unit.state() == "dead", "stopping the port stops both"


async def test_it_is_confined(machine: Machine, unit: Unit, figures: Figures) -> None:
    """What systemd says of the exposure, and that its files are its own."""
    await unit.start()
    said = await machine.run("systemd-analyze", "security", "--no-pager", SERVICE)
    score = float(said.rstrip().splitlines()[-1].partition("service: ")[2].split()[0])
    figures.note("exposure by systemd-analyze security", f"{score} of 10")
    assert score <= MOST_EXPOSED
    owner = unit.data.stat().st_uid
    assert 61184 <= owner <= 65519, "a dynamic user"
    for path in unit.data.rglob("*"):
        assert path.stat().st_uid == owner, path
        assert not path.stat().st_mode & 0o077, path


async def _state(unit: Unit) -> str:
    return await unit.run(
        "sh", "-c", "find /opt /etc/turbod /etc/systemd /usr/local -printf '%p %T@\n' | sort"
    )
