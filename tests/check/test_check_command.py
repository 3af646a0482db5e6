"""The command `turbod check`, in a process of its own, beside a running turbod and without one."""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import trio

from tests.acceptance.process import REPOSITORY, free_port, serving
from turbod import cli
from turbod.check import command
from turbod.check.command import Look, look_at_all
from turbod.check.finding import Finding, ok
from turbod.config import Settings
from turbod.simulation.world import Simulation, simulated


async def check(*options: str) -> tuple[int, list[str], str]:
    """Run it; return its exit code, its lines, and what it said on standard error."""
    environment = {name: each for name, each in os.environ.items() if name[:7] != "TURBOD_"}
    done = await trio.run_process(
        [sys.executable, "-W", "error", "-m", "turbod", "check", *options],
        cwd=REPOSITORY,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def options_for(simulation: Simulation, data: Path, port: int) -> list[str]:
    upstream = [word for host in simulation.jetstreams for word in ("--upstream", host.url)]
    where = ["--data", str(data), "--listen", f"127.0.0.1:{port}"]
    return [*upstream, "--appview", simulation.appview.url, *where]


def names(lines: Sequence[str]) -> list[str]:
    return [line.split()[1] for line in lines[:-1]]


async def test_where_all_is_well_it_says_so_exits_0_and_leaves_nothing(tmp_path: Path) -> None:
    async with simulated(rate=100) as simulation:
        code, lines, complaint = await check(
            *options_for(simulation, tmp_path / "data", free_port())
        )
    assert (code, complaint) == (0, ""), lines
    assert lines[-1].startswith("turbod serve would work: 0 faults")
    assert [name for name in names(lines) if name != "settings"] == [
        *("data", "disk", "files", "memory", "port", "tokens", "clock"),
        *("upstream", "upstream", "appview", "archive"),
    ]
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - in an async function, and quick


async def test_beside_a_running_turbod_it_says_so_and_does_not_disturb_it(tmp_path: Path) -> None:
    async with (
        simulated(rate=100) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
    ):
        hosts = [host.connects[:] for host in simulation.jetstreams]
        code, lines, _ = await check(*options_for(simulation, turbod.data, turbod.port))
        assert code == 0, lines
        assert any("in use by a running turbod" in line for line in lines)
        assert any("the running turbod" in line for line in lines if "port" in line)
        assert any("ours" in line for line in lines if "archive" in line)
        for host, before in zip(simulation.jetstreams, hosts, strict=True):
            assert len(host.connects) == len(before) + 1  # ours
        assert (await turbod.get("/readyz"))[0] == 200
        assert await turbod.stop() == 0


async def test_a_running_turbod_that_asks_for_tokens_is_known_without_one(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f'[alice]\nsha256 = "{"ab" * 32}"\n')
    async with (
        simulated(rate=100) as simulation,
        serving(simulation, tmp_path / "data", options={"server-tokens": file}) as turbod,
    ):
        options = options_for(simulation, turbod.data, turbod.port)
        code, lines, _ = await check(*options, "--server-tokens", str(file))
        assert code == 0, lines
        assert any("the running turbod answers" in line for line in lines)
        assert any("1 may connect" in line for line in lines)


async def test_a_fault_is_exit_1_and_in_json_an_object_a_line(tmp_path: Path) -> None:
    async with simulated(rate=100) as simulation:
        options = options_for(simulation, tmp_path / "data", free_port())
        code, lines, _ = await check(
            *options, "--appview", f"http://127.0.0.1:{free_port()}", "--json"
        )
    assert code == 1
    findings = [msgspec.json.decode(line, type=Finding) for line in lines]
    assert [each.check for each in findings if each.mark == "fault"] == ["appview"]
    assert all(each.todo for each in findings if each.mark != "ok")


async def test_a_wrong_setting_is_exit_2_and_one_line() -> None:
    code, lines, complaint = await check("--listen", "a:99999")
    assert (code, lines) == (2, [])
    assert complaint.count("\n") == 1
    code, _, complaint = await check("--listn", "a:1")
    assert code == 2
    assert "did you mean --listen?" in complaint


async def test_whoever_reads_the_first_line_only_gets_no_traceback(tmp_path: Path) -> None:
    async with simulated(rate=100) as simulation:
        options = options_for(simulation, tmp_path / "data", free_port())
        command_line = [sys.executable, "-m", "turbod", "check", *options]
        done = await trio.run_process(
            ["sh", "-c", '"$@" | head -1', "sh", *command_line],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_stdout=True,
            capture_stderr=True,
        )
    assert done.stdout.count(b"\n") == 1
    assert not done.stderr


def test_help_names_the_settings_without_a_page_of_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["check", "--help"])
    told = capsys.readouterr().out
    assert told.startswith("usage: turbod check [--help] [--json] [--config FILE]")
    assert "--hydration-calls-per-second" in told


async def test_all_looks_are_at_once_each_has_its_time_and_they_are_told_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(_: Settings) -> list[Finding]:
        await trio.sleep(8)
        return [ok("slow", "")]

    async def hangs(_: Settings) -> list[Finding]:
        await trio.sleep_forever()
        raise AssertionError

    async def quick(_: Settings) -> list[Finding]:
        await trio.lowlevel.checkpoint()
        return [ok("quick", ""), ok("quick", "")]

    told: list[Finding] = []
    looks = (Look("slow", slow), Look("hangs", hangs), Look("quick", quick))
    await look_at_all(Settings(), told.append, looks)
    assert [each.check for each in told] == ["slow", "hangs", "quick", "quick"]
    assert told[1].mark == "fault"
    assert autojump_clock.current_time() < command.LIMIT_SECONDS + 1


async def test_what_is_not_for_this_user_to_see_is_a_fault_and_ends_nothing(
    tmp_path: Path,
) -> None:
    """As an ordinary user's look at the data of an installed turbod."""

    async def forbidden(_: Settings) -> list[Finding]:
        await trio.lowlevel.checkpoint()
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    async def after(_: Settings) -> list[Finding]:
        await trio.lowlevel.checkpoint()
        return [ok("after", "")]

    told: list[Finding] = []
    await look_at_all(Settings(), told.append, (Look("forbidden", forbidden), Look("after", after)))
    assert [(each.check, each.mark) for each in told] == [("forbidden", "fault"), ("after", "ok")]
    assert told[0].found == f"{tmp_path}: Permission denied"
