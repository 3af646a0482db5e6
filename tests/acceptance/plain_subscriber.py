"""The websockets package's own client, in a thread, and the bytes of every record it is sent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from websockets.sync.client import ClientConnection, connect

PATIENCE_SECONDS = 30.0


class PlainSubscriber:
    """One connection.

    Attributes:
        lines: the records received, each as its bytes.
        told: the messages about the connection.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.lines: list[bytes] = []
        self.told: list[dict[str, Any]] = []

    async def read_until(self, count: int) -> None:
        """Read until `count` records have come in all."""
        await trio.to_thread.run_sync(self._read_until, count)

    def _read_until(self, count: int) -> None:
        while len(self.lines) < count:
            self.read_message()

    def read_message(self) -> None:
        """Read one message; blocks."""
        text = self._connection.recv(timeout=PATIENCE_SECONDS)
        assert isinstance(text, str)
        if text.startswith("["):
            self.lines += (item.encode() for item in array_items(text))
        else:
            self.told.append(json.loads(text))


def array_items(text: str) -> Iterator[str]:
    """Each item of a compact JSON array, as it is written there."""
    decoder, place = json.JSONDecoder(), 1
    while place < len(text):
        _, end = decoder.raw_decode(text, place)
        yield text[place:end]
        assert text[end] in ",]"
        place = end + 1


@contextmanager
def subscribed(port: int, query: str = "") -> Iterator[PlainSubscriber]:
    """Connect for as long as the block lasts; the first message has been read."""
    url = f"ws://127.0.0.1:{port}/turbostream?{query}"
    with connect(url, max_size=None, compression=None) as connection:
        subscriber = PlainSubscriber(connection)
        subscriber.read_message()
        yield subscriber
