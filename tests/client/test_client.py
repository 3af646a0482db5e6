import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from tests.client.servers import Behaviour, behaving, door_of, leave, say, silent, stream_of
from tests.server.harness import DID, Harness, did, open_descriptors, post, serving
from turbod.backoff import Backoff
from turbod.client import stream as stream_module
from turbod.client.stream import Refused, Stream
from turbod.server.request import answer
from turbod.tail import CatchUp

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)


class Taken:
    """What a stream handed on."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.told: list[dict[str, Any]] = []

    def records(self, lines: Sequence[bytes]) -> None:
        self.keys += [json.loads(line)["message"]["commit"]["rkey"] for line in lines]

    def stream(self, url: str, cursor: str | None = None) -> Stream:
        return Stream(url, cursor=cursor, records=self.records, told=self.told.append)


async def test_a_stream_is_resumed_where_it_was_without_loss_or_repeats(tmp_path: Path) -> None:
    taken = Taken()
    async with (
        serving(tmp_path) as harness,
        door_of(harness.port) as door,
        trio.open_nursery() as nursery,
    ):
        await harness.fill(150)
        nursery.start_soon(taken.stream(f"http://127.0.0.1:{door.port}", "0").run)
        await harness.settled(lambda: len(taken.keys) == 150)
        door.cut()
        await harness.fill(50)
        await harness.settled(lambda: len(taken.keys) >= 200)
        assert taken.keys == [f"k{n}" for n in range(200)]
        assert [one["reason"] for one in taken.told] == ["connect", "connect"]
        nursery.cancel_scope.cancel()


async def test_a_compressed_stream_is_read_too(tmp_path: Path) -> None:
    taken = Taken()
    async with serving(tmp_path) as harness, trio.open_nursery() as nursery:
        await harness.fill(5)
        url = f"127.0.0.1:{harness.port}/turbostream?compress=zstd"
        nursery.start_soon(taken.stream(url, "0").run)
        await harness.settled(lambda: len(taken.keys) == 5)
        assert taken.told[0]["reason"] == "connect"
        nursery.cancel_scope.cancel()


async def test_a_refusal_for_good_ends_it_with_the_servers_words(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        stream = Taken().stream(f"ws://127.0.0.1:{harness.port}/turbostream?nope=1")
        with trio.fail_after(10), pytest.raises(Refused, match=r"400: 'nope' is not known"):
            await stream.run()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nope", "404: there is nothing here"),
        ("turbostream?cursor=1999999999999999", "400: cursor 1999999999999999 is in the future"),
        ("status", "200: "),
        ("", ""),
    ],
)
async def test_tail_ends_with_one_line_where_trying_again_would_not_help(
    tmp_path: Path, target: str, words: str
) -> None:
    """What the server refuses is exit 1, what is no address exit 2."""
    async with serving(tmp_path) as harness:
        address = f"127.0.0.1:{harness.port}/{target}" if target else "ftp://x"
        command = [sys.executable, "-m", "turbod", "tail", address]
        with trio.fail_after(10):
            ended = await trio.run_process(
                command, check=False, capture_stdout=True, capture_stderr=True
            )
    assert ended.returncode == (1 if target else 2)
    assert ended.stdout == b""
    assert len(ended.stderr.splitlines()) == 1
    assert words.encode() in ended.stderr


@pytest.mark.parametrize(
    "asked", ["/turbostream?metadata=false", "/app/api/v1/turbostream/turbostream"]
)
async def test_a_stream_without_records_is_resumed_where_it_began(
    tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the address says of `metadata`: what was published while away would be lost."""
    monkeypatch.setattr(stream_module, "AFTER_BYE_SECONDS", 0.2)
    taken = Taken()
    async with serving(tmp_path) as harness, trio.open_nursery() as nursery:
        nursery.start_soon(taken.stream(f"127.0.0.1:{harness.port}{asked}").run)
        await harness.settled(lambda: bool(taken.told))
        (subscriber,) = harness.server._connections.subscribers
        subscriber.stop()
        await harness.publish(post(0))
        await harness.settled(lambda: taken.keys == ["k0"])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("url", ["ws://h:99999", "ws://h:0", "ws://[::1", "ftp://h", "ws://", ""])
