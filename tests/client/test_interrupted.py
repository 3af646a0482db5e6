"""Ctrl-C goes into the program's own code, and never into the middle of what keeps a stream up."""

import fcntl
import os
import signal
import sys
import termios
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket

from tests.server.harness import post, serving
from turbod.client import buffer, follow
from turbod.client import stream as stream_module
from turbod.client.stream import Stream

PIPE_BYTES = 60_000  # of 64 KiB: it is full

is_protected = trio.lowlevel.currently_ki_protected


class Noted:
    """Where it was looked at, and whether Ctrl-C waits there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, set[bool]] = {}
        self._patch = monkeypatch

    def note(self, place: str, *_: object) -> None:
        """Look."""
        self.found.setdefault(place, set()).add(is_protected())

    def within(self, where: Any, name: str) -> None:
        """Look wherever this function is called."""
        inner = getattr(where, name)

        def noting(*given: Any, **named: Any) -> Any:
            self.note(name)
            return inner(*given, **named)

        self._patch.setattr(where, name, noting)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    made = Noted(monkeypatch)
    made.within(trio_websocket.WebSocketConnection, "_handle_message_event")  # the library's reader
    made.within(stream_module, "_text")
    made.within(buffer.Buffer, "put")
    made.within(buffer.Buffer, "take")
    return made


async def test_it_is_lost_in_none_of_a_streams_tasks(tmp_path: Path, noted: Noted) -> None:
    async with serving(tmp_path) as harness, trio.open_nursery() as nursery:
        await harness.fill(3)
        stream = Stream(
            f"ws://127.0.0.1:{harness.port}",
            cursor="0",
            records=partial(noted.note, "records"),
            told=partial(noted.note, "told"),
        )
        nursery.start_soon(stream.run)
        await harness.settled(lambda: "records" in noted.found)
        nursery.cancel_scope.cancel()
    ours = {"_handle_message_event", "_text", "records", "told"}
    assert noted.found == {name: {True} for name in ours}


async def test_it_is_lost_in_none_of_those_that_follow(tmp_path: Path, noted: Noted) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(1))
        url = f"ws://127.0.0.1:{harness.port}"
        async with follow(url, cursor=0, on_status=partial(noted.note, "status")) as records:
            async for _ in records:
                noted.note("the program")
                break
    ours = {"_handle_message_event", "_text", "put", "take"}
    expected = {name: {True} for name in ours} | {"status": {False}, "the program": {False}}
    assert noted.found == expected


async def test_a_tail_ends_though_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.fill(100, padding=10_000)
        url = f"ws://127.0.0.1:{harness.port}"
        command = [sys.executable, "-m", "turbod", "tail", url, "--cursor", "0"]
        reading, writing = os.pipe()
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # else an interrupted write is over
        process = await trio.lowlevel.open_process(command, stdout=writing, env=buffered)
        os.close(writing)
        await harness.settled(lambda: _waiting(reading) >= PIPE_BYTES)
        process.send_signal(signal.SIGINT)
        try:
            with trio.fail_after(10):
                assert await process.wait() == 130
        finally:
            process.kill()
            os.close(reading)


def _waiting(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
