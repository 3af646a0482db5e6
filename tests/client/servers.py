"""Servers that are none of ours."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from turbod.server.request import HeadReader, upgrade_answer

Behaviour = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def behaving(behaviour: Behaviour) -> AsyncIterator[int]:
    """A server that does this with each connection."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                await behaviour(stream)

        await nursery.start(partial(trio.serve_listeners, serve, [listener]))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def silent(stream: trio.SocketStream) -> None:
    """Take all, say nothing."""
    async for _ in stream:
        pass


async def leave(stream: trio.SocketStream) -> None:
    """Hang up."""
    await stream.receive_some(10)


async def say(words: bytes, stream: trio.SocketStream) -> None:
    """Answer whatever is asked."""
    await stream.receive_some()
    await stream.send_all(words)
    await trio.sleep(0.02)


async def stream_of(payload: bytes, opcode: int, stream: trio.SocketStream) -> None:
    """Upgrade, send one message, hang up."""
    request = HeadReader().feed(await stream.receive_some())
    assert request is not None
    await stream.send_all(upgrade_answer(request, None))
    await stream.send_all(bytes((0x80 | opcode, len(payload))) + payload)
    await trio.sleep(0.02)


class Door:
    """Stands before a server; what passes through it can be cut or held up."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.is_open = True
        self.is_silent = False
        self._inner = port
        self._scopes: set[trio.CancelScope] = set()

    @property
    def url(self) -> str:
        """Where to knock."""
        return f"ws://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every connection without a word."""
        for scope in self._scopes:
            scope.cancel()

    def close(self) -> None:
        """As if the server were down."""
        self.is_open = False
        self.cut()

    async def pass_on(self, outer: trio.SocketStream) -> None:
        """Serve one connection."""
        if not self.is_open:
            return
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            inner = await trio.open_tcp_stream("127.0.0.1", self._inner)
            async with inner, trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, outer, inner, scope)
                await self._copy(inner, outer, scope)
        self._scopes.discard(scope)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                if not self.is_silent:
                    await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def door_of(port: int) -> AsyncIterator[Door]:
    """Put a door before a port."""
    door = Door(port)
    async with behaving(door.pass_on) as door.port:
        yield door
