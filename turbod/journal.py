"""The journal's own protocol: an event is one datagram of named fields.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import errno
import os
import re
import socket
from collections.abc import Mapping
from typing import Final, Literal

SOCKET: Final = "/run/systemd/journal/socket"
CUT_CHARACTERS: Final = 1000  # that remain of a message too long for a datagram
_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
_is_name = re.compile("[A-Z][A-Z0-9_]{0,63}").fullmatch

Outcome = Literal["taken", "full", "away"]


def is_at(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Tell whether what is written there goes to the journal: $JOURNAL_STREAM, systemd.exec(5)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def datagram(fields: Mapping[str, str]) -> bytes:
    """Return fields as the journal reads them, values of more than one line with their size."""
    parts = []
    for name, value in fields.items():
        assert _is_name(name), f"{name!r} is no name of a field"
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts += [name.encode(), b"\n", len(data).to_bytes(8, "little"), data, b"\n"]
        else:
            parts += [name.encode(), b"=", data, b"\n"]
    return b"".join(parts)


class Journal:
    """Sends to the journal; it never waits and never raises."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, fields: Mapping[str, str]) -> Outcome:
        """Send an event, or what of it is short where the journal takes no such length.

        Returns:
            `full` where the journal does not keep up, `away` where there is none.
        """
        try:
            self._send(fields)
        except OSError as error:
            return "full" if error.errno in _FULL else "away"
        return "taken"

    def _send(self, fields: Mapping[str, str]) -> None:
        data = datagram(fields)
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._socket.sendto(datagram(_cut(fields, len(data))), self._path)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _cut(fields: Mapping[str, str], size: int) -> dict[str, str]:
    """Return the short fields, with a mark that there were others."""
    short = {name: value for name, value in fields.items() if len(value) <= CUT_CHARACTERS}
    message = fields.get("MESSAGE", "")[:CUT_CHARACTERS]
    return {**short, "MESSAGE": f"{message} … cut", "TURBOD_CUT_BYTES": str(size)}