async def test_what_is_no_address_of_a_stream_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="expected ws"):
        Taken().stream(url)


@pytest.mark.parametrize(
    "behaviour",
    [
        silent,
        leave,
        partial(say, b"hello\r\n\r\n"),
        partial(say, b"HTTP/1.1 429 Too Many\r\nContent-Length: 100\r\n\r\n{"),
        partial(say, SWITCH % b"wrong"),
        partial(stream_of, b"no JSON", 1),
        partial(stream_of, b"[1]", 1),
        partial(stream_of, b"[", 1),
        partial(stream_of, b"null", 1),
        partial(stream_of, b'{"$type":"#cursor"}', 1),
        partial(stream_of, b"no zstd", 2),
        partial(stream_of, b"\xff", 1),
        partial(stream_of, b"x", 7),
    ],
    ids=lambda one: getattr(one, "__name__", "") or repr(one.args),
)
async def test_a_server_that_is_none_of_ours_is_tried_again_and_costs_no_descriptor(
    behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(stream_module, "SILENCE_SECONDS", 0.1)
    attempts = 0

    async def counting(stream: trio.SocketStream) -> None:
        nonlocal attempts
        attempts += 1
        await behaviour(stream)

    async with behaving(counting) as port, trio.open_nursery() as nursery:
        stream = Stream(f"ws://127.0.0.1:{port}", records=lambda _: None, told=lambda _: None)
        stream._backoff = Backoff(first_seconds=0.01, longest_seconds=0.01)
        before = open_descriptors()
        nursery.start_soon(stream.run)
        with trio.fail_after(5):
            while attempts < 20:  # noqa: ASYNC110 - what is looked at is the server's side
                await trio.sleep(0.01)
        assert open_descriptors() - before < 15
        nursery.cancel_scope.cancel()


async def test_a_stream_in_which_nothing_is_heard_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "SILENCE_SECONDS", 0.3)
    taken = Taken()
    async with serving(tmp_path) as harness, trio.open_nursery() as nursery:
        nursery.start_soon(taken.stream(f"127.0.0.1:{harness.port}").run)
        await harness.settled(lambda: len(taken.told) >= 2)
        nursery.cancel_scope.cancel()


async def test_what_a_taker_raises_ends_it(tmp_path: Path) -> None:
    """Also where it looks like a network's error: a full disk is no lost connection."""

    def fail(_: object) -> None:
        raise OSError("no room")

    async with serving(tmp_path) as harness:
        await harness.fill(1)
        stream = Stream(f"127.0.0.1:{harness.port}", cursor="0", records=fail, told=lambda _: None)
        with trio.fail_after(10), pytest.raises(OSError, match="no room"):
            await stream.run()


async def tail(harness: Harness, *arguments: str, output: int) -> trio.Process:
    url = f"127.0.0.1:{harness.port}"
    return await trio.lowlevel.open_process(
        [sys.executable, "-m", "turbod", "tail", url, *arguments],
        stdout=output,
        stderr=subprocess.PIPE,
    )


