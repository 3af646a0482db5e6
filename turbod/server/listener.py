"""Accepts connections, within bounds, and goes on whatever accept() says."""

import errno
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog
import trio

from turbod import causes, heartbeat
from turbod.server.admission import Admission, Ticket
from turbod.server.connection import Ledger, send_last
from turbod.server.request import Refusal

FULL_SECONDS: Final = 0.1  # before accepting again where no descriptor was left
MAX_REFUSALS: Final = 64  # that are being read at once; above, the socket is closed at once

_TODO = "raise the limit of open files: LimitNOFILE= in the unit, or ulimit -n"
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}

log = structlog.get_logger()


class Doorkeeper:
    """Takes connections from listeners and hands those that are admitted to `serve`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        admission: Admission,
        ledger: Ledger,
        serve: Callable[[trio.SocketStream, Ticket], Awaitable[None]],
    ) -> None:
        self._nursery = nursery
        self._admission = admission
        self._ledger = ledger
        self._serve = serve
        self._refusals = 0

    async def run(
        self,
        listener: trio.SocketListener,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Accept until cancelled; closes the listener then."""
        async with listener:
            task_status.started()
            with heartbeat.beating("accept"):
                while True:
                    await self._accept(listener)

    async def _accept(self, listener: trio.SocketListener) -> None:
        try:
            with heartbeat.resting():
                self._take(await listener.accept())
        except OSError as error:
            if error.errno not in _FULL:
                raise
            log.warning("accept_failed", error=causes.words(error), todo=_TODO)
            await trio.sleep(FULL_SECONDS)

    def _take(self, stream: trio.SocketStream) -> None:
        try:
            ticket = self._admission.admit(_address(stream))
        except Refusal as refusal:
            self._ledger.refused[refusal.name] += 1
            self._nursery.start_soon(self._refuse, stream, refusal)
        else:
            self._nursery.start_soon(self._serve, stream, ticket)

    async def _refuse(self, stream: trio.SocketStream, refusal: Refusal) -> None:
        self._refusals += 1
        try:
            if self._refusals <= MAX_REFUSALS:
                await send_last(stream, refusal.answer())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self._refusals -= 1
            await trio.aclose_forcefully(stream)


def _address(stream: trio.SocketStream) -> str:
    try:
        name = stream.socket.getpeername()
    except OSError:  # it was reset before it was accepted
        return ""
    return str(name[0]) if isinstance(name, tuple) else str(name)
