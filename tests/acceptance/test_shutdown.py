"""How turbod starts and ends: in time, with a goodbye, or with one line that says why not."""

import re
import signal
import socket
import time
from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.process import Turbod, serving
from tests.acceptance.settling import caught_up, settled, until
from turbod.simulation.world import simulated

SHUTDOWN_SECONDS = 5.0
SLACK_SECONDS = 2.0  # of a loaded machine


async def refusal(turbod: Turbod) -> tuple[int, list[str]]:
    """Start turbod where it cannot run; return its exit code and what it says."""
    await turbod.start(wait=False)
    code = await turbod.ended()
    return code, turbod.output.splitlines()


def nowhere(data: Path, *options: str) -> Turbod:
    """Return a turbod whose upstream and AppView are not there: it never gets so far."""
    return Turbod(
        data,
        upstreams=["ws://127.0.0.1:9/subscribe"],
        appview="http://127.0.0.1:9",
        options=options,
    )


async def test_sigterm_under_load_says_bye_to_all_and_loses_nothing(tmp_path: Path) -> None:
    """Everybody gets `bye` and 1001, the exit is 0 and in time, and the next start goes on."""
    options = {"server-shutdown-seconds": SHUTDOWN_SECONDS}
    async with (
        simulated(seed=5) as simulation,
        serving(simulation, tmp_path / "data", options=options) as turbod,
        trio.open_nursery() as nursery,
    ):
        simulation.appview.latency_seconds = 0.05
        followers = [Follower(turbod.port) for _ in range(20)]
        for follower in followers:
            await nursery.start(follower.run)
        simulation.rate = 150
        await until(lambda: all(len(f.lines) > 100 for f in followers), seconds=20, what="all read")
        began = time.monotonic()
        assert await turbod.stop() == 0
        assert time.monotonic() - began < SHUTDOWN_SECONDS + SLACK_SECONDS
        for follower in followers:
            assert follower.ends[0] == 1001
            reasons = [told.get("reason") for told in follower.news]
            assert reasons[-1] == "bye"
        await turbod.start()
        await until(
            lambda: all(len(f.news) > 2 for f in followers), seconds=10, what="all are back"
        )
        simulation.rate = 0
        await caught_up(followers, await settled(simulation, turbod.data))
        nursery.cancel_scope.cancel()


