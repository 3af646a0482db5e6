"""`turbod simulate`: what it prints, how it stops, faults by name."""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from turbod.simulation import command
from turbod.simulation.control import SWITCHES, NoSuchFault
from turbod.simulation.control import command as control
from turbod.simulation.questions import PROFILES
from turbod.simulation.world import simulated

PROGRAM = """
import argparse, trio
from turbod.simulation import command
parser = argparse.ArgumentParser()
command.add_arguments(parser)
trio.run(command.run, parser.parse_args())
"""
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def running(*options: str) -> AsyncIterator[tuple[trio.Process, list[str]]]:
    """Start the command; give it and its first lines, up to the `turbod serve` line."""
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, stdout=subprocess.PIPE, check=False, cwd=ROOT, env={**os.environ}
        )
        process = await nursery.start(start, [sys.executable, "-c", PROGRAM, *options])
        text = ""
        with trio.fail_after(20):
            while "turbod serve" not in text or not text.endswith("\n"):
                text += (await process.stdout.receive_some()).decode()
        yield process, text.splitlines()
        if process.returncode is None:
            process.kill()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
async def test_it_prints_the_addresses_and_the_serve_line_and_stops_clean(
    which: signal.Signals,
) -> None:
    options = ("--hosts", "3", "--accounts", "20", "--history-seconds", "1")
    async with running(*options) as (process, lines):
        urls = re.findall(r"ws://127\.0\.0\.1:\d+/subscribe", "\n".join(lines[:3]))
        appview = lines[3].removeprefix("appview: ")
        upstreams = " ".join(f"--upstream {url}" for url in urls)
        assert lines[4:] == [f"turbod serve {upstreams} --appview {appview}"]
        async with httpx.AsyncClient(base_url=appview, trust_env=False) as client:
            assert (await client.get(PROFILES, params={"actors": "a.test"})).status_code == 200
            assert (await client.get("/control?1:silent")).text == "done\n"
            refusal = await client.get("/control?9:silent")
            assert refusal.status_code == 400
            assert "HOST from 0 to 2" in refusal.text
        process.send_signal(which)
        with trio.fail_after(10):
            assert await process.wait() == 0


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(options)


async def test_a_port_in_use_is_one_line_and_exit_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit, match=r"^turbod simulate: cannot listen: .*in use") as stop:
            await command.run(parsed("--port", port, "--accounts", "20"))
        assert "\n" not in str(stop.value.code)


async def test_an_unknown_fault_is_one_line_that_names_them_all() -> None:
    with pytest.raises(SystemExit, match="blind_fraction") as stop:
        await command.run(parsed("--fault", "0:silentium", "--accounts", "20"))
    assert "\n" not in str(stop.value.code)


@pytest.mark.parametrize(
    "options", [("--rate", "-1"), ("--failures", "2"), ("--hosts", "0"), ("--jetstream", "v3")]
)
def test_wrong_options_are_refused_with_exit_2(
    options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed(*options)
    assert stop.value.code == 2
    assert options[0] in capsys.readouterr().err


async def test_every_fault_can_be_switched_by_name() -> None:
    async with simulated(accounts=20) as simulation:
        for name in SWITCHES:
            control(simulation, f"1:{name}")
            faults = simulation.jetstreams[1].faults
            assert getattr(faults, name) == 1
            control(simulation, f"1:{name}=off")
            assert getattr(faults, name) == 0
            assert getattr(simulation.jetstreams[0].faults, name) == 0
        control(simulation, "0:lag_seconds=40")
        assert simulation.jetstreams[0].faults.lag_seconds == 40
        simulation.emit(10)
        for action in ("lose_history", "stamp=5", "retain=5", "release=2", "renumber"):
            control(simulation, f"0:{action}")
        for action in ("latency_seconds=2", "fail=0.5", "calls_per_second=3"):
            control(simulation, f"appview:{action}")
        appview = simulation.appview
        assert (appview.latency_seconds, appview.budget) == (2, (30, 10))
        assert sum(appview.failures.values()) == pytest.approx(0.5)
        for wrong in ("", "2:silent", "0:misses", "x:silent", "0:lag_seconds=x", "appview:x=1"):
            with pytest.raises(NoSuchFault):
                control(simulation, wrong)
