import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.lowlevel

from turbod import frames
from turbod.server.websocket import Gone, Unfinished, WebSocket

SMALL_BUFFER = 16 * 1024


@asynccontextmanager
async def pair(*, stuck_seconds: float = 0.5) -> AsyncIterator[tuple[WebSocket, trio.SocketStream]]:
    """A WebSocket and the client's end of it, with little room between."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    server, client = (
        trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (ours, theirs)
    )
    websocket = WebSocket(
        server, received=b"", stuck_seconds=stuck_seconds, unfinished=Unfinished()
    )
    async with server, client:
        yield websocket, client


async def test_a_client_that_takes_a_little_now_and_then_is_stuck_all_the_same() -> None:
    frame = frames.frame(b"x" * 4000)
    async with pair() as (websocket, client), trio.open_nursery() as nursery:

        async def take_a_little() -> None:
            while True:
                await client.receive_some(4000)
                await trio.sleep(0.05)

        nursery.start_soon(take_a_little)
        started = trio.current_time()

        async def send_on() -> None:
            while True:
                await websocket.send(frame)

        with trio.fail_after(20), pytest.raises(Gone):
            await send_on()
        assert websocket.was_reset
        assert trio.current_time() - started > 0.4
        nursery.cancel_scope.cancel()


async def test_a_client_that_is_slow_but_takes_64_kib_in_the_time_is_served() -> None:
    async with pair() as (websocket, client), trio.open_nursery() as nursery:

        async def take_enough() -> None:
            while True:
                await client.receive_some(8000)
                await trio.sleep(0.02)

        nursery.start_soon(take_enough)
        with trio.fail_after(10):
            for _ in range(3):
                await websocket.send(frames.frame(b"x" * 200_000))
        nursery.cancel_scope.cancel()


async def test_whoever_took_64_kib_has_its_whole_time_again() -> None:
    frame = frames.frame(b"x" * 120_000)
    async with pair() as (websocket, client), trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(websocket.send, frame)
            await trio.sleep(0.3)  # more than half of its time
            taken = 0
            while taken < len(frame):
                taken += len(await client.receive_some(100_000))
            await trio.testing.wait_all_tasks_blocked()
            await websocket.send(b"\x81\x00")  # taken at once
            await client.receive_some(2)


async def test_nothing_follows_a_frame_that_was_cut_off() -> None:
    async with pair() as (websocket, client):
        with trio.move_on_after(0.05):
            await websocket.send(frames.frame(b"x" * 200_000))
        received = b""
        with trio.move_on_after(0.1):
            while True:
                received += await client.receive_some(100_000)
        assert 0 < len(received) < 200_000
        with pytest.raises(Gone):  # although there is room
            await websocket.send(frames.frame(b"more"))
        with trio.fail_after(10):
            await websocket.close(1000)
        with trio.move_on_after(0.1):
            pytest.fail(f"followed a part of a frame: {await client.receive_some()!r}")


async def test_a_pong_stands_between_frames_never_inside_one() -> None:
    async with pair(stuck_seconds=5) as (websocket, client), trio.open_nursery() as nursery:
        nursery.start_soon(websocket.receive, lambda _: None)
        nursery.start_soon(websocket.send, frames.frame(b"x" * 200_000))
        await client.send_all(b"\x89\x82" + bytes(4) + b"hi")
        received = b""
        with trio.fail_after(5):
            while not received.endswith(b"\x8a\x02hi"):
                received += await client.receive_some(10_000)
                await trio.lowlevel.checkpoint()
        assert received == frames.frame(b"x" * 200_000) + b"\x8a\x02hi"
        nursery.cancel_scope.cancel()


async def test_the_frames_of_one_read_do_not_keep_others_waiting() -> None:
    async with pair() as (websocket, client), trio.open_nursery() as nursery:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        await client.send_all((b"\x8a\x80" + bytes(4)) * 1000)
        await client.send_eof()
        nursery.start_soon(count)
        await websocket.receive(lambda _: None)
        assert turns > 900
        nursery.cancel_scope.cancel()


async def test_after_our_close_nothing_of_the_clients_counts() -> None:
    messages: list[bytes | None] = []
    async with pair() as (websocket, client), trio.open_nursery() as nursery:
        nursery.start_soon(websocket.receive, messages.append)
        await client.send_all(b"\x81\x81" + bytes(4) + b"1")
        await trio.sleep(0.05)
        nursery.start_soon(websocket.close, 1001)
        assert await client.receive_some() == b"\x88\x02\x03\xe9"
        await client.send_all(b"\x81\x81" + bytes(4) + b"2" + b"\x88\x80" + bytes(4))
        await trio.sleep(0.05)
        with pytest.raises(Gone):
            await websocket.send(b"\x81\x00")
    assert messages == [b"1"]


async def test_the_close_of_a_client_is_answered_once() -> None:
    async with pair() as (websocket, client), trio.open_nursery() as nursery:
        close = b"\x88\x82" + bytes(4) + b"\x03\xe8"
        await client.send_all(close * 3)
        await websocket.receive(lambda _: None)
        await websocket.close(1001)
        nursery.cancel_scope.cancel()
        assert await client.receive_some() == b"\x88\x02\x03\xe8"


def hostile(dice: random.Random) -> bytes:
    """Some frames, mostly legal, some of them broken, cut off or out of place."""
    pieces = []
    for _ in range(dice.randrange(1, 12)):
        payload = dice.randbytes(dice.choice([0, 0, 1, 2, 5, 125, 126, 300]))
        if dice.random() < 0.5:
            payload = payload.hex().encode()[: len(payload)]
        first = dice.choice([0x00, 0x80, 0x80, 0x80, 0xC0, 0x90]) | dice.choice(
            [0, 1, 1, 2, 8, 9, 10, dice.randrange(16)]
        )
        mask = bytes(4) if dice.random() < 0.5 else dice.randbytes(4)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        size = (
            bytes([0x80 | len(payload)])
            if len(payload) < 126
            else b"\xfe" + len(payload).to_bytes(2, "big")
        )
        pieces.append(bytes([first]) + size + mask + masked)
        if dice.random() < 0.1:
            pieces.append(dice.randbytes(dice.randrange(20)))
    return b"".join(pieces)


async def test_nothing_a_client_sends_raises_or_stays_counted() -> None:
    for seed in range(400):
        dice = random.Random(seed)
        async with pair() as (websocket, client), trio.open_nursery() as nursery:
            sent = hostile(dice)

            async def send(client: trio.SocketStream, sent: bytes) -> None:
                with suppress(trio.BrokenResourceError):
                    await client.send_all(sent)
                    await client.send_eof()

            nursery.start_soon(send, client, sent)
            if dice.random() < 0.3:
                nursery.start_soon(websocket.close, 1001)
            with trio.fail_after(5):
                await websocket.receive(lambda _: None)
            assert websocket._unfinished.bytes == 0, seed
            nursery.cancel_scope.cancel()
