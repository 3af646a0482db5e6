"""Looks at the port: whether it is free, or who has it."""

import errno
import socket
import subprocess
from pathlib import Path
from typing import Final

import httpx
import msgspec
import trio

from turbod.check.finding import Finding
from turbod.check.local_verdicts import Holder, PortSeen, judge_port
from turbod.config import Settings
from turbod.data_folder import is_held
from turbod.hydration.call import Unanswered, get
from turbod.listen_address import split, url_of

ASK_SECONDS: Final = 3.0
_LIST_SOCKETS: Final = ("systemctl", "list-sockets", "--no-legend", "--no-pager", "--full")


async def look(settings: Settings) -> list[Finding]:
    """Return whether clients could connect."""
    data, listen = Path(settings.data), settings.listen
    reason, is_taken = await trio.to_thread.run_sync(_bind, *split(listen), abandon_on_cancel=True)
    seen = PortSeen(
        listen,
        reason=reason,
        is_data_held=await trio.to_thread.run_sync(is_held, data, abandon_on_cancel=True),
    )
    return judge_port(await _with_holder(seen) if is_taken else seen)


def _bind(host: str, port: int) -> tuple[str, bool]:
    """Take the port for a moment, without listening: who begins to listen meanwhile may.

    Returns:
        Why it could not be had, and whether because somebody listens there.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(address)
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or str(error)
        return words, getattr(error, "errno", None) == errno.EADDRINUSE
    return "", False


async def _with_holder(seen: PortSeen) -> PortSeen:
    """Add who listens there.

    Where systemd does, it is not asked: the first connection would start the service.
    """
    unit, service = await _unit_of(split(seen.address)[1])
    if unit:
        holder: Holder = "systemd" if "turbod" in service else "other"
        return msgspec.structs.replace(seen, holder=holder, detail=unit)
    version = await _version(url_of(seen.address))
    if version is None:
        return msgspec.structs.replace(seen, holder="other")
    return msgspec.structs.replace(seen, holder="turbod", detail=version)


async def _unit_of(port: int) -> tuple[str, str]:
    """Return systemd's socket unit of a port and the service behind it; empty where none is."""
    with trio.move_on_after(ASK_SECONDS):
        try:
            done = await trio.run_process(
                _LIST_SOCKETS, capture_stdout=True, stderr=subprocess.DEVNULL, check=False
            )
        except OSError:
            return "", ""
        return read_units(done.stdout.decode(errors="replace"), port)
    return "", ""


def read_units(text: str, port: int) -> tuple[str, str]:
    """Read lines of LISTEN UNIT ACTIVATES as systemctl list-sockets prints them."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0].endswith(f":{port}"):  # noqa: PLR2004 - the columns
            return words[1], words[2]
    return "", ""


class _Status(msgspec.Struct):
    """What only a turbod says."""

    turbod: str = ""
    error: str = ""


async def _version(url: str) -> str | None:
    """Return the version of the turbod that answers there; None where none does."""
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            reply = await get(client, f"{url}/status", seconds=ASK_SECONDS)
            said = msgspec.json.decode(reply.body, type=_Status)
        except (Unanswered, ValueError, RecursionError):
            return None
    # One that asks for a token does not tell its version.
    return said.turbod if said.turbod or said.error == "AuthRequired" else None
