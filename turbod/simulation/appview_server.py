"""The simulated AppView's listener."""

from collections.abc import Callable

import h11
import structlog
import trio

from turbod.simulation.appview import AppView
from turbod.simulation.exchange import Exchange
from turbod.simulation.index import Index
from turbod.simulation.jetstream_host import clock_us
from turbod.simulation.loopback import LoopbackServer

log = structlog.get_logger()


class AppViewServer(AppView, LoopbackServer):
    """An AppView on a port of loopback."""

    def __init__(
        self,
        index: Index,
        *,
        seed: int = 1,
        port: int = 0,
        now_us: Callable[[], int] = clock_us,
    ) -> None:
        AppView.__init__(self, index, now_us=now_us, seed=seed)
        LoopbackServer.__init__(self, port)

    @property
    def url(self) -> str:
        """What to give to `--appview`."""
        return f"http://127.0.0.1:{self.port}"

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
