"""The command as a person meets it: exit codes, and one line a mistake."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from turbod import cli, config, log_output, service
from turbod.start import CannotStart


def ended(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, list[str]]:
    """Run the command; return its exit code and what it said on standard error."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return caught.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["serv"], "choose from"),
        (
            ["serve", "--listn", "a:1"],
            "turbod serve: --listn: no such option; did you mean --listen?",
        ),
        (["serve", "--listn=a:1"], "turbod serve: --listn: no such option"),
        (["serve", "extra"], "turbod serve: extra: no such option"),
        (["serve", "--hydration-calls", "5"], "did you mean --hydration-"),
        (["serve", "--listen", "a:99999"], "expected HOST:PORT"),
        (["serve", "--listen"], "--listen: expected one argument"),
        (["tail"], "required: URL"),
        (["tail", "ws://a", "--cursr", "5"], "turbod tail: --cursr: no such option"),
        (["simulate", "--rate", "x"], "--rate: was 'x': expected a number of 0 or more"),
        (["simulate", "--failures", "2"], "was '2': expected a number from 0 to 1"),
        (["simulate", "--hosts", "99"], "from 1 to 8"),
    ],
)
def test_a_wrong_option_is_one_line_that_helps_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = ended(arguments, capsys)
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [["--listn", "a:1"], ["--listen"], ["--log-level", "loud"], ["--config", "/does/not/exist"]],
)
def test_in_the_journal_a_wrong_option_is_an_error(arguments: list[str], tmp_path: Path) -> None:
    """Who asks it for errors finds why the service does not start (sd-daemon(3))."""
    with (tmp_path / "stream").open("wb") as stream:
        status = os.fstat(stream.fileno())
        ended = subprocess.run(
            [sys.executable, "-m", "turbod", "serve", *arguments],
            check=False,
            stderr=stream,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
        )
    assert ended.returncode == 2
    (line,) = (tmp_path / "stream").read_text().splitlines()
    assert line.startswith("<3>turbod")


@pytest.mark.parametrize("spelling", [["--cursor", "-15m"], ["--cursor=-15m"]])
def test_a_cursor_before_now_may_stand_behind_a_space(spelling: list[str]) -> None:
    assert cli._options(["tail", "ws://a", *spelling]).cursor == "-15m"
    assert cli._options(["tail", *spelling, "ws://a"]).cursor == "-15m"


@pytest.fixture
def _no_settings_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the log and the garbage collector of the tests' own process as they are."""
    monkeypatch.setattr(log_output, "for_daemon", lambda *_: None)
    monkeypatch.setattr(cli, "_collect_garbage_seldom", lambda: None)


@pytest.mark.usefixtures("_no_settings_of_the_process")
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CannotStart("the port is in use", retry=True), 1, ["turbod: the port is in use"]),
        (CannotStart("no folder", retry=False), 78, ["turbod: no folder"]),
        (config.ConfigError("--x was 'y'"), 2, ["turbod: --x was 'y'"]),
        (KeyboardInterrupt(), 130, []),
    ],
)
@pytest.mark.parametrize("depth", [0, 2])
def test_what_keeps_it_from_running_is_one_line_however_deep_it_was_raised(
    error: BaseException,
    code: int,
    words: list[str],
    depth: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(depth):
        error = BaseExceptionGroup("nursery", [error])

    async def fail(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(service, "serve", fail)
    assert ended(["serve"], capsys) == (code, words)


@pytest.mark.usefixtures("_no_settings_of_the_process")
def test_our_own_mistake_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise AssertionError("broken invariant")

    monkeypatch.setattr(service, "serve", fail)
    with pytest.raises(AssertionError, match="broken invariant"):
        cli.main(["serve"])


def test_help_and_version_are_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["--version"], ["serve", "--help"], ["tail", "--help"]):
        assert ended(arguments, capsys) == (0, [])


@pytest.mark.parametrize("command", [["tail", "ws://127.0.0.1:9"], ["simulate"]])
def test_ctrl_c_ends_a_command_without_a_word(command: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "turbod", *command],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out = process.stderr if command[0] == "tail" else process.stdout
    assert out is not None
    assert out.readline()  # it runs
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in {0, 130}
    assert "Traceback" not in errors
