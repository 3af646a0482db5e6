"""The server whole: listeners, connections, subscribers, and their orderly end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import trio

from turbod.config import ServerSettings
from turbod.cursor import SECOND_US
from turbod.histogram import BEHIND_SECONDS, Distribution, Histogram
from turbod.server.admission import Admission
from turbod.server.archive_listing import ArchiveListing
from turbod.server.connection import Connections
from turbod.server.guard import Guard
from turbod.server.interests import Interests
from turbod.server.listener import Doorkeeper
from turbod.server.packing import Packer, Withhold
from turbod.server.services import Services
from turbod.server.source import Log
from turbod.server.status import Lookback, Plain
from turbod.server.tokens import Tokens

AT_THE_DOOR_SECONDS: Final = 0.5


class ServerStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and what there is now.

    Attributes:
        connections: open now, those in handshake included.
        handshakes: open now that have not sent a whole request.
        untold: requests of trusted proxies that did not tell the client's address.
        in_memory: subscribers to whom memory has all that they have not been sent.
        on_disk: the other subscribers.
        archive_readers: connections that are served from objects.
        history_seconds: for which history held the event loop.
        messages: sent to subscribers, those about the connection included.
        refused: answers by the name of the error.
        resets: of clients that were stuck or held too much.
        errors: connections that failed by a mistake of our own.
        filter_dids: DIDs in the filters of all subscribers.
        unfinished_bytes: of client messages whose end has not come.
        tokens: connections open with each, by its name.
        wrong_tokens: sent since the start.
        behind_seconds: how far the subscribers are behind the newest record now.
        farthest_behind_seconds: the last of them.
        delivery_seconds: from publishing to having sent, where subscribers keep up; sampled.
    """

    connections: int
    handshakes: int
    untold: int
    subscribers: int
    in_memory: int
    on_disk: int
    archive_readers: int
    history_seconds: float
    messages: int
    records: int
    bytes: int
    answered: int
    refused: dict[str, int]
    resets: int
    errors: int
    filter_dids: int
    unfinished_bytes: int
    tokens: dict[str, int]
    wrong_tokens: int
    behind_seconds: Distribution
    farthest_behind_seconds: float
    delivery_seconds: Distribution


