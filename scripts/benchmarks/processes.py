"""The processes of a measurement: helpers that are asked in JSON lines, and turbod itself."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.figures import say

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 20.0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads, user and system (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def kernel_seconds(pid: int) -> float:
    """Return the part of `cpu_seconds` that the kernel took: sockets, disk."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[12]) / _TICKS


def resident_bytes(pid: int) -> int:
    """Return the memory of a process (proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def highest_resident_bytes(pid: int) -> int:
    """Return the most memory that a process ever had."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found, "Linux tells this of every process that lives"
    return int(found[1]) * 1024


def until(what: str, condition: Callable[[], bool], *, seconds: float, every: float = 0.05) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: where it does not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


class Helper:
    """A module of this package in a process of its own: one JSON line in, one out."""

    def __init__(self, module: str, **arguments: object) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", f"benchmarks.{module}", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        self.started = self.answer()

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Have something done, and return what it says."""
        self.tell(do, **arguments)
        return self.answer()

    def tell(self, do: str, **arguments: object) -> None:
        """Have something done that takes a while; `answer` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do} | arguments).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for what it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class Turbod:
    """A real `turbod serve`, on its defaults but for what is given."""

    def __init__(
        self,
        folder: Path,
        *,
        upstream: str,
        appview: str,
        settings: Mapping[str, object] | None = None,
        profile: bool = False,
        hook: bool = False,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        options = {
            "listen": f"127.0.0.1:{self.port}",
            "data": folder / "data",
            "upstream": upstream,
            "appview": appview,
            **(settings or {}),
        }
        self.profile_path = folder / "profile.json" if profile and not hook else None
        self.waits_path = folder / "waits.json"
        module = ["turbod"]
        if hook:
            module = ["benchmarks.hooked", str(self.waits_path)]
        elif profile:
            module = ["benchmarks.sampled", str(self.profile_path)]
        self._command = [sys.executable, "-m", *module, "serve"]
        for name, value in options.items():
            for each in value if isinstance(value, tuple) else (value,):
                self._command += [f"--{name}", str(each)]
        self._said = (folder / "turbod.log").open("ab")
        self.start()
        until("turbod reads", self._is_reading, seconds=START_SECONDS)

    def start(self) -> None:
        """Start it, or start it again, and wait until it takes subscribers."""
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            self._command, stdout=self._said, stderr=self._said
        )
        self.pid = self._process.pid
        until("turbod ready", self._is_ready, seconds=START_SECONDS)

    def stop(self) -> float:
        """End it in good order; return how long that took."""
        begun = time.monotonic()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code:
            raise RuntimeError(f"turbod ended with {code}: {self.words()}")
        return time.monotonic() - begun

    def status(self) -> dict[str, Any]:
        """Return what `/status` says."""
        found: dict[str, Any] = json.loads(self._get("/status")[1])
        return found

    def cpu_seconds(self) -> float:
        """Return its CPU time, all threads."""
        return cpu_seconds(self.pid)

    def words(self) -> str:
        """Return the end of what it logged."""
        return (self.folder / "turbod.log").read_text(encoding="utf-8")[-2000:]

    def log_bytes(self) -> int:
        """Return the size of the log's files."""
        files = (self.folder / "data" / "live").iterdir()
        return sum(file.stat().st_size for file in files)

    def lines(self) -> list[bytes]:
        """Return all records on disk, in order."""
        files = sorted((self.folder / "data" / "live").glob("*.jsonl"))
        return [line for file in files for line in file.read_bytes().splitlines()]

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"turbod ended with {self._process.returncode}: {self.words()}")
        try:
            return self._get("/readyz")[0] == HTTPStatus.OK
        except OSError:
            return False

    def _is_reading(self) -> bool:
        return any(host["connects"] for host in self.status()["hosts"])

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()
        if kind is not None:
            say(f"turbod's last words:\n{self.words()}")
