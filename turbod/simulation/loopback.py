"""A server on loopback that can go down and come up again on the same port."""

from abc import ABC, abstractmethod

import trio


class LoopbackServer(ABC):
    """Listens for a simulated service.

    Attributes:
        port: as given, or the free one that was found for 0.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._up = trio.Event()
        self._up.set()
        self._scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, and listen again after `go_down` and `come_up`, until cancelled."""
        while True:
            await self._up.wait()
            with trio.CancelScope() as self._scope:
                listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
                self.port = listeners[0].socket.getsockname()[1]
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await trio.serve_listeners(self._serve, listeners)

    def go_down(self) -> None:
        """Refuse connections and drop those that are there, without a goodbye."""
        self._up = trio.Event()
        self._scope.cancel()

    def come_up(self) -> None:
        """Listen again, on the same port."""
        self._up.set()

    @abstractmethod
    async def _serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
