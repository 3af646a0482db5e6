"""What a remote client did to a WebSocket server built on the library's own listener, and more.

Each scenario is sent over a raw socket. After it the server serves, a subscriber who was there all
the time has noticed nothing, and neither a task nor a descriptor is left behind.
"""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.server.harness import (
    UPGRADE,
    Answer,
    Harness,
    Subscription,
    exchange,
    open_descriptors,
    open_stream,
    post,
    serving,
)
from turbod.config import ServerSettings
from turbod.server import connection, websocket

HANDSHAKE = f"GET /turbostream HTTP/1.1\r\n{UPGRADE}\r\n".encode()
SETTINGS = ServerSettings(handshake_seconds=0.5)
MEGABYTE = 1_000_000

Scenario = Callable[[Harness], Awaitable[None]]


def masked(opcode: int, payload: bytes = b"", *, fin: int = 0x80, rsv: int = 0) -> bytes:
    """Return a client's frame; the mask is zeros, which is legal."""
    first = bytes([fin | rsv | opcode])
    if len(payload) < 126:
        size = bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        size = b"\xfe" + len(payload).to_bytes(2, "big")
    else:
        size = b"\xff" + len(payload).to_bytes(8, "big")
    return first + size + b"\0\0\0\0" + payload


def reset(stream: trio.SocketStream) -> None:
    """Close with a TCP reset."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@asynccontextmanager
async def nothing_left(harness: Harness) -> AsyncIterator[Subscription]:
    """Serve a bystander meanwhile; afterwards all is as it was."""
    async with harness.subscribe() as bystander:
        await bystander.news()
        await harness.settled(lambda: harness.server.statistics().connections == 1)
        tasks, descriptors = trio.lowlevel.current_statistics().tasks_living, open_descriptors()
        yield bystander
        await harness.settled(lambda: harness.server.statistics().connections == 1, seconds=8)
        await harness.settled(
            lambda: trio.lowlevel.current_statistics().tasks_living == tasks, seconds=2
        )
        assert open_descriptors() == descriptors
        await harness.publish(post(1, text="after"))
        assert (await bystander.records(1))[0]["message"]["commit"]["record"]["text"] == "after"
        statistics = harness.server.statistics()
        assert (statistics.errors, statistics.unfinished_bytes) == (0, 0)


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients here never answer a close."""
    monkeypatch.setattr(websocket, "GOODBYE_SECONDS", 0.1)
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)


