"""One connection from its first byte: read the head, answer or refuse, or serve a subscriber."""

import socket
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NoReturn

import structlog
import trio

from turbod import heartbeat
from turbod.config import ServerSettings
from turbod.filter import STREAM_PARAMETERS, InvalidRequest, Options, read_query
from turbod.server import origins
from turbod.server.admission import RETRY_AFTER_SECONDS, Ticket
from turbod.server.endpoints import STREAMS, choose_framing
from turbod.server.file_answer import Outlet, Stuck
from turbod.server.guard import Guard, Guest
from turbod.server.interests import Interest, Share, TooManyFilters
from turbod.server.packing import View
from turbod.server.request import HeadReader, Refusal, Request, upgrade_answer, with_headers
from turbod.server.services import Services
from turbod.server.status import Plain, check_archive_room, starting
from turbod.server.subscriber import TICK_SECONDS, Subscriber
from turbod.server.websocket import Gone, Unfinished, WebSocket, reset

KEEPALIVE_IDLE_SECONDS: Final = 60
ANSWER_SECONDS: Final = 30.0  # for a client to take a whole answer
LINGER_SECONDS: Final = 1.0  # for a client to read an answer before the socket closes
LINGER_BYTES: Final = 256 * 1024
HEAD_PIECE_BYTES: Final = 16 * 1024
REVOKED_SECONDS: Final = 5.0  # for a client to take what tells it so

log = structlog.get_logger()


