"""SIGHUP to a real turbod under load: what changes at once, what stays, what is refused."""

import json
import os
import pty
import random
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.acceptance.follower import Follower, Wish
from tests.acceptance.plain_scan import events_of, is_wanted, key_of, logged
from tests.acceptance.process import REPOSITORY, Turbod, serving
from tests.acceptance.settling import caught_up, until
from turbod.simulation.world import Simulation, simulated

POST, LIKE, REPOST, GRAPH = (
    "app.bsky.feed.post",
    "app.bsky.feed.like",
    "app.bsky.feed.repost",
    "app.bsky.graph.*",
)
CHANGES = ((POST, LIKE), (POST, REPOST, GRAPH), (REPOST, LIKE), (POST, LIKE, REPOST, GRAPH))


def toml(given: dict[str, Any]) -> str:
    """Return a settings file; keys as `server.max_connections`."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())


async def reload(turbod: Turbod, *, word: str = "event=reloaded") -> str:
    """Send SIGHUP; return the line that says what came of it."""

    def lines() -> list[str]:
        return [line for line in turbod.output.splitlines() if word in line]

    before = len(lines())
    turbod.process.send_signal(signal.SIGHUP)
    await until(lambda: len(lines()) > before, seconds=10, what=f"a line with {word}")
    return lines()[before]


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_changes_of_collections_under_load_lose_nothing_and_repeat_nothing(
    version: str, tmp_path: Path
) -> None:
    """Nobody is disconnected either, though some ask for what is no longer there."""
    file = tmp_path / "turbod.toml"
    file.write_text(toml({"collections": CHANGES[0]}))
    # From which event on which collections are on for certain, until which none was changed.
    spans: list[tuple[int, int, Sequence[str]]] = []
    async with (
        simulated(seed=11, version=version) as simulation,
        serving(simulation, tmp_path / "data", collections=(), options={"config": file}) as turbod,
        trio.open_nursery() as nursery,
    ):
        followers = [Follower(turbod.port), Follower(turbod.port, wish=Wish(collections=(LIKE,)))]
        for follower in followers:
            await nursery.start(follower.run)
        await until(lambda: all(f.may_change() for f in followers), seconds=10, what="connected")
        simulation.rate = 200
        since = 0
        for before, collections in pairwise(CHANGES):
            await trio.sleep(1.5)
            spans.append((since, simulation.history.end, before))
            file.write_text(toml({"collections": collections}))
            assert "changed=collections needs_restart=none" in await reload(turbod)
            since = simulation.history.end
        await trio.sleep(1.5)
        simulation.rate = 0
        spans.append((since, simulation.history.end, CHANGES[-1]))
        log = await complete(simulation, turbod.data, spans)
        await caught_up(followers, log)
        assert [follower.ends for follower in followers] == [[], []]
        assert [follower.gaps for follower in followers] == [[], []]
        status = await turbod.status()
        assert [host["connects"] for host in status["hosts"]] == [len(CHANGES)] * 2
        nursery.cancel_scope.cancel()


async def complete(
    simulation: Simulation, data: Path, spans: Sequence[tuple[int, int, Sequence[str]]]
) -> list[bytes]:
    """Return the log when it holds once each event that was wanted when it happened.

    What happened around a change of what is wanted may be there or not, but not twice.
    """
    happened = [json.loads(message) for message in simulation.everything()]
    sure = {
        key_of(event)
        for since, until_, wanted in spans
        for event in happened[since:until_]
        if is_wanted(event, wanted)
    }
    never = {
        key_of(event)
        for since, until_, wanted in spans
        for event in happened[since:until_]
        if not is_wanted(event, wanted)
    }
    # Hosts are asked again from a few seconds before: what was not wanted then may come.
    never -= {
        key_of(event)
        for since, _, wanted in spans
        for event in happened[max(0, since - 2500) : since]
        if is_wanted(event, wanted)
    }

    def found() -> Counter[tuple[str, ...]]:
        return Counter(map(key_of, events_of(logged(data))))

    await until(lambda: sure <= found().keys(), seconds=30, what="all is logged")
    assert not [key for key, count in found().items() if count > 1]
    assert not never & found().keys()
    return logged(data)


EVERYTHING: dict[str, Any] = {
    "log_level": "debug",
    "jetstream.handshake_seconds": 11,
    "jetstream.silence_seconds": 31,
    "jetstream.ping_seconds": 9,
    "jetstream.longest_backoff_seconds": 29,
    "hydration.calls_per_second": 100,
    "hydration.concurrent_calls": 4,
    "hydration.deadline_seconds": 4,
    "hydration.max_lag_seconds": 100,
    "hydration.max_pending_bytes": 16_000_000,
    "cache.memory_bytes": 2_000_000,
    "cache.disk_bytes": 2_000_000,
    "cache.profile_seconds": 60,
    "cache.post_seconds": 60,
    "cache.missing_seconds": 60,
    "log.max_bytes": 20_000_000,
    "log.memory_bytes": 2_000_000,
    "archive.max_bytes": 1_000_000_000,
    "archive.when_full": "drop_oldest",
    "archive.read_ahead_bytes": 100_000_000,
    "server.max_connections": 500,
    "server.max_connections_per_address": 100,
    "server.max_handshakes": 20,
    "server.handshake_seconds": 6,
    "server.max_history_readers": 2,
    "server.max_filter_dids": 1000,
    "server.stuck_seconds": 30,
    "server.shutdown_seconds": 5,
    "server.trusted_proxies": ["10.0.0.0/8"],
    "server.forwarded_header": "Forwarded",
}


async def test_everything_at_once_there_and_back_under_load(tmp_path: Path) -> None:
    """Again and again, at random: the stream goes on, and what was given as an option holds."""
    file, listed = tmp_path / "turbod.toml", tmp_path / "list"
    file.write_text("")
    listed.write_text("did:plc:nobodyisthisdidofnobody2\n")
    options = {"config": file, "hydration-deadline-seconds": 3}
    dice = random.Random(7)
    async with (
        simulated(seed=12) as simulation,
        serving(simulation, tmp_path / "data", options=options) as turbod,
        trio.open_nursery() as nursery,
    ):
        followers = [Follower(turbod.port) for _ in range(5)]
        for follower in followers:
            await nursery.start(follower.run)
        simulation.rate = 200
        given = EVERYTHING | {"exclude": str(listed)}
        file.write_text(toml(given))
        line = await reload(turbod)
        for key in given.keys() - {"hydration.deadline_seconds"}:
            assert key in line
        assert "hydration.deadline_seconds" not in line
        for _ in range(6):
            some = dice.sample(sorted(given), dice.randrange(len(given)))
            file.write_text(toml({key: given[key] for key in some}))
            await reload(turbod)
            await trio.sleep(0.3)
        file.write_text(toml({"listen": "127.0.0.1:1", "archive.location": "elsewhere"}))
        await reload(turbod)
        line = await reload(turbod)  # `listen` was given as an option, which beats the file
        assert "changed=none needs_restart=archive.location" in line
        file.write_text("")
        assert "changed=none needs_restart=none" in await reload(turbod)
        simulation.rate = 0
        spans = [(0, simulation.history.end, (POST, LIKE, REPOST, GRAPH))]
        await caught_up(followers, await complete(simulation, turbod.data, spans))
        assert {code for follower in followers for code in follower.ends} == set()
        assert await turbod.stop() == 0
        nursery.cancel_scope.cancel()


async def test_what_is_wrong_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "turbod.toml"
    file.write_text(toml({"collections": [POST]}))
    wrongs = {
        "not TOML": "server = [",
        "server.max_conections": toml({"server.max_conections": 5, "collections": [LIKE]}),
        "expected": toml({"server.max_connections": 0, "collections": [LIKE]}),
        "nowhere": toml({"exclude": str(tmp_path / "nowhere"), "collections": [LIKE]}),
    }
    async with (
        simulated(seed=13) as simulation,
        serving(simulation, tmp_path / "data", collections=(), options={"config": file}) as turbod,
    ):
        for words, text in wrongs.items():
            file.write_text(text)
            assert words in await reload(turbod, word="event=reload_refused")
            assert (await turbod.get(f"/records?wantedCollections={LIKE}"))[0] == 400
        file.unlink()
        await reload(turbod, word="event=reload_refused")
        file.write_text(toml({"collections": [LIKE]}))
        turbod.process.send_signal(signal.SIGHUP)
        turbod.process.send_signal(signal.SIGHUP)
        assert "changed=" in await reload(turbod)
        assert (await turbod.get(f"/records?wantedCollections={LIKE}"))[0] == 200
        assert await turbod.stop() == 0


async def test_during_the_start_and_during_the_stop_a_reload_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "key")
    file = tmp_path / "turbod.toml"
    file.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        options = {"config": file, "archive": "s3://bucket/a", "s3-endpoint": endpoint}
        async with (
            simulated(seed=14) as simulation,
            serving(
                simulation,
                tmp_path / "data",
                options=options,
                collections=(),
                start=False,
            ) as turbod,
        ):
            await turbod.start(wait=False)
            await until(turbod.data.joinpath("verified").exists, seconds=20, what="it begins")
            assert (await turbod.get("/readyz"))[0] == 503
            file.write_text(toml({"collections": [LIKE], "log_level": "debug"}))
            assert "changed=collections, log_level" in (await reload(turbod)).replace('"', "")
            assert (await turbod.get("/readyz"))[0] == 503
            async with await trio.open_tcp_stream("127.0.0.1", turbod.port):
                turbod.process.send_signal(signal.SIGTERM)
                await until(lambda: "event=stopping" in turbod.output, seconds=5, what="it stops")
                turbod.process.send_signal(signal.SIGHUP)
                assert await turbod.ended() == 0
        assert "stopping_now" not in turbod.output


async def test_it_ends_with_the_terminal_that_it_was_started_in(tmp_path: Path) -> None:
    """The kernel tells of that by SIGHUP as well."""
    turbod = Turbod(
        tmp_path / "data", upstreams=["ws://127.0.0.1:9/subscribe"], appview="http://127.0.0.1:9"
    )
    ours, theirs = pty.openpty()
    # `setsid --ctty` makes the terminal the one that controls it.
    process = await trio.lowlevel.open_process(
        ["setsid", "--ctty", "--wait", *turbod.command],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    os.close(theirs)
    try:
        await until(turbod.data.joinpath("cache.sqlite").exists, seconds=20, what="it runs")
        await trio.sleep(0.5)
        os.close(ours)
        with trio.fail_after(10):
            assert await process.wait() == 0
    finally:
        process.kill()
