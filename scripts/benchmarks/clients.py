"""Many subscribers in one process that costs little: raw sockets, epoll, no JSON.

Of every message is noted when its last byte came, its first record's cursor and its length. A
client that keeps what it gets tells the others' messages apart into records.
"""

import json
import random
import re
import select
import socket
import sys
import time
from array import array
from base64 import b64encode
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

_BUFFER_BYTES: Final = 1024 * 1024
_PEEK_BYTES: Final = 27  # `[{"cursor":` and 16 digits
_RECORD: Final = re.compile(rb'\{"cursor":(\d{16}),"at_uri":"[^"]*","did":"[^"]*","time_us":(\d+),')
_TEXT, _CLOSE = 0x81, 0x88
_SLOW_BYTES: Final = 16 * 1024
_SLOW_SECONDS: Final = 0.25  # 64 KiB a second: far less than is sent
_SLICE_SECONDS: Final = 0.05


class Client:
    """One connection. `pace` is `read`, `slow` or `stuck`."""

    def __init__(self, connection: socket.socket, *, pace: str, keeps: bool) -> None:
        self.socket = connection
        self.pace = pace
        self.keeps = keeps
        self.times_us = array("q")
        self.cursors = array("q")
        self.lengths = array("q")
        self.kept: list[bytes] = []
        self.kept_records = 0
        self.told: list[dict[str, Any]] = []
        self.dids: frozenset[str] = frozenset()
        self.bytes = 0
        self.is_open = True
        self._head = bytearray()
        self._peek = bytearray()
        self._body = bytearray()
        self._left = 0
        self._length = 0

    def feed(self, data: memoryview) -> None:
        """Take what was read."""
        at, end = 0, len(data)
        self.bytes += end
        while at < end:
            if not self._left:
                at = self._read_head(data, at, end)
                continue
            take = min(self._left, end - at)
            if len(self._peek) < _PEEK_BYTES:
                self._peek += data[at : at + min(take, _PEEK_BYTES - len(self._peek))]
            if self.keeps:
                self._body += data[at : at + take]
            self._left -= take
            at += take
            if not self._left:
                self._finish()

    def _read_head(self, data: memoryview, at: int, end: int) -> int:
        head = self._head
        needed = 2 if len(head) < 2 else 2 + {126: 2, 127: 8}.get(head[1], 0)  # noqa: PLR2004
        take = min(needed - len(head), end - at)
        head += data[at : at + take]
        if len(head) < 2 or len(head) < 2 + {126: 2, 127: 8}.get(head[1], 0):  # noqa: PLR2004
            return at + take
        self._left = self._length = int.from_bytes(head[2:], "big") if len(head) > 2 else head[1]  # noqa: PLR2004
        assert head[0] in {_TEXT, _CLOSE}, f"no frame for a subscriber: {head[0]:#x}"
        self.is_open = self.is_open and head[0] != _CLOSE
        head.clear()
        return at + take

    def _finish(self) -> None:
        if self._peek[:1] == b"[":
            self.times_us.append(time.time_ns() // 1000)
            self.cursors.append(int(self._peek[11:27]))
            self.lengths.append(self._length)
            if self.keeps:
                self.kept.append(bytes(self._body))
                self.kept_records += len(_RECORD.findall(self._body))
        elif self.keeps and self.is_open:
            self.told.append(json.loads(self._body))
        self._peek.clear()
        self._body.clear()

    def forget(self) -> None:
        """Begin a new measurement."""
        for noted in (self.times_us, self.cursors, self.lengths):
            del noted[:]
        self.kept.clear()
        self.told.clear()
        self.kept_records = self.bytes = 0


class Clients:
    """All connections; each public method but `drain` is a command."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: dict[int, Client] = {}
        self._epoll = select.epoll()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._slow_at = 0.0
        self._random = random.Random(1)  # noqa: S311 - the same filters in every run

    def connect(
        self,
        count: int,
        *,
        pace: str = "read",
        keeps: bool = False,
        source: str = "127.0.0.1",
        dids: int = 0,
        universe: int = 0,
    ) -> dict[str, Any]:
        """Open connections; with `dids`, each with a filter of so many DIDs of a `universe`.

        The filter's DIDs are drawn by number: `did:plc:` and the number's hash, as `simulated`
        makes those of its accounts.
        """
        for _ in range(count):
            connection = socket.create_connection(
                ("127.0.0.1", self._port), timeout=10, source_address=(source, 0)
            )
            client = Client(connection, pace=pace, keeps=keeps)
            self._upgrade(client, "requireHello=true" if dids else "")
            if dids:
                chosen = self._random.sample(range(universe), dids)
                client.dids = frozenset(map(plc_did, chosen))
                connection.sendall(_options(list(client.dids)))
            connection.setblocking(False)
            self._clients[connection.fileno()] = client
            if pace == "read":
                self._epoll.register(connection.fileno(), select.EPOLLIN)
        return {"open": len(self._clients)}

    def close(self, leave: int) -> dict[str, Any]:
        """Close connections until so many are left, the first ones."""
        for number in list(self._clients)[leave:]:
            client = self._clients.pop(number)
            if client.pace == "read" and client.is_open:
                self._epoll.unregister(number)
            client.socket.close()
        return {"open": len(self._clients)}

    def forget(self) -> dict[str, Any]:
        """Begin a new measurement."""
        for client in self._clients.values():
            client.forget()
        return {}

    def counts(self) -> dict[str, Any]:
        """Return how much each paced client received, by pace, and whether all is in order."""
        clients = self._clients.values()
        readers = [client for client in clients if client.pace == "read"]
        return {
            "open": sum(client.is_open for client in clients),
            "readers": len(readers),
            "messages": sum(len(client.times_us) for client in readers),
            "fewest_messages": min((len(client.times_us) for client in readers), default=0),
            "most_messages": max((len(client.times_us) for client in readers), default=0),
            "fewest_bytes": min((client.bytes for client in readers), default=0),
            "most_bytes": max((client.bytes for client in readers), default=0),
            "rising": all(_rises(client.cursors) for client in clients),
            "kept": [self._kept(client) for client in clients if client.keeps],
            "slow_bytes": sum(client.bytes for client in clients if client.pace == "slow"),
            "records_of_slow": [
                len(client.times_us) for client in clients if client.pace == "slow"
            ],
        }

    def received(self) -> dict[str, Any]:
        """Return how many records the keeping clients have."""
        return {"records": sum(client.kept_records for client in self._clients.values())}

    def told(self) -> dict[str, Any]:
        """Return what a keeping client was told about its connection."""
        return {"told": [told for client in self._clients.values() for told in client.told]}

    def check_filters(self, lines: str) -> dict[str, Any]:
        """Compare what each filter let through with a plain scan of a file of all records."""
        by_did: dict[str, list[bytes]] = {}
        for line in Path(lines).read_bytes().splitlines():
            by_did.setdefault(json.loads(line)["did"], []).append(line)
        wrong = records = 0
        for client in self._clients.values():
            if not client.dids:
                continue
            wanted = [line for did in client.dids for line in by_did.get(did, ())]
            got = [line for message in client.kept for line in _lines(message)]
            wrong += sorted(wanted) != got
            records += len(got)
        return {"wrong": wrong, "records": records}

    def latencies(self, *, every_record: bool) -> dict[str, Any]:
        """Return delivery times in ms: of each message's first record, or of every record.

        From the event's own `time_us` to the message's last byte.
        """
        records = self._records() if every_record else {}
        found = array("d")
        for client in self._clients.values():
            if client.pace != "read":
                continue
            for at, cursor, length in zip(
                client.times_us, client.cursors, client.lengths, strict=True
            ):
                for time_us in records[cursor, length] if every_record else (cursor,):
                    found.append((at - time_us) / 1000)
        ordered = sorted(found)
        return {
            "count": len(ordered),
            **{
                name: ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
            },
        }

    def drain(self, seconds: float) -> None:
        """Read what comes for a while."""
        for number, _ in self._epoll.poll(seconds):
            client = self._clients.get(number)
            if client is not None:
                self._read(client, _BUFFER_BYTES)
        now = time.monotonic()
        if now >= self._slow_at:
            self._slow_at = now + _SLOW_SECONDS
            for client in self._clients.values():
                if client.pace == "slow" and client.is_open:
                    self._read(client, _SLOW_BYTES)

    def watch(self, number: int) -> None:
        """Wake for this descriptor too."""
        self._epoll.register(number, select.EPOLLIN)

    def _read(self, client: Client, most: int) -> None:
        try:
            count = client.socket.recv_into(self._buffer, most)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count:
            client.feed(self._buffer[:count])
        else:
            client.is_open = False
            if client.pace == "read":
                self._epoll.unregister(client.socket.fileno())

    def _upgrade(self, client: Client, query: str) -> None:
        key = b64encode(self._random.randbytes(16)).decode()
        request = (
            f"GET /turbostream?{query} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        client.socket.sendall(request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.socket.recv(4096)
        head, _, first = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        client.feed(memoryview(first))

    def _records(self) -> dict[tuple[int, int], list[int]]:
        """Return the records' times in each message that a keeping client got."""
        found = {}
        for client in self._clients.values():
            for message in client.kept:
                times = [int(match[2]) for match in _RECORD.finditer(message)]
                found[int(message[11:27]), len(message)] = times
        return found

    def _kept(self, client: Client) -> dict[str, Any]:
        """Return the digest of a client's lines as they would lie on disk."""
        lines = [line for message in client.kept for line in _lines(message)]
        digest = sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
        return {"records": len(lines), "sha256": digest}


def plc_did(number: int) -> str:
    """Return the DID of a simulated account by its number, of the simulation's first seed."""
    from turbod.simulation.identifiers import plc_did as of_seed  # noqa: PLC0415 - not while measuring

    return of_seed(f"1 {number}")


def _lines(message: bytes) -> list[bytes]:
    """Cut an array into its records, whose heads nobody's text can contain unescaped."""
    starts = [match.start() for match in _RECORD.finditer(message)]
    ends = [start - 1 for start in starts[1:]] + [len(message) - 1]
    return [message[start:end] for start, end in zip(starts, ends, strict=True)]


def _rises(cursors: "array[int]") -> bool:
    return all(one < other for one, other in pairwise(cursors))


def _options(dids: list[str]) -> bytes:
    """Return a masked frame (RFC 6455, 5.3) of an options_update; the mask is zero."""
    names = ("wantedCollections", "wantedDids", "aboutDids", "kinds", "operations")
    payload: dict[str, Any] = {name: [] for name in names}
    payload |= {"wantedDids": dids, "maxMessageSizeBytes": 0}
    text = json.dumps({"type": "options_update", "payload": payload}).encode()
    return b"\x81\xfe%b\0\0\0\0%b" % (len(text).to_bytes(2, "big"), text)


def main() -> None:
    """Read what comes, and do what is asked."""
    clients = Clients(**json.loads(sys.argv[1]))
    _answer({})
    commands = sys.stdin.fileno()
    clients.watch(commands)
    poll = select.poll()
    poll.register(commands, select.POLLIN)
    while True:
        clients.drain(_SLICE_SECONDS)
        if poll.poll(0):
            line = sys.stdin.readline()
            if not line:
                return
            command = json.loads(line)
            _answer(getattr(clients, command.pop("do"))(**command))


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
