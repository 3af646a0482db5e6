"""An S3 server that answers what a test tells it, and a slow way to a real one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Final

import msgspec
import trio


class Request(msgspec.Struct, frozen=True):
    """The head of a request; names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def size(self) -> int:
        """How many bytes of body follow."""
        return int(self.headers.get("content-length", 0))


TLS_HELLO: Final = b"\x16"
HANG: Final = None  # what to answer so as never to answer
Script = Callable[[Request], bytes | None]


class ScriptedS3:
    """Where the server is, and what it was asked so far."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.requests: list[Request] = []


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    """Return an HTTP answer, after which the connection ends."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def error(status: str, code: str, message: str = "no", **headers: str) -> bytes:
    """Return an answer as S3 words its errors."""
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return answer(status, text.encode(), **headers)


@asynccontextmanager
async def scripted_s3(script: Script) -> AsyncIterator[ScriptedS3]:
    """Run a server that reads whole requests and answers as the script says, then closes."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    server = ScriptedS3(listener.socket.getsockname()[1])

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            request = await _request(stream)
            server.requests.append(request)
            said = script(request)
            if said is HANG:
                await trio.sleep_forever()
            else:
                await stream.send_all(said)

    async with trio.open_nursery() as nursery:
        handler = partial(_tolerant, serve)
        nursery.start_soon(partial(trio.serve_listeners, handler, [listener]))
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def slow_way(
    port: int, *, there: float = inf, back: float = inf, stuck_after_bytes: float = inf
) -> AsyncIterator[str]:
    """Pass on what is sent to a server, and what it answers, at most so fast.

    Args:
        port: of the server.
        there: bytes a second to the server.
        back: bytes a second from it.
        stuck_after_bytes: of each connection no more than this goes there.

    Yields:
        the endpoint to use in place of the server's own.
    """
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    async def serve(near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, near, far, there, stuck_after_bytes)
            await _pass_on(far, near, back, inf)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        handler = partial(_tolerant, serve)
        nursery.start_soon(partial(trio.serve_listeners, handler, [listener]))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _pass_on(
    source: trio.SocketStream,
    target: trio.SocketStream,
    bytes_per_second: float,
    stuck_after_bytes: float,
) -> None:
    async for data in source:
        stuck_after_bytes -= len(data)
        if stuck_after_bytes < 0:
            await trio.sleep_forever()
        await target.send_all(data)
        await trio.sleep(len(data) / bytes_per_second)
    await target.send_eof()


async def _tolerant(
    serve: Callable[[trio.SocketStream], Awaitable[None]], stream: trio.SocketStream
) -> None:
    try:
        await serve(stream)
    except* (trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
        pass


async def _request(stream: trio.SocketStream) -> Request:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _some(stream)
        if data.startswith(TLS_HELLO):
            return Request("", "", {})
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(":")[::2] for line in lines)
    method, target, _ = first.split(" ")
    request = Request(method, target, {name.lower(): value.strip() for name, value in pairs})
    if "expect" in request.headers:
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < request.size:
        body += await _some(stream)
    return request


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some()
    if not data:
        raise EOFError
    return bytes(data)