async def test_tail_prints_records_and_nothing_else_and_ends_with_its_reader(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(0, author=did(1)))
        harness.log.mark_gap("something")
        await harness.publish(post(1, author=DID))
        process = await tail(harness, "--cursor=0", output=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        printed = b""
        with trio.fail_after(10):
            while printed.count(b"\n") < 2:
                printed += await process.stdout.receive_some()
            keys = [json.loads(line)["message"]["commit"]["rkey"] for line in printed.splitlines()]
            assert keys == ["k0", "k1"]
            assert b"something" in await process.stderr.receive_some()
            await process.stdout.aclose()
            await harness.publish(post(2))
            assert await process.wait() == 0


@pytest.mark.parametrize("text", ["yesterday", "123", "", "-1y"])
async def test_a_cursor_that_makes_no_sense_is_exit_2_though_no_server_answers(text: str) -> None:
    command = [sys.executable, "-m", "turbod", "tail", "127.0.0.1:1", f"--cursor={text}"]
    with trio.fail_after(10):
        ended = await trio.run_process(command, check=False, capture_stderr=True)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert b"a cursor of 16 digits" in ended.stderr


async def test_tail_says_in_one_line_that_it_cannot_write(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.fill(1)
        full = os.open("/dev/full", os.O_WRONLY)
        process = await tail(harness, "--cursor=0", output=full)
        os.close(full)
        assert process.stderr is not None
        with trio.fail_after(10):
            assert await process.wait() == 1
            assert b"No space left" in await process.stderr.receive_some()


def test_the_bar_moves_with_each_message_and_goes_at_the_head(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    begin, head = 1_795_000_000_000_000, 1_795_000_100_000_000
    with CatchUp() as catch_up:
        told = {"$type": "#cursor", "cursor": begin, "head": head, "live": False}
        catch_up.told(told)
        catch_up.print([b'{"cursor":%d,"x":1}' % (begin + 1), b'{"cursor":1795000025000000,"x":2}'])
        (task,) = catch_up._progress.tasks
        assert (task.percentage, task.fields["records"]) == (25, 2)
        catch_up.told(told | {"cursor": head, "live": True})
        assert not catch_up._progress.tasks
    assert capfdbinary.readouterr().out.count(b"\n") == 2


def test_the_words_of_a_server_that_is_none_of_ours_are_no_crash() -> None:
    catch_up = CatchUp()
    with pytest.raises(msgspec.MsgspecError):
        catch_up.told({"$type": "#cursor", "cursor": 1})
    with capture_logs() as lines:
        catch_up.told({"$type": "#info", "name": 5, "event": "x", "$level": "y", "self": 1})
    assert lines == [{"event": "server_says", "log_level": "warning", "name": 5}]


async def test_the_words_of_a_refusal_are_fit_for_a_terminal() -> None:
    body = b'{"error":"No","message":"\\u001b[2Jcleared\\n' + b"x" * 5000 + b'"}'
    said = answer(403, body)
    ends = b'{"$type":"#error","error":"AuthRevoked","message":"\\u001b[2Jcleared"}'
    for behave in (partial(say, said), partial(stream_of, ends, 1)):
        async with behaving(behave) as port:
            with pytest.raises(Refused) as refused:
                await Taken().stream(f"ws://127.0.0.1:{port}").run()
        assert str(refused.value).isprintable()
        assert "cleared" in str(refused.value)
        assert len(str(refused.value)) < 1100


def test_a_stream_without_records_is_made_again_as_soon_as_one_with_them() -> None:
    """Once its cursor moved; a mere connect does not count."""
    stream = Taken().stream("ws://127.0.0.1:1", None)
    cursor = b'{"$type":"#cursor","reason":"%b","cursor":%d}'
    for _ in range(6):
        stream._take(cursor % (b"connect", 1_795_000_000_000_000))
        waited = stream.wait_seconds()
    assert waited > 5
    stream._take(cursor % (b"heartbeat", 1_795_000_000_000_001))
    assert stream.wait_seconds() <= 0.5


async def test_after_a_goodbye_each_client_waits_its_own_moment_of_five_seconds() -> None:
    waits = set()
    for _ in range(50):
        taken = Taken().stream("ws://127.0.0.1:1", None)
        taken._take(b'{"$type":"#cursor","reason":"bye","cursor":1745342977546824}')
        waits.add(taken.wait_seconds())
        assert taken.wait_seconds() <= 0.5, "once only"
    assert len(waits) == 50
    assert 0 <= min(waits) < 1.5
    assert 3.5 < max(waits) <= 5
