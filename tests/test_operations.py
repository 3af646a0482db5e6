"""docs/operations.md is true: its commands run, and whatever ends a start stands there."""

import ast
import os
import re
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import pytest
import trio

from tests.acceptance.process import REPOSITORY, Turbod, serving
from turbod import start
from turbod.simulation.world import simulated
from turbod.status.told import AppView, Archiver, Cache, History, Log, Sealer, Told
from turbod.status.words import faults

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
UNIT = (REPOSITORY / "systemd" / "turbod.service").read_text()
COMMAND = (REPOSITORY / "systemd" / "turbod").read_text()
WORDS = " ".join(PAGE.split())
MOST_LINES = 250
# What `serve` reads before it serves; the other commands' own mistakes are not the operator's.
MODULES = ("config.py", "daemon.py", "data_folder.py", "listeners.py", "service.py", "systemd.py")
REFUSALS = frozenset({"CannotStart", "_wrong_socket"})
SHORTEST = 8  # of a text between two values, to say anything


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each refusal that a module raises: who makes it, and its text with gaps as NUL."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            text = node.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            constants = (p.value if isinstance(p, ast.Constant) else "\0" for p in parts)
            yield node.func.id, "".join(map(str, constants))


def test_whatever_ends_a_start_stands_there() -> None:
    """Each piece of each text that is no value."""
    seen = 0
    for module in [REPOSITORY / "turbod" / name for name in MODULES]:
        for name, text in texts(module):
            if name in REFUSALS or (name == "ConfigError" and module.name == "config.py"):
                pieces = [each.strip(" :;") for each in text.split("\0")]
                assert [p for p in pieces if len(p) >= SHORTEST and p not in WORDS] == [], text
                seen += 1
    assert seen > 10


def test_every_refusal_is_in_a_module_that_is_looked_at() -> None:
    for path in (REPOSITORY / "turbod").rglob("*.py"):
        if any(name in REFUSALS for name, _ in texts(path)):
            assert path.name in MODULES, path


def test_exit_codes_are_those_of_the_code_and_of_the_unit() -> None:
    codes = re.findall(r"(?m)^\| (\d+) \| [a-z]", PAGE)
    assert codes == ["0", str(start.FAILED), str(start.WRONG_SETTING), str(start.WRONG_PLACE)]
    [prevented] = re.findall(r"(?m)^RestartPreventExitStatus=(.*)$", UNIT)
    assert prevented.split()[:2] == ["2", "CONFIG"]
    assert "RestartSec=5s" in UNIT


def test_every_sign_is_one_that_status_gives() -> None:
    told = Told(
        upstream="stalled",
        log=Log(fault="f"),
        cache=Cache(fault="f"),
        appview=AppView(down=True),
        sealer=Sealer(fault="f"),
        archiver=Archiver(state="failing", hours_left=1.0),
        history=History(fault="f"),
    )
    named = set(re.findall(r"`! (\w+)", PAGE.partition("## Runbook")[2]))
    assert named == {name for name, _ in faults(told)}


def test_it_is_short() -> None:
    assert len(PAGE.splitlines()) <= MOST_LINES


def test_a_check_sees_what_the_unit_gives() -> None:
    """Its user, its data folder, its credentials, its number of files."""
    given = re.findall(r"-p ([A-Z]\S+)", COMMAND)
    assert len(given) == COMMAND.count(" -p ")
    assert [line for line in given if line not in UNIT.splitlines()] == []
    [keys] = re.findall(r"AWS_SHARED_CREDENTIALS_FILE=%d/(\w+)", UNIT)
    assert f"AWS_SHARED_CREDENTIALS_FILE=/run/credentials/turbod-check.service/{keys}" in COMMAND


def test_a_dry_run_of_the_installation_names_what_the_page_names() -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts" / "install", "--dry-run"],
        env=os.environ | {"PYTHON": "/usr/bin/python3"},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(done.stderr.strip())
    for path in ("/opt/turbod", "/usr/local/bin/turbod", "/etc/turbod/turbod.toml"):
        assert f"`{path}`" in PAGE
        assert path in done.stdout


def block(word: str) -> str:
    """Return the page's one block for a shell that has a word in it."""
    [found] = [each for each in re.findall(r"(?ms)^```sh\n(.*?)^```", PAGE) if word in each]
    return str(found)


