"""GET of an object: which part of it, its head, and its bytes at the client's pace."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import msgspec
import structlog
import trio

from turbod.archive.stores.store import StoreFault
from turbod.server.admission import too_many_connections
from turbod.server.request import Refusal, Request, answer_head, with_headers
from turbod.server.websocket import PIECE_BYTES, Gone

BLOCK_BYTES: Final = 256 * 1024  # read at once, and all that a download holds
CONCURRENT_DOWNLOADS: Final = 8
IMMUTABLE: Final = "max-age=31536000, immutable"  # RFC 8246: it never changes

log = structlog.get_logger()

_RANGE = re.compile(r"bytes=(?:([0-9]{1,30})-([0-9]{1,30})?|-([0-9]{1,30}))", re.ASCII)

ReadBlock = Callable[[int, int], Awaitable[bytes]]  # of this offset and size


class Stuck(Gone):
    """A client that took less than 64 KiB for too long: to be reset."""


class File(msgspec.Struct, frozen=True):
    """What is served: bytes that never change under one tag.

    Attributes:
        is_private: whether caches may not give to others what they keep of it.
    """

    size: int
    tag: str
    content_type: str
    is_private: bool = False

    @property
    def cache_control(self) -> str:
        """Who may keep it."""
        return f"{'private' if self.is_private else 'public'}, {IMMUTABLE}"

    def headers(self, size: int) -> dict[str, str]:
        """Return the headers of an answer that holds `size` bytes of it."""
        return {
            "Content-Type": self.content_type,
            "Content-Length": str(size),
            "ETag": self.tag,
            "Accept-Ranges": "bytes",
            "Cache-Control": self.cache_control,
        }


class Part(msgspec.Struct, frozen=True):
    """Which bytes of a file are sent, behind which head; none for an answer without a body."""

    head: bytes
    offset: int = 0
    size: int = 0


def choose_part(request: Request, file: File) -> Part:
    """Answer what was asked for, conditions and ranges included (RFC 9110, sections 13 and 14).

    A range that is malformed, of another unit or one of several is passed over: the whole is sent.

    Raises:
        Refusal: 412 for a condition that does not hold, 416 for a range beyond the end.
    """
    if (wanted := request.tokens("if-match")) and not {file.tag, "*"} & set(wanted):
        raise Refusal(412, "PreconditionFailed", f"If-Match: the object's tag is {file.tag}")
    if {file.tag, f"W/{file.tag}", "*"} & set(request.tokens("if-none-match")):
        return Part(answer_head(304, {"ETag": file.tag, "Cache-Control": file.cache_control}))
    if request.is_head:  # which has no ranges
        return Part(answer_head(200, file.headers(file.size)))
    span = _span(request.headers, file)
    if span is None:
        return Part(answer_head(200, file.headers(file.size)), 0, file.size)
    offset, size = span
    content_range = {"Content-Range": f"bytes {offset}-{offset + size - 1}/{file.size}"}
    return Part(answer_head(206, file.headers(size) | content_range), offset, size)


def _span(headers: Mapping[str, str], file: File) -> tuple[int, int] | None:
    asked = _RANGE.fullmatch(headers.get("range", ""))
    if asked is None or headers.get("if-range", file.tag) != file.tag:
        return None
    first, last, suffix = (None if text is None else int(text) for text in asked.groups())
    if first is None:
        assert suffix is not None, "the pattern has one or the other"
        first, last = max(file.size - suffix, 0), file.size - 1
        is_empty = suffix == 0
    else:
        if last is not None and last < first:
            return None  # malformed, says RFC 9110, section 14.1.1
        last = file.size - 1 if last is None else min(last, file.size - 1)
        is_empty = first >= file.size
    if is_empty:
        raise Refusal(
            416,
            "RangeNotSatisfiable",
            f"the object has {file.size} bytes",
            headers={"Content-Range": f"bytes */{file.size}"},
        )
    return first, last - first + 1


class Outlet:
    """Takes a long answer piece by piece, as fast as the client does; adds headers to its head."""

    def __init__(
        self,
        stream: trio.SocketStream,
        *,
        stuck_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._stream = stream
        self._stuck_seconds = stuck_seconds
        self._headers = headers or {}

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            Stuck: the client did not take 64 KiB of it in time.
        """
        view = memoryview(with_headers(data, self._headers) if self._headers else data)
        self._headers = {}
        for start in range(0, len(view), PIECE_BYTES):
            with trio.move_on_after(self._stuck_seconds) as patience:
                await self._stream.send_all(view[start : start + PIECE_BYTES])
            if patience.cancelled_caught:
                raise Stuck

    async def while_there(self, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return what the work returns, and cancel it where the client leaves meanwhile.

        One that closes its own side only is taken to have left, too: nothing tells it apart.

        Raises:
            Refusal: as the work does.
            Gone: the client left.
        """
        found: bytes | Refusal | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_left, nursery.cancel_scope)
            try:
                found = await work()
            except Refusal as refusal:
                found = refusal
            nursery.cancel_scope.cancel()
        if found is None:
            raise Gone
        if isinstance(found, Refusal):
            raise found
        return found

    async def _until_left(self, work: trio.CancelScope) -> None:
        """Pass over what it sends; cancel the work when it has closed or was reset."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self._stream.receive_some(PIECE_BYTES):
                pass
        work.cancel()


class Downloads:
    """Sends parts of files to a bounded number of clients at once."""

    def __init__(self) -> None:
        self._under_way: dict[trio.CancelScope, Callable[[], bool]] = {}
        self._is_stopping = False

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._under_way)

    def stop(self) -> None:
        """Cut short what is under way, and all that comes."""
        self._is_stopping = True
        self.check()

    def check(self) -> None:
        """End in its middle what may not go on; a client can do so later with a range."""
        for scope, is_allowed in self._under_way.items():
            if self._is_stopping or not is_allowed():
                scope.cancel()

    async def send(
        self, part: Part, read: ReadBlock, outlet: Outlet, *, is_allowed: Callable[[], bool]
    ) -> None:
        """Send a part; its first block is read before anything is sent.

        Args:
            part: what to send.
            read: reads a block of it.
            outlet: takes it.
            is_allowed: whether its client may have it, asked by `check`.

        Raises:
            Refusal: 429 where too many are under way.
            StoreFault: the first block cannot be read; nothing was sent.
            Gone: cut short, the client was stuck, or a later block cannot be read.
        """
        with self._place(is_allowed) as scope:
            block = await read(part.offset, min(BLOCK_BYTES, part.size))
            await outlet.send(part.head + block)
            await self._send_rest(part, len(block), read, outlet)
        if scope.cancelled_caught:
            raise Gone

    async def _send_rest(self, part: Part, sent: int, read: ReadBlock, outlet: Outlet) -> None:
        try:
            while sent < part.size:
                size = min(BLOCK_BYTES, part.size - sent)
                await outlet.send(await read(part.offset + sent, size))
                sent += size
        except StoreFault as fault:
            log.warning("download_failed", error=str(fault))
            raise Gone from None

    @contextmanager
    def _place(self, is_allowed: Callable[[], bool]) -> Iterator[trio.CancelScope]:
        if len(self._under_way) >= CONCURRENT_DOWNLOADS:
            raise too_many_connections(f"{CONCURRENT_DOWNLOADS} downloads are under way")
        with trio.CancelScope() as scope:
            self._under_way[scope] = is_allowed
            if self._is_stopping:
                scope.cancel()
            try:
                yield scope
            finally:
                del self._under_way[scope]