class Server:
    """Serves the log to subscribers, and plain GETs.

    Args:
        settings: bounds and deadlines.
        log: what is served.
        collections: NSIDs, or prefixes ending `.*`, that the log holds.
        upstream_state: `live`, `catching_up` or `stalled`, for `#cursor`.
        status: what /status answers.
        metrics: what /metrics answers.
        ready: whether a new subscriber can be served, and what /readyz says beside it.
        withhold: what a record's line becomes before it is passed on; None leaves it out.
        now_us: the clock.
        lookback: what the paths below /status answer, by path.
        archive: what /archive answers; None for nothing.
        tokens: who may connect; None for everybody.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        log: Log,
        collections: Sequence[str],
        upstream_state: Callable[[], str],
        status: Callable[[], Mapping[str, Any]],
        metrics: Callable[[], bytes],
        ready: Callable[[], tuple[bool, Mapping[str, Any]]],
        withhold: Withhold | None = None,
        now_us: Callable[[], int],
        lookback: Mapping[str, Lookback] | None = None,
        archive: ArchiveListing | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._settings = settings
        self._packer = Packer(withhold=withhold)
        self._interests = Interests(max_dids=settings.max_filter_dids)
        self._services = Services(
            log,
            packer=self._packer,
            interests=self._interests,
            served=tuple(collections),
            archive_readers=settings.max_history_readers,
            upstream_state=upstream_state,
            now_us=now_us,
        )
        self._plain = Plain(
            self._services,
            status=status,
            metrics=metrics,
            ready=ready,
            archive=archive,
            lookback=lookback,
        )
        self._archive = archive
        self._admission = Admission(settings)
        self._guard = Guard(settings, tokens)
        self._connections = Connections(settings, self._services, self._plain, self._guard)
        self._accepting: trio.CancelScope | None = None
        self._serving: trio.CancelScope | None = None
        self._all_gone = trio.Event()

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until drained or cancelled; owns the listeners and closes them."""
        try:
            async with trio.open_nursery() as clock:
                clock.start_soon(self._connections.tick)
                await self._serve(listeners, task_status)
                clock.cancel_scope.cancel()
        finally:
            self._all_gone.set()

    async def _serve(
        self, listeners: Sequence[trio.SocketListener], task_status: trio.TaskStatus[None]
    ) -> None:
        # Connections outlive the listeners, so that they can be told goodbye.
        async with trio.open_nursery() as connections:
            self._serving = connections.cancel_scope
            keeper = Doorkeeper(
                connections,
                admission=self._admission,
                ledger=self._connections.ledger,
                serve=self._connections.serve,
            )
            async with trio.open_nursery() as accepting:
                self._accepting = accepting.cancel_scope
                for listener in listeners:
                    await accepting.start(keeper.run, listener)
                task_status.started()

    async def drain(self, *, seconds: float) -> None:
        """Accept no more, say bye to every subscriber, wait, then abort who is left.

        Returns when `run` has ended; at once where it never ran.
        """
        if self._accepting is None or self._serving is None:
            self._connections.is_draining = True
            return
        self._accepting.cancel()
        await self._let_in()
        self._connections.is_draining = True
        for subscriber in self._connections.subscribers:
            subscriber.stop()
        if self._archive is not None:
            self._archive.stop()
        with trio.move_on_after(seconds):
            await self._all_gone.wait()
        self._serving.cancel()
        await self._all_gone.wait()

    async def _let_in(self) -> None:
        """Wait a moment for who was accepted and has not said yet what he wants: he is served."""
        with trio.move_on_after(AT_THE_DOOR_SECONDS):
            while self._admission.handshakes:  # noqa: ASYNC110 - a short time, once
                await trio.sleep(AT_THE_DOOR_SECONDS / 50)

    @property
    def known_tokens(self) -> int | None:
        """How many there are; None where nobody needs one."""
        return self._guard.known_tokens

    def set_tokens(self, tokens: Tokens | None) -> None:
        """Let these hold from now on, or let everybody in.

        Who is connected without one of them has to go at once; for the others the limits hold with
        which they came.
        """
        self._guard.set_tokens(tokens)
        if self._archive is not None:
            self._archive.check_downloads()

    def adapt(self, *, collections: Sequence[str]) -> None:
        """Take up settings that have changed, and what the log holds from now on.

        Who is connected stays, whatever is allowed to those who come.
        """
        self._services.served = tuple(collections)
        self._services.archive.resize(self._settings.max_history_readers)
        self._interests.max_dids = self._settings.max_filter_dids
        self._plain.adapt()

    def withhold(self, withhold: Withhold | None) -> None:
        """Pass on what this makes of each line, built anew; None for all as it is."""
        self._packer.withhold = withhold
        self._packer.forget()

    def statistics(self) -> ServerStatistics:
        """Return what there is now and what was since the start."""
        connections, traffic = self._connections, self._services.traffic
        subscribers = len(connections.subscribers)
        in_memory = sum(subscriber.is_live for subscriber in connections.subscribers)
        behind = Histogram(BEHIND_SECONDS)
        seconds_behind = [each.behind_us / SECOND_US for each in connections.subscribers]
        for seconds in seconds_behind:
            behind.add(seconds)
        return ServerStatistics(
            connections=self._admission.connections,
            handshakes=self._admission.handshakes,
            untold=self._admission.untold,
            subscribers=subscribers,
            in_memory=in_memory,
            on_disk=subscribers - in_memory,
            archive_readers=self._services.archive.taken,
            history_seconds=self._services.pace.worked_seconds,
            messages=traffic.messages,
            records=traffic.records,
            bytes=traffic.bytes,
            answered=connections.ledger.answered,
            refused=dict(connections.ledger.refused),
            resets=connections.ledger.resets,
            errors=connections.ledger.errors,
            filter_dids=self._interests.dids,
            unfinished_bytes=connections.unfinished.bytes,
            tokens=self._guard.connections(),
            wrong_tokens=self._guard.wrong_tokens,
            behind_seconds=behind.distribution(),
            farthest_behind_seconds=max(seconds_behind, default=0.0),
            delivery_seconds=traffic.delivery_seconds.distribution(),
        )