async def test_shutdown_is_in_time_though_appview_and_clients_hang(tmp_path: Path) -> None:
    """Events that wait for a silent AppView, and a client that reads nothing, hold up nothing."""
    options = {"server-shutdown-seconds": SHUTDOWN_SECONDS, "hydration-deadline-seconds": 60}
    async with (
        simulated(seed=6) as simulation,
        serving(simulation, tmp_path / "data", options=options) as turbod,
        await trio.open_tcp_stream("127.0.0.1", turbod.port) as deaf,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        await deaf.send_all(
            b"GET /turbostream?cursor=0 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        simulation.emit(2000)
        await until(lambda: len(follower.lines) > 1000, seconds=20, what="the AppView answers")
        simulation.appview.failures = {"silent": 1.0}
        simulation.emit(200)
        await trio.sleep(0.5)
        began = time.monotonic()
        assert await turbod.stop() == 0
        assert time.monotonic() - began < SHUTDOWN_SECONDS + SLACK_SECONDS
        assert follower.ends[:1] == [1001]
        simulation.appview.failures = {}
        await turbod.start()
        await caught_up([follower], await settled(simulation, turbod.data))
        nursery.cancel_scope.cancel()


async def test_a_second_signal_means_now(tmp_path: Path) -> None:
    """What hangs is left behind at the second signal, with another exit code than 0."""
    options = {"server-shutdown-seconds": 60, "hydration-deadline-seconds": 60}
    async with (
        simulated(seed=7) as simulation,
        serving(simulation, tmp_path / "data", options=options) as turbod,
    ):
        simulation.appview.failures = {"silent": 1.0}
        simulation.emit(100)
        await trio.sleep(0.5)
        turbod.process.send_signal(signal.SIGTERM)
        await trio.sleep(0.3)
        began = time.monotonic()
        turbod.process.send_signal(signal.SIGINT)
        assert await turbod.ended() == 128 + signal.SIGTERM
        assert time.monotonic() - began < 10


async def test_it_ends_at_once_while_the_start_waits_for_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that does not answer may hold a first start for a minute; a signal ends that."""
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "key")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        data = tmp_path / "data"
        turbod = nowhere(data, "--archive", "s3://bucket/archive", "--s3-endpoint", endpoint)
        try:
            await turbod.start(wait=False)
            await until(data.joinpath("verified").exists, seconds=20, what="it begins")
            began = time.monotonic()
            assert await turbod.stop() == 0
            assert time.monotonic() - began < SHUTDOWN_SECONDS + SLACK_SECONDS
        finally:
            await turbod.clean_up()
    turbod.check_own_faults()
    assert "event=stopped in_time=true" in turbod.output


async def test_a_port_in_use_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """The line names the address and what to do."""
    turbod = nowhere(tmp_path / "data")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", turbod.port))
        taken.listen()
        code, lines = await refusal(turbod)
    assert code == 1
    assert len(lines) == 1
    assert f"127.0.0.1:{turbod.port}" in lines[0]
    assert "in use" in lines[0]


async def test_a_data_folder_that_is_a_file_is_one_line_and_exit_78(tmp_path: Path) -> None:
    """The line names the folder."""
    (tmp_path / "data").write_bytes(b"")
    code, lines = await refusal(nowhere(tmp_path / "data"))
    assert code == 78
    assert len(lines) == 1
    assert str(tmp_path / "data") in lines[0]


@pytest.mark.parametrize("inside", ["live", "cache.sqlite", "lock", "live/2026-11-20T08.jsonl"])
async def test_a_data_folder_with_something_in_the_way_is_one_line_and_no_traceback(
    tmp_path: Path, inside: str
) -> None:
    """A file where a folder should be, or a folder for a file; 78 where that is sure to stay."""
    data = tmp_path / "data"
    data.mkdir()
    if inside == "live":
        (data / inside).write_bytes(b"")
    else:
        (data / inside).mkdir(parents=True)
    code, lines = await refusal(nowhere(data))
    assert code == (78 if inside == "live" else 1), lines
    assert len([line for line in lines if line.startswith("turbod: ")]) == 1, lines
    assert "Traceback" not in "".join(lines)
    assert f"{data}/{inside}" in lines[-1]


async def test_a_data_folder_in_use_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """The other turbod goes on."""
    async with (
        simulated(seed=8) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
    ):
        second = nowhere(tmp_path / "data")
        second._output = tmp_path / "second.output"
        code, lines = await refusal(second)
        assert code == 1
        assert len(lines) == 1
        assert re.search("another turbod", lines[0])
        assert (await turbod.get("/readyz"))[0] == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hydration-deadline-seconds", "soon"], ["hydration-deadline-seconds", "soon", "3600"]),
        (["--server-max-connections", "0"], ["server-max-connections", "'0'", "1000000"]),
        (["--appview", "ftp://x"], ["--appview", "ftp://x"]),
        (["--exclude", "/nonexistent/list"], []),
    ],
)
async def test_a_wrong_setting_is_one_line_that_says_what_is_allowed(
    tmp_path: Path, options: list[str], words: list[str]
) -> None:
    """Which setting, what it was, what may stand there; exit 2, or 78 for a file not there."""
    code, lines = await refusal(nowhere(tmp_path / "data", *options))
    told = [line for line in lines if line.startswith("turbod: ")]
    assert code == (2 if words else 78), lines
    assert len(told) == 1, lines
    assert "Traceback" not in "".join(lines)
    assert all(word in told[0] for word in words), told
