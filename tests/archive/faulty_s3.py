"""A proxy of faults in front of a real S3 server.

It speaks HTTP as far as a proxy must: a request's head, a body of known length, then whatever the
server says until it closes; one request a connection.
"""

from collections import Counter
from collections.abc import Sized
from typing import Final

import msgspec
import trio

from turbod.simulation.loopback import LoopbackServer

HEAD_BYTES: Final = 64 * 1024
BLOCK_BYTES: Final = 16 * 1024
# What may not reach the server: one request a connection, and `100 Continue` comes from here.
_HOP_BY_HOP: Final = (b"connection", b"expect")


class Cut(Exception):
    """This connection ends here, without another byte."""


class Request(msgspec.Struct, frozen=True):
    """A request without its body."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]

    def header(self, name: bytes) -> bytes:
        """Return a header's value, empty where it is not there."""
        return next((value for key, value in self.headers if key == name), b"")

    def head(self, without: tuple[bytes, ...]) -> bytes:
        """Return the head as it goes to the server."""
        kept = [each for each in self.headers if each[0] not in without]
        lines = [b"%b: %b" % each for each in (*kept, (b"connection", b"close"))]
        first = f"{self.method} {self.path} HTTP/1.1".encode()
        return b"\r\n".join([first, *lines, b"", b""])


class FaultyS3(LoopbackServer):
    """Passes requests on to the server at `backend`, except where a fault is set.

    `go_down` refuses connections and drops those that are there; `come_up` ends that.

    Attributes:
        only: the faults concern requests whose `METHOD PATH` has this in it.
        answer: this status and S3 error code instead of the server's answer.
        stalls: requests are read and never answered.
        takes_bytes: of a body only so many reach the server; then both connections break.
        spoils: the last byte of a body, which goes into an index, is another one at the server.
        loses_answers: what was asked is done, and the connection breaks before the answer.
        bytes_per_second: of bodies, both ways; 0 for as fast as it goes.
        ignores_conditions: the server does not learn of `If-None-Match`.
        seen: how often each `METHOD PATH` came, without the query.
    """

    def __init__(self, backend: int, *, port: int = 0) -> None:
        super().__init__(port)
        self._backend = backend
        self.seen: Counter[str] = Counter()
        self.be_good()

    def be_good(self) -> None:
        """Let every fault end but that of being down."""
        self.only = ""
        self.answer: tuple[int, str] | None = None
        self.stalls = self.spoils = self.loses_answers = self.ignores_conditions = False
        self.takes_bytes: int | None = None
        self.bytes_per_second = 0

    @property
    def endpoint(self) -> str:
        """What goes behind `--s3-endpoint`."""
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await self._answer(stream)
            except (Cut, trio.BrokenResourceError, trio.ClosedResourceError):
                await trio.aclose_forcefully(stream)

    async def _answer(self, client: trio.SocketStream) -> None:
        request, begun = await _read_head(client)
        what = f"{request.method} {request.path}"
        self.seen[what.partition("?")[0]] += 1
        body = _Body(client, begun, int(request.header(b"content-length") or 0))
        if request.header(b"expect"):
            await client.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.only not in what:
            await self._pass_on(client, request, body)
        elif self.stalls:
            await trio.sleep_forever()
        elif self.answer is not None:
            await body.read_all()
            await client.send_all(_answer_of(*self.answer))
        else:
            await self._pass_on_with_faults(client, request, body)

    async def _pass_on(
        self, client: trio.SocketStream, request: Request, body: "_Body", *, drop: bytes = b""
    ) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self._backend) as server:
            await server.send_all(request.head((*_HOP_BY_HOP, drop)))
            while block := await body.next():
                await server.send_all(block)
            async for said in server:
                await client.send_all(said)

    async def _pass_on_with_faults(
        self, client: trio.SocketStream, request: Request, body: "_Body"
    ) -> None:
        drop = b"if-none-match" if self.ignores_conditions else b""
        async with await trio.open_tcp_stream("127.0.0.1", self._backend) as server:
            await server.send_all(request.head((*_HOP_BY_HOP, drop)))
            while block := await body.next():
                await server.send_all(self._as_sent(block, body))
                if self.takes_bytes is not None and body.passed >= self.takes_bytes:
                    raise Cut
                await self._be_slow(block)
            async for said in server:
                if not self.loses_answers:
                    await client.send_all(said)
                    await self._be_slow(said)
        if self.loses_answers:
            raise Cut

    def _as_sent(self, block: bytes, body: "_Body") -> bytes:
        """Return what of a block reaches the server."""
        if self.spoils and not body.left:
            block = block[:-1] + bytes([block[-1] ^ 1])
        begin = body.passed - len(block)
        return block if self.takes_bytes is None else block[: max(0, self.takes_bytes - begin)]

    async def _be_slow(self, block: Sized) -> None:
        if self.bytes_per_second:
            await trio.sleep(len(block) / self.bytes_per_second)


class _Body:
    """A request's body, in blocks.

    Attributes:
        passed: how many bytes of it were returned.
        left: how many were not.
    """

    def __init__(self, client: trio.SocketStream, begun: bytes, size: int) -> None:
        self._client = client
        self._begun = begun
        self.passed, self.left = 0, size

    async def next(self) -> bytes:
        """Return some more, nothing at the end."""
        if not self.left:
            return b""
        block = self._begun or await _some(self._client)
        self._begun = b""
        self.passed += len(block)
        self.left -= len(block)
        assert self.left >= 0, "the client sent more than it said"
        return block

    async def read_all(self) -> None:
        """Pass over what is left."""
        while await self.next():
            pass


async def _read_head(client: trio.SocketStream) -> tuple[Request, bytes]:
    """Read a request's head, and what came with it of the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _some(client)
        assert len(data) < HEAD_BYTES, "an endless head"
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, path, _ = first.decode().split(" ")
    pairs = (line.split(b":", 1) for line in lines)
    headers = tuple((name.lower(), value.strip()) for name, value in pairs)
    request = Request(method, path, headers)
    assert not request.header(b"transfer-encoding"), "turbod says how long its bodies are"
    return request, body


async def _some(client: trio.SocketStream) -> bytes:
    data = bytes(await client.receive_some(BLOCK_BYTES))
    if not data:
        raise Cut
    return data


def _answer_of(status: int, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>a fault</Message></Error>"
    head = f"HTTP/1.1 {status} Fault", "Content-Type: application/xml", "Connection: close"
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode()
