"""A real `turbod serve` in a process of its own, started, asked, killed and started again."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from turbod.simulation.world import Simulation

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 30.0
END_SECONDS = 30.0
COLLECTIONS = (
    "app.bsky.feed.post",
    "app.bsky.feed.like",
    "app.bsky.feed.repost",
    "app.bsky.graph.*",
)
# `turbod` with a clock that is off by the seconds in a file, which may change while it runs.
WRONG_CLOCK = """
import pathlib, sys, time
from turbod import cli, daemon
file = pathlib.Path(sys.argv.pop(1))
daemon.now_us = lambda: time.time_ns() // 1000 + int(float(file.read_text()) * 1_000_000)
cli.main()
"""
# What must not stand in the log, whatever is done to turbod from outside.
OWN_FAULTS = ("Traceback", "connection_failed", "log_damaged", "Warning:")


def free_port() -> int:
    """Return a port that is free now, below those that the kernel gives to connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Turbod:
    """One data folder and one port; at most one process at a time.

    Attributes:
        port: the same for every process.
        starts: how many processes there have been.
        stdin: what the next process has as its standard input.
    """

    def __init__(
        self,
        data: Path,
        *,
        upstreams: Sequence[str],
        appview: str,
        collections: Sequence[str] = COLLECTIONS,
        options: Sequence[str] = (),
        program: Sequence[str] = ("-m", "turbod"),
    ) -> None:
        self.data = data
        self.port = free_port()
        self.starts = 0
        self.stdin = subprocess.DEVNULL
        self._output = data.with_name(f"{data.name}.output")
        self._process: trio.Process | None = None
        lists = [("--upstream", url) for url in upstreams]
        lists += [("--collections", name) for name in collections]
        self.command = [
            *(sys.executable, *program, "serve"),
            *("--listen", f"127.0.0.1:{self.port}", "--data", str(data), "--appview", appview),
            *(word for pair in lists for word in pair),
            *options,
        ]

    @property
    def output(self) -> str:
        """What all processes wrote to standard error."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    @property
    def process(self) -> trio.Process:
        """The process that runs."""
        assert self._process is not None
        return self._process

    async def start(self, *, wait: bool = True) -> None:
        """Start a process, and wait until it can serve."""
        assert self._process is None
        environment = {key: value for key, value in os.environ.items() if key[:7] != "TURBOD_"}
        with self._output.open("ab") as output:
            self._process = await trio.lowlevel.open_process(
                self.command,
                cwd=REPOSITORY,
                env={**environment, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"},
                stdin=self.stdin,
                stdout=output,
                stderr=output,
            )
        self.starts += 1
        if wait:
            await self.ready()

    async def ready(self) -> None:
        """Wait until /readyz says 200."""
        with trio.fail_after(START_SECONDS):
            while True:
                code = self.process.poll()
                assert code is None, f"exit {code}: {self.output[-3000:]}"
                try:
                    if (await self.get("/readyz"))[0] == 200:
                        return
                except OSError:
                    pass
                await trio.sleep(0.02)

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.process.kill()
        await self.ended()

    async def stop(self) -> int:
        """Send SIGTERM, wait for the end, return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end; return the exit code."""
        with trio.fail_after(END_SECONDS):
            code = await self.process.wait()
        self._process = None
        return code

    async def get(self, target: str) -> tuple[int, bytes]:
        """GET a page; return status and body."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            answer = bytearray()
            try:
                await stream.send_all(head.encode())
                async for piece in stream:
                    answer += piece
            except trio.BrokenResourceError as error:
                raise OSError(str(error)) from error
        head_bytes, _, body = bytes(answer).partition(b"\r\n\r\n")
        if not head_bytes:
            raise OSError("no answer")
        return int(head_bytes.split()[1]), body

    async def status(self) -> dict[str, Any]:
        """Return /status."""
        answer: dict[str, Any] = json.loads((await self.get("/status"))[1])
        return answer

    async def resident_bytes(self) -> int:
        """Return the process's memory."""
        pages = await trio.Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(pages.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def clean_up(self) -> None:
        """Kill what still runs."""
        if self._process is not None:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self.ended()

    def check_own_faults(self, *, but: str = "") -> None:
        """Fail where turbod complained about itself, of what was not to be expected."""
        lines = [line for line in self.output.splitlines() if not but or but not in line]
        found = [number for number, line in enumerate(lines) if any(f in line for f in OWN_FAULTS)]
        around = lines[max(found[0] - 5, 0) : found[0] + 40] if found else []
        assert not found, "turbod says:\n" + "\n".join(around)


async def connected(simulation: Simulation) -> None:
    """Wait until every host was asked: what happens before a first connect is not for turbod."""
    with trio.fail_after(START_SECONDS):
        while not all(host.connects for host in simulation.jetstreams):  # noqa: ASYNC110 - no event
            await trio.sleep(0.02)


@asynccontextmanager
async def serving(
    simulation: Simulation,
    data: Path,
    *,
    options: Mapping[str, object] | None = None,
    start: bool = True,
    collections: Sequence[str] = COLLECTIONS,
    program: Sequence[str] = ("-m", "turbod"),
    expected_fault: str = "",
) -> AsyncIterator[Turbod]:
    """Run turbod against a simulation for as long as the block lasts.

    Args:
        simulation: its hosts and its AppView.
        data: the data folder.
        options: settings by the names of their options, such as `hydration-deadline-seconds`.
        start: whether it runs already when the block begins.
        collections: what is logged.
        program: what Python runs.
        expected_fault: a line of the log that would otherwise fail the test.
    """
    turbod = Turbod(
        data,
        upstreams=[host.url for host in simulation.jetstreams],
        appview=simulation.appview.url,
        collections=collections,
        options=[
            word for key, value in (options or {}).items() for word in (f"--{key}", f"{value}")
        ],
        program=program,
    )
    try:
        if start:
            await turbod.start()
            await connected(simulation)
        yield turbod
        turbod.check_own_faults(but=expected_fault)
    except BaseException:
        print(f"---- turbod's last words\n{turbod.output[-6000:]}")  # noqa: T201 - shown by pytest
        raise
    finally:
        await turbod.clean_up()
