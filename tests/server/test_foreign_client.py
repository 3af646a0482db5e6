"""A client that is not ours, in a thread: what it accepts, browsers and others will too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import trio
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.server.harness import Harness, post, serving

T = TypeVar("T")


async def with_client(
    harness: Harness, work: Callable[[ClientConnection], T], target: str, **options: Any
) -> T:
    """Connect in a thread and work there."""

    def run() -> T:
        with connect(f"ws://127.0.0.1:{harness.port}{target}", **options) as client:
            return work(client)

    with trio.fail_after(10):
        return await trio.to_thread.run_sync(run)


def read_two(client: ClientConnection) -> list[bytes]:
    """Return the payloads of the first two messages."""
    received = [client.recv(timeout=5), client.recv(timeout=5)]
    return [data.encode() if isinstance(data, str) else data for data in received]


async def test_a_foreign_client_reads_the_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(*(post(n) for n in range(5)))
        first, second = await with_client(harness, read_two, "/turbostream?cursor=0")
        assert json.loads(first)["$type"] == "#cursor"
        assert len(json.loads(second)) == 5


async def test_a_foreign_client_reads_the_compressed_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(*(post(n) for n in range(5)))
        received = await with_client(harness, read_two, "/turbostream?cursor=0&compress=zstd")
        first, second = (zstandard.ZstdDecompressor().decompress(data) for data in received)
        assert json.loads(first)["$type"] == "#cursor"
        assert len(json.loads(second)) == 5


async def test_a_foreign_client_negotiates_pings_and_closes(tmp_path: Path) -> None:
    def work(client: ClientConnection) -> tuple[str | None, bool]:
        assert client.ping().wait(5)
        client.close(1000)
        return client.subprotocol, client.close_code == 1000

    async with serving(tmp_path) as harness:
        offered = [Subprotocol("x"), Subprotocol("turbostream.v1.json")]
        assert await with_client(harness, work, "/turbostream", subprotocols=offered) == (
            "turbostream.v1.json",
            True,
        )
        await harness.settled(lambda: harness.server.statistics().connections == 0)
        assert harness.server.statistics().errors == 0


async def test_a_foreign_client_is_told_goodbye(tmp_path: Path) -> None:
    def work(client: ClientConnection) -> tuple[str, int]:
        client.recv(timeout=5)
        trio.from_thread.run_sync(harness.nursery.start_soon, drain)
        bye = json.loads(client.recv(timeout=5))
        try:
            client.recv(timeout=5)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None  # noqa: PT017 - what is raised is the answer
            return bye["reason"], closed.rcvd.code
        return bye["reason"], 0

    async def drain() -> None:
        await harness.server.drain(seconds=3)

    async with serving(tmp_path) as harness:
        assert await with_client(harness, work, "/turbostream") == ("bye", 1001)
