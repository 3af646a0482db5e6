"""Looks at the Jetstream hosts: connects to each as turbod does, and waits for one event."""

import socket
import time
from typing import Final, Literal

import msgspec
import trio

from turbod.check.finding import Finding
from turbod.check.network_verdicts import HostSeen, judge_hosts
from turbod.config import Settings
from turbod.envelope import Malformed
from turbod.event import parse
from turbod.upstream.connection import Connection, Disconnected, address_of, connect
from turbod.upstream.subscription import Subscription

HANDSHAKE_SECONDS: Final = 5.0
EVENT_SECONDS: Final = 4.0


async def look(settings: Settings) -> list[Finding]:
    """Return a line a host."""
    seen: dict[str, HostSeen] = {}
    wanted = Subscription(settings.collections).wanted
    hosts = tuple(dict.fromkeys(settings.upstream))
    async with trio.open_nursery() as nursery:
        for url in hosts:
            nursery.start_soon(_see, url, wanted, seen)
    return judge_hosts([seen[url] for url in hosts])


async def _see(url: str, wanted: tuple[str, ...], seen: dict[str, HostSeen]) -> None:
    began = trio.current_time()
    query = [("wantedCollections", name) for name in wanted]
    try:
        connection = await connect(address_of(url), query=query, deadline_seconds=HANDSHAKE_SECONDS)
    except Disconnected as error:
        seen[url] = HostSeen(url, _trouble(error), str(error))
        return
    host = HostSeen(url, connect_seconds=trio.current_time() - began)
    try:
        seen[url] = await _first_event(connection, host)
    except Disconnected as error:
        seen[url] = HostSeen(url, "after", str(error))
    finally:
        await connection.aclose()


async def _first_event(connection: Connection, host: HostSeen) -> HostSeen:
    """Return when an event came and how old it was."""
    began = trio.current_time()
    malformed = 0
    lag: float | None = None
    with trio.move_on_after(EVENT_SECONDS):
        while lag is None:
            for message in await connection.receive():
                try:
                    lag = time.time() - parse(message).time_us / 1_000_000
                    break
                except Malformed:
                    malformed += 1
    waited = trio.current_time() - began
    return msgspec.structs.replace(
        host, waited_seconds=waited, lag_seconds=lag, malformed=malformed
    )


def _trouble(error: Disconnected) -> Literal["name", "connect", "tls", "upgrade"]:
    """Return at which step it failed."""
    if isinstance(error.__cause__, socket.gaierror):
        return "name"
    step = str(error).partition(":")[0]
    if "TLS" in step:
        return "tls"
    return "connect" if "connect" in step else "upgrade"
