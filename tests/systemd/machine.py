"""A booted Debian with a real systemd: commands in it, its units, its journal."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
import trio

REPOSITORY: Final = Path(__file__).parents[2]
BOOT: Final = REPOSITORY / "scripts" / "boot-systemd"
BOOT_SECONDS: Final = 300.0  # the first boot makes the Debian
COMMAND_SECONDS: Final = 90.0
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turbod"
WHEELS: Final = "/wheels"


class Failed(AssertionError):
    """A command did not exit with 0: what it was, and what it said."""


class Machine:
    """A booted container that shares the host's network and processors.

    Attributes:
        root: its root folder, as the host sees it.
        leader: its first process, by the host's number.
    """

    def __init__(self, leader: int, root: Path) -> None:
        self.root = root
        self.leader = leader

    def command(self, words: Sequence[str]) -> list[str]:
        """Return what runs a command in it, from the host."""
        enter = ["nsenter", f"--target={self.leader}"]
        enter += ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--", "env", "-i"]
        variables = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}
        # Where pip finds what it would otherwise fetch for each test.
        variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS, "SYSTEMD_COLORS": "0"}
        return [*enter, *(f"{name}={value}" for name, value in variables.items()), *words]

    def run_now(self, *words: str, check: bool = True) -> str:
        """Run a command to its end, and let nothing else go on; return what it said."""
        done = subprocess.run(
            self.command(words),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
        )
        return _said(words, done, check=check)

    async def run(self, *words: str, check: bool = True) -> str:
        """Run a command to its end; return what it said."""
        with trio.fail_after(COMMAND_SECONDS):
            done = await trio.run_process(
                self.command(words),
                check=False,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
            )
        return _said(words, done, check=check)

    async def show(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit."""
        said = await self.run("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    async def journal(self, unit: str, *, since: str = "") -> list[dict[str, Any]]:
        """Return what a unit's processes and systemd about it said, behind a cursor."""
        await self.run("journalctl", "--sync")
        words = ["journalctl", "--output=json", "--all", "--quiet"]
        # journalctl 252 passes over the first match behind a cursor that is none, so we select.
        said = await self.run(*words, *([f"--after-cursor={since}"] if since else []))
        entries = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return [e for e in entries if unit in {e.get("_SYSTEMD_UNIT"), e.get("UNIT")}]

    async def journal_cursor(self) -> str:
        """Return where the journal ends now."""
        said = await self.run("journalctl", "--quiet", "--lines=0", "--show-cursor")
        return said.partition("-- cursor: ")[2].strip()

    def path(self, inside: str) -> Path:
        """Return a path as the host sees it."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def host_pid(self, inside: int) -> int:
        """Return the number by which the host knows a process."""
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                text = status.read_text()
                numbers = text.partition("\nNSpid:")[2].partition("\n")[0].split()
                if len(numbers) == 2 and int(numbers[1]) == inside and self._is_ours(status.parent):
                    return int(numbers[0])
        raise Failed(f"no process {inside} is in the container")

    def _is_ours(self, process: Path) -> bool:
        ours = (Path("/proc") / str(self.leader) / "ns" / "pid").readlink()
        return (process / "ns" / "pid").readlink() == ours


def _said(words: Sequence[str], done: subprocess.CompletedProcess[bytes], *, check: bool) -> str:
    said = done.stdout.decode(errors="replace")
    if check and done.returncode:
        raise Failed(f"{shlex.join(words)}: exit {done.returncode}\n{said[-3000:]}")
    return said


@contextmanager
def booted() -> Iterator[Machine]:
    """Boot one for as long as the block lasts, or skip and say why that cannot be."""
    if reason := _missing():
        pytest.skip(reason)
    wheels = _wheels()
    with subprocess.Popen(
        [str(BOOT), "--hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            words = process.stdout.readline().split()
            if words[:1] != ["booted"]:
                pytest.fail(f"scripts/boot-systemd did not boot: exit {process.wait()}")
            machine = Machine(int(words[1]), Path(words[2]))
            shutil.copytree(wheels, machine.path(WHEELS))
            yield machine
        finally:
            process.stdin.close()  # which ends it
            process.wait(timeout=60)


def _missing() -> str:
    """Return why no container can be booted here; nothing where one can."""
    if os.geteuid() != 0:
        return "only root can boot a container with systemd"
    tools = ("debootstrap", "systemd-nspawn", "nsenter", "setpriv")
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        packages = "apt-get install debootstrap systemd-container"
        return f"{' and '.join(missing)} missing: {packages}"
    return ""


def _wheels() -> Path:
    """Return a folder with the lock file's packages for the container's Python, fetched once."""
    lock = (REPOSITORY / "requirements.lock").read_bytes()
    folder = CACHE / f"wheels-{hash_of(lock)}"
    if not folder.is_dir():
        making = folder.with_name(f"{folder.name}.{os.getpid()}")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--python-version=3.11"]
        command += [f"--requirement={REPOSITORY / 'requirements.lock'}", f"--dest={making}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(making, ignore_errors=True)
            pytest.skip(f"the packages cannot be fetched: {done.stderr.strip()[-300:]}")
        making.rename(folder)
    return folder


def hash_of(content: bytes) -> str:
    """Return a short name for a content."""
    return sha256(content).hexdigest()[:12]


class Figures:
    """What was measured, for docs/systemd.md: written at the end to the file TURBOD_FIGURES."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}

    def note(self, what: str, figure: str) -> None:
        """Note a figure."""
        self._rows[what] = figure

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long a block took."""
        start = time.monotonic()
        yield
        self.note(what, f"{time.monotonic() - start:.1f} s")

    def write(self, environment: Mapping[str, str]) -> None:
        """Write the rows of the table."""
        if file := environment.get("TURBOD_FIGURES"):
            lines = [f"| {what} | {figure} |" for what, figure in self._rows.items()]
            Path(file).write_text("\n".join(["| what | last run |", "| --- | --- |", *lines, ""]))