class Ledger:
    """What happened to connections, in plain numbers."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.resets = 0
        self.errors = 0
        self.answered = 0


class Connections:
    """Serves connections; knows the subscribers among them."""

    def __init__(
        self, settings: ServerSettings, services: Services, plain: Plain, guard: Guard
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._services = services
        self._plain = plain
        self.unfinished = Unfinished()
        self.ledger = Ledger()
        self.subscribers: set[Subscriber] = set()
        self.is_draining = False

    async def tick(self) -> NoReturn:
        """Let the clock wake subscribers, until cancelled."""
        with heartbeat.beating("server_clock"):
            while True:
                await heartbeat.sleep(TICK_SECONDS)
                now = trio.current_time()
                for subscriber in self.subscribers:
                    subscriber.tick(now)

    async def serve(self, stream: trio.SocketStream, ticket: Ticket) -> None:
        """Serve one connection to its end; nothing that happens on it leaves here.

        What is raised although nobody expects it is logged and ends this connection only.
        """
        try:
            await self._serve(stream, ticket)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, Gone):
            pass  # the client left
        except* Exception as unexpected:  # noqa: BLE001 - the guard: logged, and it ends one connection only
            self._unexpected(unexpected)
        finally:
            ticket.close()
            await trio.aclose_forcefully(stream)

    def _unexpected(self, error: BaseException) -> None:
        self.ledger.errors += 1
        log.error("connection_failed", exc_info=error)

    async def _serve(self, stream: trio.SocketStream, ticket: Ticket) -> None:
        _set_options(stream, stuck_seconds=self._settings.stuck_seconds)
        headers: Mapping[str, str] = {}
        try:
            request = await self._read_request(stream)
            if request is None:
                return
            ticket.greeted()
            ticket.attribute(request.headers)
            allowed = self._settings.allowed_origins
            origins.check(request, allowed)
            headers = origins.headers(request, allowed)
            if request.method == "OPTIONS":
                await send_last(stream, origins.preflight(request, allowed))
            else:
                await self._admit(stream, request, ticket, headers)
        except Stuck:
            self._reset(stream)
        except Refusal as refusal:
            self.ledger.refused[refusal.name] += 1
            await send_last(stream, refusal.answer(), headers=headers)

    async def _admit(
        self,
        stream: trio.SocketStream,
        request: Request,
        ticket: Ticket,
        headers: Mapping[str, str],
    ) -> None:
        """Serve a guest until it is through, or has to go.

        Raises:
            Refusal: where it is none, or asks for what it cannot have.
        """
        if self.is_draining:
            raise shutting_down()
        with self._guard.admitted(request, ticket.address) as guest, trio.CancelScope() as stay:
            guest.revoke = stay.cancel
            if request.path in STREAMS:
                opened = self._open(stream, request, guest)
                del request  # its head may have 64 KiB, and a subscription lasts
                guest.revoke = partial(_send_away, opened[-1], stay)
                await self._stream(stream, *opened)
                return
            outlet = Outlet(stream, stuck_seconds=self._settings.stuck_seconds, headers=headers)
            send = partial(send_last, stream, headers=headers)
            await self._plain.answer(request, send, outlet, guest=guest)
            self.ledger.answered += 1
        if stay.cancelled_caught:
            self._reset(stream)

    def _reset(self, stream: trio.SocketStream) -> None:
        self.ledger.resets += 1
        reset(stream)

    async def _read_request(self, stream: trio.SocketStream) -> Request | None:
        reader = HeadReader()
        with trio.move_on_after(self._settings.handshake_seconds):
            while True:
                data = await stream.receive_some(HEAD_PIECE_BYTES)
                if not data:
                    return None
                if (request := reader.feed(bytes(data))) is not None:
                    return request
        raise Refusal(
            408,
            "RequestTimeout",
            f"the request head was not whole after {self._settings.handshake_seconds:g} seconds",
        )

    def _open(
        self, stream: trio.SocketStream, request: Request, guest: Guest
    ) -> tuple[bytes, WebSocket, Subscriber]:
        """Return the answer that opens the WebSocket, and who serves it.

        Raises:
            Refusal: for a request that cannot be served, or not now.
        """
        endpoint = STREAMS[request.path]
        framing, echoed = choose_framing(endpoint, request.tokens("sec-websocket-protocol"))
        handshake = upgrade_answer(request, echoed)
        options = self._options(request)
        self._plain.check_ready()
        services = self._services
        position, asked = starting(options.cursor, services)
        if not options.require_hello:  # who says hello first waits its turn, as the lagging do
            check_archive_room(position, services)
        websocket = WebSocket(
            stream,
            received=request.rest,
            stuck_seconds=self._settings.stuck_seconds,
            unfinished=self.unfinished,
        )
        share = guest.share_of(services.interests)
        subscriber = Subscriber(
            websocket,
            services,
            interests=share,
            view=View(
                _interest(options, share),
                framing=framing,
                batch=options.batch,
                compress=options.compress,
            ),
            position=position,
            asked=asked,
            metadata=endpoint.metadata if options.metadata is None else options.metadata,
            require_hello=options.require_hello,
        )
        self.subscribers.add(subscriber)
        return handshake, websocket, subscriber

    async def _stream(
        self,
        stream: trio.SocketStream,
        handshake: bytes,
        websocket: WebSocket,
        subscriber: Subscriber,
    ) -> None:
        try:
            await stream.send_all(handshake)
            await _converse(websocket, subscriber)
        finally:
            self.subscribers.remove(subscriber)
            subscriber.close()
            if websocket.was_reset:
                self._reset(stream)

    def _options(self, request: Request) -> Options:
        try:
            return read_query(request.query, known=STREAM_PARAMETERS, served=self._services.served)
        except InvalidRequest as error:
            raise Refusal(400, "InvalidRequest", str(error)) from None


def _interest(options: Options, share: Share) -> Interest:
    try:
        return share.acquire(options.filter)
    except TooManyFilters as error:
        raise Refusal(
            429,
            "TooManyFilters",
            f"{error}; try again later",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        ) from None


def _send_away(subscriber: Subscriber, stay: trio.CancelScope) -> None:
    """Let a subscriber be told why it has to go, and go without a word where it takes none."""
    subscriber.revoke()
    stay.deadline = min(stay.deadline, trio.current_time() + REVOKED_SECONDS)


async def _converse(websocket: WebSocket, subscriber: Subscriber) -> None:
    """Read and send until either ends."""
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            await websocket.receive(subscriber.take_message)
            nursery.cancel_scope.cancel()

        nursery.start_soon(receive)
        try:
            end = await subscriber.run()
        except* Gone:  # of a group, where it left while history was read
            await websocket.last_words()
        else:
            await websocket.close(end.code, end.reason)
        nursery.cancel_scope.cancel()


async def send_last(
    stream: trio.SocketStream, answer: bytes, *, headers: Mapping[str, str] | None = None
) -> None:
    """Send an answer, and see to it that the client can read it before the socket closes.

    A socket closed with unread bytes in it sends a reset, which would overtake the answer.
    """
    with trio.move_on_after(ANSWER_SECONDS):
        await stream.send_all(with_headers(answer, headers or {}))
        await stream.send_eof()
        with trio.move_on_after(LINGER_SECONDS):
            left = LINGER_BYTES
            while left > 0 and (data := await stream.receive_some(HEAD_PIECE_BYTES)):
                left -= len(data)


def shutting_down() -> Refusal:
    """Return the refusal of a server that is about to end."""
    return Refusal(
        503, "ShuttingDown", "the server shuts down; try again", headers={"Retry-After": "5"}
    )


def _set_options(stream: trio.SocketStream, *, stuck_seconds: float) -> None:
    """Let the kernel notice what is dead: a silent peer, and one that takes nothing."""
    set_option: Callable[[int, int, int], None] = stream.setsockopt
    try:
        set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        set_option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
        set_option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stuck_seconds * 1000))
    except OSError:  # not TCP, or gone already
        return
