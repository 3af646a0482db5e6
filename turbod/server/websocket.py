"""One WebSocket behind its handshake: whole frames out under a deadline, messages in, the close.

wsproto does the protocol, this class all the I/O, so that one lock orders our ready-made frames
among its pongs and its close, and no task of a library can raise past our guard.
"""

import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from turbod import frames

MAX_CLIENT_MESSAGE_BYTES: Final = 1_000_000
MAX_UNFINISHED_BYTES: Final = 32 * 1024 * 1024  # of client messages, over all connections
PIECE_BYTES: Final = 64 * 1024
GOODBYE_SECONDS: Final = 2.0  # for a client to answer our close
RECEIVE_BYTES: Final = 16 * 1024

OnMessage = Callable[[bytes | None], None]


class Close(msgspec.Struct, frozen=True):
    """How the server ends a connection."""

    code: int
    reason: str = ""


class Gone(Exception):
    """Nothing more can be sent: the client left, was stuck, or a close was sent."""


class _Closing(Exception):
    """The reader said goodbye for the client's fault."""


class Unfinished:
    """Bytes of client messages whose end has not come, over all connections."""

    def __init__(self, max_bytes: int = MAX_UNFINISHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self.bytes = 0

    def add(self, size: int) -> bool:
        """Count bytes that were received; False where they exceed the bound."""
        self.bytes += size
        return self.bytes <= self._max_bytes

    def remove(self, size: int) -> None:
        """Count bytes whose message is whole or given up."""
        self.bytes -= size
        assert self.bytes >= 0, "more bytes removed than added"


class WebSocket:
    """A connection on which the handshake is done.

    `receive` runs in a task of its own and ends with the connection. Whoever made it closes the
    stream.

    Attributes:
        was_reset: the client was stuck, or sent too much at once: close with `reset`.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        *,
        received: bytes,
        stuck_seconds: float,
        unfinished: Unfinished,
    ) -> None:
        self._stream = stream
        self._protocol = Connection(ConnectionType.SERVER, trailing_data=received)
        self._stuck_seconds = stuck_seconds
        self._unfinished = unfinished
        self._message = bytearray()
        self._lock = trio.StrictFIFOLock()
        self._is_broken = False  # a frame was begun and not finished: nothing may follow it
        self._is_closing = False
        self._blocked_seconds = 0.0  # for which more was waiting, while it took `_taken` bytes
        self._taken = 0
        self._peer_closed = trio.Event()
        self.was_reset = False

    async def send(self, *parts: bytes) -> None:
        """Send what is one whole frame, or several, in at most 1,024 parts.

        Checkpoints only where the client does not take all of it at once.

        Raises:
            Gone: the frame was not sent whole, and nothing can follow.
        """
        if self._lock.locked():
            await self._lock.acquire()
        else:
            self._lock.acquire_nowait()
        try:
            if self._is_closing:
                raise Gone
            await self._write(parts)
        finally:
            self._lock.release()

    async def ping(self) -> None:
        """Send a ping whose pong nobody waits for.

        Raises:
            Gone: as `send`.
        """
        await self.send(frames.frame(b"", frames.PING))

    async def close(self, code: int, reason: str = "") -> None:
        """Say goodbye, once, and wait a moment for the answer."""
        try:
            await self._respond(CloseConnection(code=code, reason=reason))
        except Gone:
            return
        await self.last_words()

    async def receive(self, on_message: OnMessage) -> None:
        """Read until the connection ends; give each text message as bytes, None for a binary one.

        A message that is too long is answered with 1009, what breaks the protocol with its code.
        """
        try:
            await self._receive(on_message)
        except _Closing:
            await self._linger()
        except Gone:
            pass
        finally:
            self._forget_message()
            self._peer_closed.set()

    async def last_words(self) -> None:
        """After a close of ours wait a moment for the client: a reset would overtake it."""
        if self._is_closing and not self._is_broken:
            with trio.move_on_after(GOODBYE_SECONDS):
                await self._peer_closed.wait()

    async def _linger(self) -> None:
        """Pass over what still comes behind a close of ours, up to the client's own or its end."""
        with trio.move_on_after(GOODBYE_SECONDS):
            while await self._receive_some():
                pass

    async def _receive(self, on_message: OnMessage) -> None:
        while True:
            for event in self._protocol.events():
                await self._handle(event, on_message)
                if self._is_over():
                    return
                # One read may hold 2,700 empty frames, which take 14 ms.
                await trio.lowlevel.checkpoint()
            data = await self._receive_some()
            if not data:
                return
            self._protocol.receive_data(bytes(data))

    async def _receive_some(self) -> bytes | bytearray:
        """Return what comes next, nothing at the end."""
        try:
            return await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _handle(self, event: Event, on_message: OnMessage) -> None:
        if isinstance(event, CloseConnection):
            await self._answer_close(event)
        elif self._is_closing:
            return
        elif isinstance(event, Ping):
            await self._respond(event.response())
        elif isinstance(event, TextMessage):
            await self._collect(
                event.data.encode(), on_message, is_finished=event.message_finished, is_text=True
            )
        elif isinstance(event, BytesMessage):
            await self._collect(
                event.data, on_message, is_finished=event.message_finished, is_text=False
            )

    async def _answer_close(self, event: CloseConnection) -> None:
        """Answer the client's close, or close with the code of what wsproto found broken."""
        if self._is_over():  # it answered ours
            return
        await self._respond(event.response())
        if not self._is_over():
            raise _Closing  # behind a broken frame nothing can be understood, a close neither

    def _is_over(self) -> bool:
        """Whether both sides have said goodbye."""
        return self._protocol.state is ConnectionState.CLOSED

    async def _collect(
        self, data: bytes | bytearray, on_message: OnMessage, *, is_finished: bool, is_text: bool
    ) -> None:
        self._message += data
        if not self._unfinished.add(len(data)):
            self.was_reset = True
            raise Gone
        if len(self._message) > MAX_CLIENT_MESSAGE_BYTES:
            self._forget_message()
            reason = f"a message may have {MAX_CLIENT_MESSAGE_BYTES} bytes"
            await self._respond(CloseConnection(code=1009, reason=reason))
            raise _Closing
        if is_finished:
            message = bytes(self._message) if is_text else None
            self._forget_message()
            on_message(message)

    def _forget_message(self) -> None:
        self._unfinished.remove(len(self._message))
        self._message = bytearray()

    async def _respond(self, event: Event) -> None:
        async with self._lock:
            if self._is_closing and not isinstance(event, CloseConnection):
                return
            try:
                data = self._protocol.send(event)
            except LocalProtocolError:  # a close was sent before
                raise Gone from None
            self._is_closing = self._is_closing or isinstance(event, CloseConnection)
            await self._write((data,))

    async def _write(self, parts: Sequence[bytes]) -> None:
        """Write under the lock. What is cancelled or fails half-way is never gone on with."""
        if self._is_broken:
            raise Gone
        self._is_broken = True
        sent = self._write_now(parts)
        if self._blocked_seconds:
            self._took(sent)
        for part in parts:
            if sent < len(part):
                await self._write_slowly(memoryview(part)[sent:])
            sent = max(sent - len(part), 0)
        self._is_broken = False

    def _write_now(self, parts: Sequence[bytes]) -> int:
        """Write what the kernel takes at once, without a trip through the scheduler."""
        try:
            return os.writev(self._stream.socket.fileno(), parts)
        except BlockingIOError:
            return 0
        except OSError:
            raise Gone from None

    async def _write_slowly(self, data: memoryview) -> None:
        """Write to a client that does not take all at once, but takes 64 KiB in `stuck_seconds`.

        What counts is the time for which more was waiting, over as many frames as it takes: a
        client cannot win by taking a little now and then, nor lose by a stream that is quiet.
        """
        try:
            while data:
                piece = data[: PIECE_BYTES - self._taken]
                started = trio.current_time()
                with trio.fail_after(max(self._stuck_seconds - self._blocked_seconds, 0)):
                    await self._stream.send_all(piece)
                self._blocked_seconds += trio.current_time() - started
                self._took(len(piece))
                data = data[len(piece) :]
        except trio.TooSlowError:
            self.was_reset = True
            raise Gone from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone from None

    def _took(self, size: int) -> None:
        self._taken += size
        if self._taken >= PIECE_BYTES:
            self._taken, self._blocked_seconds = 0, 0.0


def reset(stream: trio.SocketStream) -> None:
    """Let the next close be a TCP reset, which drops what the client has not taken."""
    try:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:  # it is gone already
        return
