"""Poison from the upstream, the AppView and clients: the stream goes on, for everybody."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.plain_scan import key_of, logged
from tests.acceptance.process import Turbod, serving
from tests.acceptance.settling import until
from turbod.simulation.world import Simulation, simulated

HALF_SENT = 1500
HALF_BYTES = 20_000
MOST_DESCRIPTORS = 60
MEMORY_BYTES = 400 * 1024 * 1024  # what all of turbod may take
UPGRADE = (
    b"GET /turbostream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
AUTHOR = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


def post(number: int, *, record: bytes | None = None, **more: Any) -> bytes:
    """Return an upstream message of a post."""
    text = record or json.dumps({"$type": "app.bsky.feed.post", "text": "x", **more}).encode()
    return (
        b'{"did":"%b","time_us":%d,"kind":"commit","commit":{"rev":"3mvzvh4f%05d","operation":'
        b'"create","collection":"app.bsky.feed.post","rkey":"3mvzvh4f%05d","record":%b,'
        b'"cid":"bafyrei%d"}}'
        % (AUTHOR.encode(), 1_790_000_000_000_000 + number, number, number, text, number)
    )


def keys(lines: list[bytes]) -> set[tuple[str, ...]]:
    """Return what the events in records are recognised by."""
    return {key_of(json.loads(line)["message"]) for line in lines}


async def goes_on(simulation: Simulation, follower: Follower) -> None:
    """See that an event that happens now is delivered, on the same connection."""
    ends, before, wanted = len(follower.ends), len(follower.lines), None
    for message in simulation.act("post"):
        event = json.loads(message)
        if event["kind"] == "commit" and event["commit"]["collection"] == "app.bsky.feed.post":
            wanted = key_of(event)
    await until(
        lambda: wanted in keys(follower.lines[before:]), seconds=20, what="the stream goes on"
    )
    assert len(follower.ends) == ends, "nobody is disconnected"


async def test_poison_from_the_upstream_is_dropped_and_counted(tmp_path: Path) -> None:
    """All kinds between good events, and bytes behind which the connection must be made anew."""
    async with (
        simulated(seed=41) as simulation,
        serving(
            simulation, tmp_path / "data", options={"jetstream-longest-backoff-seconds": 0.2}
        ) as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        one, other = simulation.jetstreams
        one.faults.poison_every, other.faults.poison_every = 3, 2
        simulation.emit(200)
        one.faults.break_every = 17
        simulation.rate = 50
        await trio.sleep(2)
        simulation.rate = 0
        one.faults.break_every = other.faults.poison_every = 0
        bad = (
            b'{"did":"\xff\xfe"}',
            post(1, record=b'{"text":"\xed\xa0\x80"}'),
            post(2, record=b'{"text":' + b"[" * 70 + b"]" * 70 + b"}"),
            post(3, record=b'{"text":"' + b"x" * 2_000_000 + b'"}'),
            post(4).replace(b"3mvzvh4f00004", b"a/b"),
            post(5, record=b"[]"),
            b"\x00" * 100,
        )
        simulation.feed(bad)
        simulation.feed([post(6, text="good")])
        await goes_on(simulation, follower)
        await until(
            lambda: any(AUTHOR.encode() in line for line in follower.lines), seconds=20, what="it"
        )
        texts = [line for line in follower.lines if AUTHOR.encode() in line]
        assert len(texts) == 1
        assert b'"text": "good"' in texts[0]
        assert all(json.loads(line) for line in logged(turbod.data))
        hosts = (await turbod.status())["hosts"]
        assert all(sum(host["malformed"].values()) > 20 for host in hosts), hosts
        nursery.cancel_scope.cancel()


async def test_poison_from_the_appview_never_leaves_it(tmp_path: Path) -> None:
    """Invalid UTF-8, deep nesting, a view of 2 MB, another's view: null; the others are whole."""
    async with (
        simulated(seed=42, mix={"post": 1.0}) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        bad = {
            b"did:plc:baaaaaaaaaaaaaaaaaaaaaaa": b'{"did":"%b","handle":"a.b","x":"\xff"}',
            b"did:plc:caaaaaaaaaaaaaaaaaaaaaaa": b'{"did":"%b","handle":"a.b","x":'
            + b"[" * 500
            + b"]" * 500
            + b"}",
            b"did:plc:daaaaaaaaaaaaaaaaaaaaaaa": b'{"did":"%b","handle":"a.b","x":"'
            + b"y" * 2_000_000
            + b'"}',
            b"did:plc:eaaaaaaaaaaaaaaaaaaaaaaa": b'{"did":"did:plc:zzzzzzzzzzzzzzzzzzzzzzzz",'
            b'"handle":"a.b","x":"%b"}',
            b"did:plc:faaaaaaaaaaaaaaaaaaaaaaa": b'{"did":["%b"]}',
        }
        answers = simulation.appview.answers
        for did, view in bad.items():
            answers[did.decode()] = view.replace(b"%b", did)
        answers[AUTHOR] = b'{"did":"%b","handle":"good.example"}' % AUTHOR.encode()
        good = simulation.network.people.accounts[0].did
        people = [*(did.decode() for did in bad), good]
        facets = [
            {"features": [{"$type": "app.bsky.richtext.facet#mention", "did": did}]}
            for did in people
        ]
        simulation.feed([post(10, facets=facets)])
        await goes_on(simulation, follower)
        await until(
            lambda: any(AUTHOR.encode() in line for line in follower.lines), seconds=20, what="it"
        )
        line = next(line for line in follower.lines if AUTHOR.encode() in line)
        views = json.loads(line)["hydrated_metadata"]
        assert views["user"]["handle"] == "good.example"
        assert views["mentions"][good]["did"] == good
        assert all(views["mentions"][did.decode()] is None for did in bad)
        assert len(line) < 100_000
        nursery.cancel_scope.cancel()


async def test_twelve_thousand_mentions_are_fifty(tmp_path: Path) -> None:
    """A post of nearly 1 MiB that mentions 12,000 accounts costs two calls, and goes on."""
    async with (
        simulated(seed=43, mix={"post": 1.0}) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        facets = b",".join(
            b'{"features":[{"$type":"app.bsky.richtext.facet#mention","did":"did:web:%d.a"}]}' % n
            for n in range(12_000)
        )
        message = post(20, record=b'{"text":"","facets":[%b]}' % facets)
        assert len(message) < 1024 * 1024
        simulation.feed([message])
        await until(
            lambda: any(AUTHOR.encode() in line for line in follower.lines), seconds=20, what="it"
        )
        record = json.loads(next(line for line in follower.lines if AUTHOR.encode() in line))
        assert list(record["hydrated_metadata"]["mentions"]) == [
            f"did:web:{n}.a" for n in range(50)
        ]
        assert len(simulation.appview.statistics.calls) <= 4
        await goes_on(simulation, follower)
        nursery.cancel_scope.cancel()


async def half_sent(turbod: Turbod, started: list[int]) -> None:
    """Open a connection and send the first part of a message whose end never comes."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", turbod.port)
        async with stream:
            await stream.send_all(UPGRADE)
            await stream.receive_some(1000)
            head = b"\x01\xfe" + struct.pack("!H", HALF_BYTES) + bytes(4)
            await stream.send_all(head + b" " * HALF_BYTES)
            started.append(1)
            while await stream.receive_some(65536):
                pass
    except (trio.BrokenResourceError, OSError):
        pass


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_half_sent_messages_by_the_thousand_disturb_nobody(tmp_path: Path) -> None:
    """Memory stays bounded, the other subscribers are served, nothing is left behind."""
    options = {
        "server-max-connections": 3000,
        "server-max-connections-per-address": 3000,
        "server-max-handshakes": 3000,
    }
    async with (
        simulated(seed=44) as simulation,
        serving(simulation, tmp_path / "data", options=options) as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        await until(follower.connected.is_set, seconds=10, what="connected")
        started: list[int] = []
        async with trio.open_nursery() as crowd:
            for _ in range(HALF_SENT):
                crowd.start_soon(half_sent, turbod, started)
            await until(lambda: len(started) > HALF_SENT * 0.9, seconds=40, what="all half-sent")
            await goes_on(simulation, follower)
            assert await turbod.resident_bytes() < MEMORY_BYTES
            crowd.cancel_scope.cancel()

        async def is_empty() -> bool:
            return int((await turbod.status())["server"]["connections"]) <= 2

        await until(is_empty, seconds=20, what="all gone")
        await goes_on(simulation, follower)
        descriptors = await trio.Path(f"/proc/{turbod.process.pid}/fd").iterdir()
        assert len(list(descriptors)) < MOST_DESCRIPTORS
        nursery.cancel_scope.cancel()
