"""The sockets that turbod serves on: those of a systemd socket unit, or its own."""

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
import trio

from turbod import listen_address, systemd
from turbod.start import CannotStart, may_pass
from turbod.systemd import Inherited

NAME: Final = "http"  # FileDescriptorName= of the socket unit

log = structlog.get_logger()


async def open_listeners(
    address: str, environment: Mapping[str, str]
) -> Sequence[trio.SocketListener]:
    """Return the listeners that systemd passed; where it passed none, new ones on an address.

    Raises:
        CannotStart: they cannot be had.
    """
    try:
        passed = systemd.inherited(environment, pid=os.getpid())
    except OSError as error:
        raise CannotStart(
            f"LISTEN_FDS={environment['LISTEN_FDS']}: {error.strerror}; unset what a socket unit "
            "sets, or let one start turbod",
            retry=False,
        ) from None
    if not passed:
        return await _own(address)
    ours = [each for each in passed if each.name == NAME]
    others = sorted({each.name for each in passed if each.name != NAME})
    if not ours:
        raise _wrong_socket(f"{', '.join(others)}: none is named {NAME}; set FileDescriptorName=")
    if others:
        log.warning("sockets_ignored", names=others, todo=f"name it {NAME}, or remove it")
    return [_listener(each) for each in ours]


def _listener(passed: Inherited) -> trio.SocketListener:
    """Return the listener of a descriptor, after a look at what it is."""
    try:
        listening = socket.socket(fileno=passed.descriptor)
        is_listening = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise _wrong_socket(f"{passed.name}: {error.strerror}; use ListenStream=") from None
    if listening.family not in {socket.AF_INET, socket.AF_INET6}:
        raise _wrong_socket(f"{passed.name}: no internet socket; set ListenStream=ADDRESS:PORT")
    if listening.type != socket.SOCK_STREAM:
        raise _wrong_socket(f"{passed.name}: no stream socket; use ListenStream=")
    if not is_listening:
        raise _wrong_socket(f"{passed.name}: a connection, no listening socket; set Accept=no")
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _wrong_socket(what: str) -> CannotStart:
    return CannotStart(f"socket from systemd: {what} in turbod.socket", retry=False)


async def _own(address: str) -> Sequence[trio.SocketListener]:
    host, port = listen_address.split(address)
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except UnicodeError as error:  # no name that DNS could know
        raise CannotStart(f"--listen {address}: {error}", retry=False) from None
    except OSError as error:
        reason = f"{error.strerror or error}; choose another address or port"
        if error.errno == errno.EADDRINUSE or "in use" in str(error):
            reason = "the port is in use; stop what uses it, or choose another port"
        raise CannotStart(f"--listen {address}: {reason}", retry=may_pass(error)) from None
