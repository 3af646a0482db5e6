"""All parts of turbod in the test's own process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from turbod.config import Settings, UpstreamSettings
from turbod.daemon import Daemon

NOWHERE = "127.0.0.1:1"


@asynccontextmanager
async def running(
    data: Path,
    *,
    exclude: str = "",
    jetstream: UpstreamSettings | None = None,
    listeners: list[trio.SocketListener] | None = None,
) -> AsyncIterator[Daemon]:
    """Run the parts on a folder, with nobody to talk to; the end is as sudden as a crash."""
    settings = Settings(
        data=str(data),
        listen="127.0.0.1:0",
        upstream=(f"ws://{NOWHERE}/subscribe",),
        appview=f"http://{NOWHERE}",
        exclude=exclude,
        jetstream=jetstream or UpstreamSettings(),
    )
    listeners = listeners or await trio.open_tcp_listeners(0, host="127.0.0.1")
    daemon = Daemon(settings, data)
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run, listeners)
        yield daemon
        nursery.cancel_scope.cancel()
    daemon.close()
