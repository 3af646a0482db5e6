"""What scripts/uninstall leaves: data and settings, or nothing."""

import pytest

from tests.systemd.conftest import WATCHED, Installation
from tests.systemd.unit import DATA, SETTINGS, UNINSTALL, Unit, tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEPT = ("/etc/turbod", "/var/lib/turbod", "/var/lib/private", "/etc/systemd/system/turbod.")
EMPTY = "/etc/systemd/system/sockets.target.wants"  # systemctl makes it, and leaves it


async def test_it_keeps_the_data_and_purge_leaves_nothing(
    unit: Unit, installation: Installation
) -> None:
    await unit.start()
    said = await unit.run(UNINSTALL)
    assert "kept: /etc/turbod and /var/lib/turbod" in said
    assert await unit.run("sh", "-c", "command -v turbod || echo gone") == "gone\n"
    left = tree(unit.machine, *WATCHED) - installation.before
    assert SETTINGS in left
    assert f"{DATA}/format" in left
    assert [path for path in left if not path.startswith((*KEPT, EMPTY))] == []
    await unit.run(UNINSTALL)  # once more does no harm
    await unit.run(UNINSTALL, "--purge")
    left = tree(unit.machine, *WATCHED) - installation.before
    assert left <= {EMPTY, "/var/lib/private"}
    with pytest.raises(OSError, match="attempts"):
        await unit.get("/healthz")
