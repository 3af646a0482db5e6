"""Readers of history in one process that costs little: raw sockets, epoll, no JSON of records.

Each reads from a cursor until it is told that it is live. Of records only the bytes are counted,
as lines with their breaks: of a compressed message its zstd frame says how many they are.
"""

import json
import select
import socket
import sys
import time
from base64 import b64encode
from typing import Any, Final

import zstandard

_BUFFER_BYTES: Final = 4 * 1024 * 1024
_WORDS_BYTES: Final = (
    4096  # what is said about a connection is shorter, and never so short a record
)
_PEEK_BYTES: Final = 18  # the longest header of a zstd frame
_CLOSE: Final = 0x8


class Reader:
    """One connection.

    Attributes:
        raw_bytes: of records, as lines.
        wire_bytes: all that came.
        gaps: how many it was told of.
        told: what it was told last of its position.
    """

    def __init__(self, port: int, query: str, buffer: memoryview) -> None:
        self.raw_bytes = self.wire_bytes = self.messages = self.gaps = 0
        self.told: dict[str, Any] = {}
        self.begun = time.monotonic()
        self.seconds = 0.0
        self._buffer = buffer
        self._head = bytearray()
        self._kept = bytearray()
        self._left = self._length = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.sendall(
            f"GET /turbostream?{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {b64encode(bytes(16)).decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)
        if not answer.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(answer.decode())

    @property
    def is_done(self) -> bool:
        """Whether it is live."""
        return bool(self.told.get("live"))

    def receive(self) -> None:
        """Take what there is."""
        count = self.socket.recv_into(self._buffer)
        if not count:
            raise RuntimeError(f"the connection ended: {self.told}")
        self.wire_bytes += count
        self._feed(self._buffer[:count])

    def _feed(self, data: memoryview) -> None:
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                at = self._read_head(data, at)
                continue
            take = min(self._left, end - at)
            wanted = self._length if self._length < _WORDS_BYTES else _PEEK_BYTES
            if len(self._kept) < wanted:
                self._kept += data[at : at + min(take, wanted - len(self._kept))]
            self._left -= take
            at += take
            if not self._left:
                self._finish()

    def _read_head(self, data: memoryview, at: int) -> int:
        head = self._head
        part = data[at : at + _head_size(head) - len(head)]
        head += part
        if len(head) > 1 and len(head) == _head_size(head):
            self._left = self._length = int.from_bytes(head[2:], "big") if head[2:] else head[1]
        return at + len(part)

    def _finish(self) -> None:
        kept, opcode = bytes(self._kept), self._head[0] & 0xF
        self._head.clear()
        self._kept.clear()
        if opcode == _CLOSE:
            raise RuntimeError(f"closed: {kept!r} {self.told}")
        is_short = self._length < _WORDS_BYTES
        size = self._length
        if kept[:1] not in {b"[", b"{"}:
            size = zstandard.get_frame_parameters(kept).content_size
            kept = zstandard.decompress(kept) if is_short else b"["
        if kept[:1] == b"[":
            self.messages += 1
            self.raw_bytes += size - 1  # two brackets for the last line's break
        elif (told := json.loads(kept)).get("$type") == "#cursor":
            self.told = told
            self.seconds = time.monotonic() - self.begun
        elif told.get("name") == "Gap":
            self.gaps += 1
        else:
            raise RuntimeError(str(told))

    def figures(self) -> dict[str, Any]:
        """Return what it received, and when it was live."""
        return {
            "seconds": self.seconds,
            "raw_bytes": self.raw_bytes,
            "wire_bytes": self.wire_bytes,
            "messages": self.messages,
            "gaps": self.gaps,
            "cursor": self.told.get("cursor", 0),
        }


def _head_size(head: bytearray) -> int:
    """Return how long the head of a frame is, as far as its first bytes tell."""
    return 2 + {126: 2, 127: 8}.get(head[1], 0) if len(head) > 1 else 2


class Readers:
    """Connections; each public method is a command."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def read(self, query: str) -> dict[str, Any]:
        """Read with one connection until it is live."""
        reader = self._open(query)
        while not reader.is_done:
            reader.receive()
        reader.socket.close()
        return reader.figures()

    def go_round(self, queries: list[str], seconds: float) -> dict[str, Any]:
        """Read with many connections for a while; each that is live begins again."""
        readers = {}
        epoll = select.epoll()
        raw_bytes = rounds = 0

        def begin(query: str) -> None:
            reader = self._open(query)
            readers[reader.socket.fileno()] = (reader, query)
            epoll.register(reader.socket.fileno(), select.EPOLLIN)

        for query in queries:
            begin(query)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for number, _ in epoll.poll(0.1):
                reader, query = readers[number]
                reader.receive()
                if reader.is_done:
                    epoll.unregister(number)
                    reader.socket.close()
                    raw_bytes, rounds = raw_bytes + reader.raw_bytes, rounds + 1
                    begin(query)
        least = min(reader.raw_bytes for reader, _ in readers.values()) if not rounds else None
        raw_bytes += sum(reader.raw_bytes for reader, _ in readers.values())
        for reader, _ in readers.values():
            reader.socket.close()
        return {"raw_bytes": raw_bytes, "rounds": rounds, "least": least}

    def _open(self, query: str) -> Reader:
        return Reader(self._port, query, self._buffer)


def main() -> None:
    """Do what is asked."""
    readers = Readers(**json.loads(sys.argv[1]))
    _answer({})
    for line in sys.stdin:
        command = json.loads(line)
        _answer(getattr(readers, command.pop("do"))(**command))


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