class Place:
    """A machine of which systemd, its paths and its mail are only played; turbod is real."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self.etc.mkdir()
        (folder / "bin").mkdir()
        self.command("turbod", self.here(COMMAND))
        self.command("id", "echo 0")
        self.command("mail", f"cat >{folder}/mail")
        # `-p` is systemd's matter; `-E` is the environment.
        self.command(
            "systemd-run",
            'while :; do case $1 in -p) shift 2;; -E) export "$2"; shift 2;; -*) shift;; '
            '*) exec "$@";; esac; done',
        )

    def command(self, name: str, script: str) -> None:
        """Make a command."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def here(self, script: str) -> str:
        """Return lines of a shell with the machine's paths as they are here."""
        for there, here in {
            "/etc/turbod": str(self.etc),
            "/var/lib/turbod": str(self.folder / "data"),
            "/opt/turbod/current/bin/python": sys.executable,
        }.items():
            script = script.replace(there, here)
        return script

    async def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        """Run lines of a shell, with the machine's paths as they are here."""
        script = self.here(script)
        kept = {name: each for name, each in os.environ.items() if name[:7] != "TURBOD_"}
        paths = {"PATH": f"{self.folder / 'bin'}:{kept['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        return await trio.run_process(
            ["sh", "-c", script],
            cwd=self.folder,
            env=kept | paths | variables,
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """As the page has it."""
    return Place(tmp_path)


async def test_a_check_a_token_and_the_cron_job(place: Place) -> None:
    """The blocks as they stand there, beside a real turbod."""
    file = place.etc / "turbod.toml"
    file.write_text("")
    async with (
        simulated(rate=50) as simulation,
        serving(simulation, place.folder / "data", options={"config": file}) as turbod,
    ):
        hosts = ", ".join(f'"{host.url}"' for host in simulation.jetstreams)
        port = f"127.0.0.1:{turbod.port}"
        appview = simulation.appview.url
        settings = f'listen = "{port}"\nappview = "{appview}"\nupstream = [{hosts}]\n'
        file.write_text(settings)
        checked = await place.run(block("turbod check"))
        assert checked.stdout.splitlines()[-1].startswith(b"turbod serve would work"), checked
        assert checked.returncode == 0

        cron = partial(place.run, block("mail").replace("127.0.0.1:8080", port))
        await until_silent(cron, place)
        file.write_text(f'{settings}[server]\ntokens = "{place.etc}/tokens"\n')
        place.command("systemctl", f"kill -HUP {turbod.process.pid}")
        make, _, ask = block("turbod token").partition("TURBOD_TOKEN=turbod_...")
        made = await place.run(make)
        token = made.stderr.decode().split()[-1]
        await told_apart(turbod, place, ask, token)
        assert (await cron()).returncode == 0, "the mail was sent"
        assert (place.folder / "mail").exists()


async def until_silent(cron: Callable[[], Awaitable[object]], place: Place) -> None:
    """Wait until the job finds nothing to tell."""
    with trio.fail_after(30):
        while True:
            (place.folder / "mail").unlink(missing_ok=True)
            await cron()
            if not (place.folder / "mail").exists():
                return


async def told_apart(turbod: Turbod, place: Place, ask: str, token: str) -> None:
    """Wait until nobody is answered without the token, and whoever has it is."""
    with trio.fail_after(30):
        while not await is_refused(turbod):  # noqa: ASYNC110 - no event
            await trio.sleep(0.1)
    variables = {"TURBOD_CONFIG": str(place.etc / "turbod.toml")}
    assert (await place.run(ask, **variables)).returncode == 1
    answer = await place.run(ask, **variables, TURBOD_TOKEN=token)
    assert answer.returncode in {0, 3}, answer


async def is_refused(turbod: Turbod) -> bool:
    """Tell whether who has no token gets no answer; the reload itself may break one off."""
    try:
        return (await turbod.get("/status"))[0] == HTTPStatus.UNAUTHORIZED
    except OSError:
        return False


async def test_what_is_to_be_watched_is_there(tmp_path: Path) -> None:
    async with simulated(rate=20) as simulation, serving(simulation, tmp_path / "d") as turbod:
        _, body = await turbod.get("/metrics")
        metrics = body.decode()
        report = "".join(path.read_text() for path in REPOSITORY.glob("turbod/report/*.py"))
        for name in re.findall(r"`(turbod_\w+)", PAGE):
            # What is not known yet has no line.
            assert f"\n{name}" in metrics or f'"{name}"' in report, name
        for path in ("/healthz", "/readyz"):
            assert (await turbod.get(path))[0] == 200