HEADS = {
    "garbage": b"\x00\xff\xfe garbage \r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "an unfinished IDNA host": b"GET /turbostream HTTP/1.1\r\nHost: xn--a\r\n\r\n",
    "a host that is not ASCII": b"GET /turbostream HTTP/1.1\r\nHost: \xff\r\n\r\n",
    "a host that is no host": b"GET / HTTP/1.1\r\nHost: <script>\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a subprotocol that is not ASCII": HANDSHAKE[:-2] + b"Sec-WebSocket-Protocol: \xff\r\n\r\n",
    "an extension that is not ASCII": HANDSHAKE[:-2] + b"Sec-WebSocket-Extensions: \xff\r\n\r\n",
    "a connection header that is not ASCII": HANDSHAKE[:-2] + b"Connection: \xff\r\n\r\n",
    "an upgrade of HTTP/1.0": HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a body": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    "a chunked body": b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a body on the upgrade": HANDSHAKE[:-2] + b"Content-Length: 4\r\n\r\nbody",
    "a target that is no path": b"GET turbostream HTTP/1.1\r\nHost: a\r\n\r\n",
    "a broken header": b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    "no key": HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-Key"),
    "a short key": HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"),
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_head_that_is_none_is_refused_with_400(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, settings=SETTINGS) as harness, nothing_left(harness):
        assert Answer(await harness.exchange(HEADS[name])).error == (400, "InvalidRequest")


@pytest.mark.parametrize("name", HEADS)
async def test_a_head_followed_by_a_reset_harms_nobody(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, settings=SETTINGS) as harness, nothing_left(harness):
        for _ in range(20):
            stream = await harness.connect()
            await stream.send_all(HEADS[name])
            reset(stream)


REFUSED = {
    "POST": (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "MethodNotAllowed"),
    "HEAD of the stream": (
        HANDSHAKE.replace(b"GET", b"HEAD"),
        405,
        "MethodNotAllowed",
    ),
    "a plain GET of the stream": (
        b"GET /turbostream HTTP/1.1\r\nHost: a\r\n\r\n",
        426,
        "UpgradeRequired",
    ),
    "another version": (
        HANDSHAKE.replace(b"Version: 13", b"Version: 8"),
        426,
        "UpgradeRequired",
    ),
    "another upgrade": (HANDSHAKE.replace(b"websocket", b"h2c"), 426, "UpgradeRequired"),
    "no upgrade in Connection": (
        HANDSHAKE.replace(b"Connection: Upgrade", b"Connection: close"),
        426,
        "UpgradeRequired",
    ),
    "a long head": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 66_000 + b"\r\n\r\n",
        431,
        "RequestHeaderFieldsTooLarge",
    ),
    "an endless head": (b"GET /" + b"x" * 200_000, 431, "RequestHeaderFieldsTooLarge"),
    "half a head": (HANDSHAKE[:40], 408, "RequestTimeout"),
    "nothing": (b"", 408, "RequestTimeout"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_have_their_status_and_name_and_close(tmp_path: Path, name: str) -> None:
    request, status, error = REFUSED[name]
    async with serving(tmp_path, settings=SETTINGS) as harness, nothing_left(harness):
        # Until the server closes: a refusal that kept its socket would time out here.
        assert Answer(await harness.exchange(request)).error == (status, error)
        assert harness.server.statistics().refused == {error: 1}


async def test_a_head_that_drips_ends_at_the_deadline(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=SETTINGS) as harness, nothing_left(harness):
        started = trio.current_time()
        async with await harness.connect() as stream, trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in HANDSHAKE:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.02)

            nursery.start_soon(drip)
            received = await stream.receive_some()
            nursery.cancel_scope.cancel()
        assert Answer(bytes(received)).error == (408, "RequestTimeout")
        assert 0.4 < trio.current_time() - started < 10


async def connect_and_leave(harness: Harness) -> None:
    stream = await harness.connect()
    await stream.aclose()


async def connect_and_reset(harness: Harness) -> None:
    reset(await harness.connect())


async def upgrade_and_reset(harness: Harness) -> None:
    stream = await harness.connect()
    await stream.send_all(HANDSHAKE)
    reset(stream)


async def get_and_reset(harness: Harness) -> None:
    stream = await harness.connect()
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    reset(stream)


async def subscribe_and_reset(harness: Harness) -> None:
    reset(await open_stream(harness))


async def subscribe_and_leave_half(harness: Harness) -> None:
    async with await open_stream(harness) as stream:
        await stream.send_eof()
        async for _ in stream:
            pass


@pytest.mark.parametrize(
    "scenario",
    [
        connect_and_leave,
        connect_and_reset,
        upgrade_and_reset,
        get_and_reset,
        subscribe_and_reset,
        subscribe_and_leave_half,
    ],
)
async def test_whoever_leaves_at_any_moment_leaves_nothing(
    tmp_path: Path, scenario: Scenario
) -> None:
    async with serving(tmp_path, settings=SETTINGS) as harness, nothing_left(harness):
        for _ in range(20):
            await scenario(harness)


BIG = masked(0x1, b"x" * (MEGABYTE + 1))
# What the client sends on an open connection, and the code of the close it gets.
CONVERSATIONS = {
    "an oversized message and a ping in one piece": (BIG + masked(0x9), 1009),
    "two oversized messages in one piece": (BIG + BIG, 1009),
    "an oversized message in fragments": (
        masked(0x1, b"x" * 600_000, fin=0) + masked(0x0, b"x" * 600_000),
        1009,
    ),
    "an unmasked frame": (b"\x81\x02hi", 1002),
    "text that is not UTF-8": (masked(0x1, b"\xff\xfe"), 1007),
    "a reserved bit": (masked(0x1, b"{}", rsv=0x40), 1002),
    "a reserved opcode": (masked(0x3), 1002),
    "a fragmented ping": (masked(0x9, b"x", fin=0), 1002),
    "a long ping": (masked(0x9, b"x" * 126), 1002),
    "a continuation of nothing": (masked(0x0, b"x"), 1002),
    "a message inside another": (masked(0x1, b"a", fin=0) + masked(0x1, b"b"), 1002),
    "a close with a reserved code": (masked(0x8, (1005).to_bytes(2, "big")), 1002),
    "a close with one byte": (masked(0x8, b"\x03"), 1002),
    "a length beyond all sense": (b"\x81\xff" + b"\xff" * 8 + bytes(4), 1002),
    "a close": (masked(0x8, (1000).to_bytes(2, "big")), 1000),
    "two closes": (masked(0x8, (1000).to_bytes(2, "big")) * 2, 1000),
    "a close and a ping": (masked(0x8, (1000).to_bytes(2, "big")) + masked(0x9), 1000),
    "a mistake, then an oversized message": (masked(0x1, b"[]") + BIG, 1008),
    "a mistake, then pings": (masked(0x1, b"[]") + masked(0x9) * 100, 1008),
}


def close_code(data: bytes) -> int | None:
    """Return the code of the close frame among whole server frames."""
    while len(data) >= 2:
        size, skip = data[1], 2
        if size == 126:
            size, skip = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, skip = int.from_bytes(data[2:10], "big"), 10
        if data[0] == 0x88:
            return int.from_bytes(data[skip : skip + 2], "big") if size else 1005
        data = data[skip + size :]
    return None


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_what_breaks_the_protocol_is_answered_with_its_code(
    tmp_path: Path, name: str
) -> None:
    sent, code = CONVERSATIONS[name]
    async with (
        serving(tmp_path, settings=SETTINGS) as harness,
        nothing_left(harness),
        await open_stream(harness) as stream,
    ):
        assert close_code(await exchange(stream, sent)) == code


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_what_breaks_the_protocol_before_a_reset_harms_nobody(
    tmp_path: Path, name: str
) -> None:
    async with serving(tmp_path, settings=SETTINGS) as harness, nothing_left(harness):
        for _ in range(3):
            stream = await open_stream(harness)
            await stream.send_all(CONVERSATIONS[name][0])
            reset(stream)


async def test_empty_fragments_and_pings_by_the_thousand_are_taken(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=SETTINGS) as harness, nothing_left(harness):
        async with await open_stream(harness) as stream, trio.open_nursery() as nursery:
            update = b'{"type":"options_update","payload":{}}'
            flood = masked(0x1, b"", fin=0) + masked(0x0, b"", fin=0) * 3000
            flood += masked(0x9, b"x" * 125) * 5000 + masked(0x0, update)
            nursery.start_soon(stream.send_all, flood)
            received = b""
            with trio.fail_after(10):
                while b'"reason":"options"' not in received:
                    received += await stream.receive_some()
        assert received.count(b"\x8a\x7d") == 5000


async def test_frames_sent_with_the_handshake_are_not_lost(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=SETTINGS) as harness, nothing_left(harness):
        update = masked(0x1, b'{"type":"options_update","payload":{"kinds":["account"]}}')
        request = HANDSHAKE.replace(b"/turbostream", b"/turbostream?requireHello=true")
        async with await harness.connect() as stream:
            await stream.send_all(request + update)
            received = b""
            with trio.fail_after(5):
                while b'"reason":"connect"' not in received:
                    received += await stream.receive_some()


async def test_many_idle_and_refused_connections_leave_nothing(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, settings=SETTINGS) as harness,
        nothing_left(harness),
        trio.open_nursery() as nursery,
    ):
        for _ in range(50):
            nursery.start_soon(harness.exchange, b"")
            nursery.start_soon(harness.get, "/healthz")
            nursery.start_soon(harness.exchange, HEADS["garbage"])
