"""What a service manager hears of its processes."""

import socket
from collections.abc import Sequence
from pathlib import Path


class Manager:
    """Hears what a process tells the service manager."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.address)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._heard: list[str] = []

    @property
    def heard(self) -> Sequence[str]:
        """Every line so far, in order."""
        while True:
            try:
                self._heard += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self._heard

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()
