"""`turbod compare` against real servers: it finds what a host is made to do, and nothing else."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.acceptance.process import free_port, serving
from tests.client.servers import behaving
from turbod import cli
from turbod.compare import command
from turbod.compare.streams import asked_url, kind_of
from turbod.config import ConfigError
from turbod.frames import frame
from turbod.server.request import HeadReader, upgrade_answer
from turbod.simulation.faults import Faults
from turbod.simulation.world import Simulation, simulated

ROOT = Path(__file__).parents[2]
LOST = (
    b'{"did":"did:web:lost.example","time_us":%d,"kind":"commit","commit":{'
    b'"rev":"3mvzvh4fszd2a","operation":"create","collection":"app.bsky.feed.like","rkey":"lost",'
    b'"record":{"$type":"app.bsky.feed.like"},"cid":"bafy"}}'
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SETTLE_SECONDS", 0.5)


async def compared(
    urls: Sequence[str],
    *,
    seconds: float = 1.0,
    window: float = 3.0,
    collections: Sequence[str] = (),
) -> int:
    options = argparse.Namespace(
        urls=urls, seconds=seconds, window=window, collections=list(collections), json=True
    )
    with trio.fail_after(40):
        return await command.run(options)


def last(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["final"]
    return answer


def names(told: dict[str, Any]) -> list[list[str]]:
    return [[fault["name"] for fault in stream["faults"]] for stream in told["streams"]]


def urls_of(simulation: Simulation) -> list[str]:
    return [host.url for host in simulation.jetstreams]


async def not_found(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    await trio.sleep(0.1)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_two_sound_hosts_are_alike(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with simulated(rate=300, version=version, accounts=50) as simulation:
        assert await compared(urls_of(simulation)) == 0
    told = last(capsys)
    assert names(told) == [[], []]
    assert told["pairs"] > 200
    assert (told["pending"], told["verdict"]) == (0, "Alike.")
    for stream in told["streams"]:
        assert abs(stream["seconds_behind_median"]) < 0.5
        assert (stream["missing"], stream["duplicates"], stream["revs_fallen"]) == (0, 0, 0)


async def test_the_blind_host_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    async with simulated(rate=300) as simulation:
        simulation.jetstreams[1].faults = Faults(blind_fraction=0.1)
        assert await compared(urls_of(simulation)) == 3
    assert names(last(capsys)) == [[], ["blind"]]


@pytest.mark.slow
async def test_the_lagging_host_is_found_and_misses_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with simulated(rate=200, history_seconds=10, history_rate=200) as simulation:
        simulation.jetstreams[0].faults = Faults(lag_seconds=2.5)
        assert await compared(urls_of(simulation), window=6) == 3
    told = last(capsys)
    assert names(told) == [["lagging"], []]
    assert told["streams"][0]["seconds_behind_median"] == pytest.approx(2.5, abs=0.5)
    assert told["streams"][0]["missing"] == told["streams"][1]["missing"] == 0


async def test_the_one_lost_event_is_found_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    async with simulated(rate=200) as simulation, trio.open_nursery() as nursery:
        simulation.jetstreams[0].faults = Faults(misses="did:web:lost.example".__eq__)

        async def lose() -> None:
            await trio.sleep(1.5)
            simulation.feed([LOST % (time.time_ns() // 1000)])

        nursery.start_soon(lose)
        assert await compared(urls_of(simulation), seconds=2, window=1.5) == 3
    told = last(capsys)
    assert names(told) == [["lossy"], []]
    uri = "at://did:web:lost.example/app.bsky.feed.like/lost"
    assert told["streams"][0]["missing_examples"] == [uri]
    assert uri in told["streams"][0]["faults"][0]["words"]


async def test_the_silent_host_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("comparison", "verdicts"):
        monkeypatch.setattr(f"turbod.compare.{module}.SILENT_SECONDS", 1.0)
    async with simulated(rate=200) as simulation:
        simulation.jetstreams[1].faults = Faults(silent=True)
        assert await compared(urls_of(simulation), window=1) == 3
    assert names(last(capsys)) == [[], ["silent"]]


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_connection_that_breaks_is_made_again_and_nothing_is_said_to_be_lost(
    version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with simulated(rate=200, version=version) as simulation, trio.open_nursery() as nursery:

        async def cut() -> None:
            for wait in (1.2, 0.6, 0.7):
                await trio.sleep(wait)
                simulation.jetstreams[1].drop_connections()

        nursery.start_soon(cut)
        assert await compared(urls_of(simulation), seconds=3) == 0
    told = last(capsys)
    assert names(told) == [[], []]
    assert [stream["connects"] for stream in told["streams"]] == [1, 4]
    assert told["streams"][1]["last_error"]
    for stream in told["streams"]:
        assert (stream["duplicates"], stream["revs_fallen"], stream["missing"]) == (0, 0, 0)


async def test_collections_are_asked_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    async with simulated(rate=300) as simulation:
        assert await compared(urls_of(simulation), collections=["app.bsky.feed.post"]) == 0
        for host in simulation.jetstreams:
            assert host.connects[0].wants("did:plc:x", "app.bsky.feed.post")
            assert not host.connects[0].wants("did:plc:x", "app.bsky.feed.like")
    assert last(capsys)["pairs"] > 20


@pytest.mark.slow
async def test_a_turbod_and_its_upstream_are_alike_where_the_same_is_asked_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collections = ("app.bsky.feed.post", "app.bsky.feed.like")
    async with (
        simulated(rate=150) as simulation,
        serving(simulation, tmp_path / "data", collections=collections) as turbod,
    ):
        urls = [f"127.0.0.1:{turbod.port}", simulation.jetstreams[0].url]
        assert await compared(urls, collections=collections) == 0
        told = last(capsys)
        assert names(told) == [[], []]
        assert [stream["kind"] for stream in told["streams"]] == ["turbod", "jetstream"]
        assert told["streams"][0]["hydration"]["views"] > 0
        assert await compared(urls, seconds=2, window=2) == 3
        assert names(last(capsys)) == [["absent"], []]


async def test_a_gap_that_a_turbod_tells_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("turbod.compare.comparison.SILENT_SECONDS", 1.0)
    told = (
        b'{"$type":"#cursor","reason":"connect","cursor":0,"head":0,"floor":0,"live":true}',
        b'{"$type":"#info","name":"Gap","after":1,"before":2,"message":"a hole"}',
    )

    async def turbod(stream: trio.SocketStream) -> None:
        request = HeadReader().feed(await stream.receive_some())
        assert request is not None
        await stream.send_all(upgrade_answer(request, None) + b"".join(map(frame, told)))
        await trio.sleep_forever()

    async with simulated(rate=100) as simulation, behaving(turbod) as port:
        urls = [simulation.jetstreams[0].url, f"ws://127.0.0.1:{port}"]
        assert await compared(urls, window=1) == 3
    assert names(last(capsys))[1] == ["gap"]


@pytest.mark.slow
async def test_of_two_turbods_the_one_whose_appview_is_away_is_poorer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = {"appview": f"http://127.0.0.1:{free_port()}", "hydration-deadline-seconds": 0.1}
    async with (
        simulated(rate=100) as simulation,
        serving(simulation, tmp_path / "sound") as first,
        serving(simulation, tmp_path / "poor", options=nowhere) as second,
    ):
        urls = [f"ws://127.0.0.1:{one.port}" for one in (first, second)]
        assert await compared(urls) == 3
        told = last(capsys)
        assert names(told) == [[], ["poorer"]]
        assert told["streams"][1]["hydration"]["unresolved"] > 0
        assert told["streams"][0]["missing"] == told["streams"][1]["missing"] == 0


async def test_two_sound_turbods_are_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        simulated(rate=100) as simulation,
        serving(simulation, tmp_path / "first") as first,
        serving(simulation, tmp_path / "second") as second,
    ):
        urls = [f"ws://127.0.0.1:{one.port}" for one in (first, second)]
        assert await compared(urls) == 0
        assert names(last(capsys)) == [[], []]


async def test_who_cannot_be_reached_is_exit_1_and_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nobody = f"ws://127.0.0.1:{free_port()}"
    async with simulated(rate=100) as simulation:
        for url in (nobody, f"{nobody}/subscribe"):
            assert await compared([simulation.jetstreams[0].url, url]) == 1
            said = capsys.readouterr()
            assert said.out == ""
            assert said.err.count("\n") == 1
            assert nobody in said.err
            assert "does the server run?" in said.err


async def test_a_server_without_a_stream_of_ours_is_exit_1_with_a_hint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def server(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await not_found(stream)

    async with simulated(rate=100) as simulation, behaving(server) as port:
        url = f"ws://127.0.0.1:{port}"
        assert await compared([simulation.jetstreams[0].url, url]) == 1
    assert "a plain Jetstream ends in /subscribe" in capsys.readouterr().err


async def test_what_a_stranger_says_moves_no_cursor_of_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def server(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        body = b"\x1b[2J\x1b]0;hello\x07"
        head = b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n" % len(body)
        await stream.send_all(head + body)
        await trio.sleep(0.1)

    async with simulated(rate=100) as simulation, behaving(server) as port:
        for path in ("/turbostream", "/subscribe"):
            url = f"ws://127.0.0.1:{port}{path}"
            assert await compared([simulation.jetstreams[0].url, url]) == 1
    said = capsys.readouterr().err
    assert said.count("503") == 2
    assert said.replace("\n", "").isprintable()


async def test_a_token_goes_to_turbods_and_never_to_a_plain_jetstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = "turbod_" + "x" * 43
    monkeypatch.setenv("TURBOD_TOKEN", token)
    heads = []

    async def listen(stream: trio.SocketStream) -> None:
        heads.append(bytes(await stream.receive_some()))
        await not_found(stream)

    async with simulated(rate=100) as simulation, behaving(listen) as port:
        for path in ("/turbostream", "/subscribe"):
            url = f"ws://127.0.0.1:{port}{path}"
            assert await compared([simulation.jetstreams[0].url, url]) == 1
    assert [token.encode() in head for head in heads] == [True, False]


@pytest.mark.parametrize(
    ("urls", "collections", "words"),
    [
        (["ftp://a", "ws://b"], [], "expected ws://HOST:PORT"),
        (["ws://a", "ws://b"], ["no nsid"], "neither an NSID"),
    ],
)
async def test_what_can_be_no_stream_is_a_wrong_setting(
    urls: list[str], collections: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        await compared(urls, collections=collections)


@pytest.mark.parametrize("option", ["--seconds=0", "--window=x", "--window=nan", "--seconds=1e9"])
def test_an_impossible_time_is_exit_2(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", "ws://a", "ws://b", option])
    assert caught.value.code == 2
    assert "expected a number of seconds" in capsys.readouterr().err


def test_an_address_says_what_it_is_and_what_is_asked() -> None:
    assert kind_of(asked_url("wss://jet.example/subscribe", [])) == "jetstream"
    assert kind_of(asked_url("jet.example", [])) == "turbod"
    url = asked_url("http://a:1?wantedDids=did:a:b", ["a.b.*"])
    assert url == "ws://a:1/turbostream?wantedDids=did:a:b&wantedCollections=a.b.%2A"


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_ends_it_with_the_summary(form: list[str], number: signal.Signals) -> None:
    async with simulated(rate=100) as simulation:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "turbod", "compare", *urls_of(simulation), *form],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with trio.fail_after(30):
            while not all(host.connects for host in simulation.jetstreams):  # noqa: ASYNC110 - no event
                await trio.sleep(0.05)
            await trio.sleep(1)
            process.send_signal(number)
            assert process.stdout is not None
            assert process.stderr is not None
            out = b"".join([piece async for piece in process.stdout])
            assert b"".join([piece async for piece in process.stderr]) == b""
            assert await process.wait() == 0
    if form:
        assert json.loads(out.splitlines()[-1])["final"]
    else:
        assert b"verdict" in out
        assert b"Alike" in out
