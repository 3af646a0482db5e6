"""What these tests share: one booted machine, in which turbod was installed once."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.acceptance.process import free_port
from tests.systemd.machine import Figures, Machine, booted
from tests.systemd.unit import INSTALL, Unit, tree

# What a package manager or systemd itself writes all the time is not looked at.
WATCHED = (
    "/etc",
    "/opt",
    "/root",
    "/home",
    "/srv",
    "/usr/local",
    "/var/lib",
    "/var/cache",
    "/var/spool",
)


class Installation:
    """The first installation, on a machine that never had one.

    Attributes:
        before: every file below `WATCHED` before it.
        after: and after it.
        said: what it printed.
        port: where it is served; what it reads is nowhere.
    """

    def __init__(self, machine: Machine, figures: Figures) -> None:
        self.port = free_port()
        _change(machine, "socket", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{self.port}")
        away = "TURBOD_UPSTREAM=ws://127.0.0.1:9/subscribe TURBOD_APPVIEW=http://127.0.0.1:9"
        _change(machine, "service", f"[Service]\nEnvironment={away}")
        self.before = tree(machine, *WATCHED)
        with figures.timed("install, packages fetched before"):
            self.said = machine.run_now(INSTALL)
        self.after = tree(machine, *WATCHED)


def _change(machine: Machine, kind: str, text: str) -> None:
    machine.write(f"/etc/systemd/system/turbod.{kind}.d/first.conf", f"{text}\n")


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    """What was measured; see TURBOD_FIGURES in CONTRIBUTING.md."""
    measured = Figures()
    yield measured
    measured.write(os.environ)


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A booted Debian; tests skip where there can be none."""
    with booted() as one:
        yield one


@pytest.fixture(scope="session")
def installation(machine: Machine, figures: Figures) -> Installation:
    """The first installation."""
    return Installation(machine, figures)


@pytest.fixture
async def unit(
    machine: Machine,
    installation: Installation,  # noqa: ARG001 - it is to be there
) -> AsyncIterator[Unit]:
    """turbod.service, installed, stopped, as new."""
    one = Unit(machine)
    await one.begin_anew()
    if not machine.path("/opt/turbod/current").is_symlink():
        await machine.run(INSTALL)
        await one.begin_anew()
    since = await machine.journal_cursor()
    yield one
    print("---- its last words", *(await one.words(since=since))[-30:], sep="\n")  # noqa: T201
    await one.run("systemctl", "stop", "turbod.socket", "turbod.service", check=False)
