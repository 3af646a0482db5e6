"""The simulated AppView's listener."""

from collections.abc import Callable

import h11
import structlog
import trio

from turbod.simulation.appview import AppView
from turbod.simulation.exchange import Exchange
from turbod.simulation.index import Index
from turbod.simulation.jetstream_host import clock_us

log = structlog.get_logger()


class AppViewServer(AppView):
    """An AppView on a port of loopback."""

    def __init__(
        self,
        index: Index,
        *,
        seed: int = 1,
        port: int = 0,
        now_us: Callable[[], int] = clock_us,
    ) -> None:
        super().__init__(index, now_us=now_us, seed=seed)
        self.port = port
        self._up = trio.Event()
        self._up.set()
        self._scope = trio.CancelScope()

    @property
    def url(self) -> str:
        """What to give to `--appview`."""
        return f"http://127.0.0.1:{self.port}"

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
        """Refuse connections and drop those that are there."""
        self._up = trio.Event()
        self._scope.cancel()

    def come_up(self) -> None:
        """Listen again, on the same port."""
        self._up.set()

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.statistics.open_connections += 1
        try:
            await Exchange(self, stream).run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        except* Exception as errors:  # noqa: BLE001 - one client's sin must not end the others
            log.debug("simulated_appview_connection_failed", errors=repr(errors))
        finally:
            self.statistics.open_connections -= 1
            await trio.aclose_forcefully(stream)
