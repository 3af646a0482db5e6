"""turbod.service in a booted machine: its settings, its state, its port."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from tests.acceptance.process import COLLECTIONS, free_port
from tests.acceptance.settling import until
from tests.systemd.machine import Machine
from turbod.simulation.world import Simulation

SERVICE: Final = "turbod.service"
SOCKET: Final = "turbod.socket"
INSTALL: Final = "/turbod/scripts/install"
UNINSTALL: Final = "/turbod/scripts/uninstall"
SETTINGS: Final = "/etc/turbod/turbod.toml"
DATA: Final = "/var/lib/private/turbod"
NOWHERE: Final = ('upstream = ["ws://127.0.0.1:9/subscribe"]', 'appview = "http://127.0.0.1:9"')
READY_SECONDS: Final = 30.0
_OF_US: Final = ("turbod.service.d", "turbod.socket.d")


class Unit:
    """turbod as it was installed, on a port that nobody else has.

    Attributes:
        machine: where.
        port: on loopback, which the machine shares with us.
        data: its data folder, as we see it.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.port = free_port()
        self.data = machine.path(DATA)

    async def begin_anew(self) -> None:
        """Stop it, and leave nothing of whoever used it before: no data, no settings of his."""
        await self.run("systemctl", "stop", SOCKET, SERVICE, check=False)
        await self.run("umount", "--lazy", "--quiet", DATA, check=False)
        names = [f"/etc/systemd/system/{name}" for name in _OF_US]
        await self.run("rm", "-rf", "/etc/turbod", DATA, "/var/lib/turbod", *names)
        await self.run("mkdir", "-p", "/etc/turbod/credentials")
        await self.run("chmod", "700", "/etc/turbod/credentials")
        address = f"127.0.0.1:{self.port}"
        await self.change_unit(SOCKET, "Socket", f"ListenStream=\nListenStream={address}")
        await self.run("systemctl", "reset-failed", "turbod.*", check=False)
        self.settings(*NOWHERE)

    async def change_unit(self, unit: str, section: str, lines: str) -> None:
        """Change a unit as `systemctl edit` does."""
        folder = f"/etc/systemd/system/{unit}.d"
        name = f"{section.lower()}-{lines.partition('=')[0].lower()}.conf"
        self.machine.write(f"{folder}/{name}", f"[{section}]\n{lines}\n")
        await self.run("systemctl", "daemon-reload")

    def settings(self, *lines: str) -> None:
        """Write its settings file."""
        self.machine.write(SETTINGS, "\n".join([*lines, ""]))

    async def run(self, *words: str, check: bool = True) -> str:
        """Run a command in the machine."""
        return await self.machine.run(*words, check=check)

    async def start(self) -> None:
        """Start port and service; come back when systemd knows that it is ready."""
        await self.run("systemctl", "start", SOCKET, SERVICE)

    async def show(self, *names: str, unit: str = SERVICE) -> dict[str, str]:
        """Return properties of a unit."""
        return await self.machine.show(unit, *names)

    async def state(self) -> str:
        """Return what it does, such as running, failed or auto-restart."""
        return (await self.show("SubState"))["SubState"]

    async def running(self) -> None:
        """Wait until it runs and is ready."""
        await until(self._is_running, seconds=READY_SECONDS, what=f"{SERVICE} runs")

    async def _is_running(self) -> bool:
        return await self.state() == "running"

    async def main_pid(self) -> int:
        """Return its process, by the machine's number."""
        return int((await self.show("MainPID"))["MainPID"])

    async def restarts(self) -> int:
        """Return how often systemd started it again by itself."""
        return int((await self.show("NRestarts"))["NRestarts"])

    async def journal(self, *, since: str = "") -> list[dict[str, Any]]:
        """Return what it and systemd said."""
        return await self.machine.journal(SERVICE, since=since)

    async def words(self, *, since: str = "") -> list[str]:
        """Return what its processes said, a line each."""
        entries = await self.journal(since=since)
        return [str(e["MESSAGE"]) for e in entries if e.get("SYSLOG_IDENTIFIER") == "turbod"]

    async def get(self, target: str, *, headers: Sequence[str] = ()) -> tuple[int, bytes]:
        """GET a page; return status and body.

        Raises:
            OSError: there was no answer.
        """
        lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        answer = bytearray()
        async with stream:
            try:
                await stream.send_all("\r\n".join([*lines, "", ""]).encode())
                async for piece in stream:
                    answer += piece
            except trio.BrokenResourceError as error:
                raise OSError(str(error)) from error
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        if not head:
            raise OSError("closed without an answer")
        return int(head.split()[1]), body

    async def status(self) -> dict[str, Any]:
        """Return /status."""
        answer: dict[str, Any] = json.loads((await self.get("/status"))[1])
        return answer


def reading(
    simulation: Simulation, *more: str, general: Mapping[str, object] | None = None
) -> list[str]:
    """Return settings that let turbod read a simulation; `more` are the lines of sections."""
    values: dict[str, object] = {
        "upstream": [host.url for host in simulation.jetstreams],
        "appview": simulation.appview.url,
        "collections": list(COLLECTIONS),
        **(general or {}),
    }
    return [*(f"{key} = {json.dumps(value)}" for key, value in values.items()), *more]


def tree(machine: Machine, *folders: str) -> set[str]:
    """Return every file and folder below some, as the machine names them."""
    found = set()
    for folder in folders:
        for path in machine.path(folder).rglob("*"):
            found.add("/" + str(Path(path).relative_to(machine.root)))
    return found
