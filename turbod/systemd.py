"""Speaks with systemd where it started us: how we are, its sockets, its credentials.

Nothing here needs systemd: started by hand, nobody is told anything and there are no sockets.
"""

import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START of sd-daemon.h
MAX_STATUS_CHARACTERS: Final = 400
FOLDER: Final = "turbod"  # LoadCredential= of systemd/turbod.service
_is_number = re.compile("[0-9]{1,20}").fullmatch


class Notifier:
    """Tells the service manager how we are, after sd_notify(3).

    What cannot be told is lost: the manager draws its own conclusions from silence.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket: socket.socket | None = None
        if address := environment.get("NOTIFY_SOCKET"):
            # A leading @ stands for the abstract namespace.
            self._address = "\0" + address[1:] if address.startswith("@") else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Say that we serve: after the start, and after a reload."""
        self._tell("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Say in words how we are."""
        self._tell(_status(status))

    def reloading(self) -> None:
        """Say that the settings are being read again; `ready` ends that."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=Reading the settings again")

    def stopping(self, status: str) -> None:
        """Say that we end."""
        self._tell("STOPPING=1", _status(status))

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time from now on, to start or to stop."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def close(self) -> None:
        """Tell nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)


class Inherited(msgspec.Struct, frozen=True):
    """A descriptor that a socket unit passed: its FileDescriptorName and its number."""

    name: str
    descriptor: int


def inherited(environment: Mapping[str, str], *, pid: int) -> Sequence[Inherited]:
    """Return what a socket unit passed to the process, after sd_listen_fds_with_names(3).

    Raises:
        OSError: there is no such descriptor.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return ()
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    count = _number(environment.get("LISTEN_FDS", ""))
    numbers = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count)
    for number in numbers:
        os.set_inheritable(number, False)
    names += ["unknown"] * (count - len(names))
    return [Inherited(name, number) for name, number in zip(names, numbers, strict=False)]


def watchdog_seconds(environment: Mapping[str, str], *, pid: int) -> float | None:
    """Return within which time the manager wants to hear from us, after sd_watchdog_enabled(3)."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = _number(environment.get("WATCHDOG_USEC", ""))
    return microseconds / 1_000_000 if microseconds else None


def credential(environment: Mapping[str, str], name: str) -> Path | None:
    """Return the file of a credential that was passed (systemd.exec(5), LoadCredential=).

    Where a unit passes a folder, as ours does since each of its files may be absent, the name is
    behind the folder's.

    Raises:
        OSError: whether it was cannot be known.
    """
    if not (folder := environment.get("CREDENTIALS_DIRECTORY")):
        return None
    paths = (Path(folder, name), Path(folder, f"{FOLDER}_{name}"))
    return next((path for path in paths if path.is_file()), None)


def _number(text: str) -> int:
    """Return a variable's number; 0 where it holds none."""
    return int(text) if _is_number(text) else 0


def _status(text: str) -> str:
    """Return one line that does nothing to a terminal; systemd takes nothing but UTF-8."""
    words = " ".join(text.split())[:MAX_STATUS_CHARACTERS]
    return f"STATUS={''.join(each if each.isprintable() else '?' for each in words)}"
