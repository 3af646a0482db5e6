"""Records from one server: in order, once, bounded; what happens to the server is told."""

import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from tests.client.programs import Program, running, until
from tests.client.servers import behaving, door_of, say, stream_of
from tests.server.harness import DID, did, notice, post, serving
from turbod.backoff import Backoff
from turbod.client import BadAddress, Record, Refused, Stuck, buffer, follow, following, reading
from turbod.client import stream as stream_module
from turbod.client.buffer import Buffer
from turbod.client.reading import Item
from turbod.config import ServerSettings
from turbod.cursor import BadCursor
from turbod.filter import InvalidRequest

LINE = (
    b'{"cursor":1795000000000001,"at_uri":"at://did:x","did":"did:x","time_us":1,'
    b'"message":%b,"hydrated_metadata":{}}'
)
Behaviour = Callable[[trio.SocketStream], Awaitable[None]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(
        stream_module, "Backoff", lambda **_: Backoff(first_seconds=0.01, longest_seconds=0.02)
    )


async def test_a_record_gives_what_is_in_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(1), notice(2, "identity"))
        async with follow(f"127.0.0.1:{harness.port}", cursor=0) as records:
            one, two = await anext(records), await anext(records)
        line = json.loads(one.line)
        assert (one.cursor, one.did, one.at_uri, one.time_us) == (
            *(line["cursor"], DID, line["at_uri"], line["time_us"]),
        )
        assert one.message == line["message"]
        assert one.hydrated_metadata == line["hydrated_metadata"]
        assert one.key == (DID, "app.bsky.feed.post", "k1", "r1", "create", "c1")
        assert two.key == ("identity", DID, "2026-11-20T08:00:000002Z")
        assert str(one.cursor) in repr(one)


async def test_what_was_saved_is_gone_on_behind_without_loss_or_repeats(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.fill(30)
        url, saved = f"127.0.0.1:{harness.port}", "0"
        seen: list[str] = []
        while len(seen) < 30:
            async with follow(url, cursor=saved) as records:
                async for record in records:
                    seen.append(record.message["commit"]["rkey"])
                    saved = records.cursor
                    if len(seen) % 7 == 0 or len(seen) == 30:
                        break
        assert seen == [f"k{n}" for n in range(30)]
        assert saved == str(harness.log.head)


async def test_an_empty_cursor_is_from_now_on(tmp_path: Path) -> None:
    """So a program may give what it read from a file that is not there yet."""
    async with serving(tmp_path) as harness:
        await harness.fill(3)
        async with running(f"127.0.0.1:{harness.port}", cursor="") as program:
            await until(lambda: bool(program.statuses))
            await harness.publish(post(9))
            await until(lambda: program.keys == ["k9"])


async def test_a_cancelled_wait_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        seen: list[Record] = []
        async with follow(f"127.0.0.1:{harness.port}", cursor=0) as records:
            for number in range(50):
                await harness.publish(post(number))
                for _ in range(3):
                    with trio.move_on_after(0.001):
                        seen.append(await anext(records))
            with trio.fail_after(5):
                while len(seen) < 50:
                    seen.append(await anext(records))
        assert [record.key[2] for record in seen] == [f"k{n}" for n in range(50)]


async def test_what_the_program_raises_comes_out_alone(tmp_path: Path) -> None:

    async def fail(url: str) -> None:
        async with follow(url, cursor=0) as records:
            async for _ in records:
                raise RuntimeError("full")

    async with serving(tmp_path) as harness:
        await harness.fill(1)
        with pytest.raises(RuntimeError, match="full"):
            await fail(f"127.0.0.1:{harness.port}")


@pytest.mark.parametrize(
    ("statement", "code"), [("sys.exit(3)", 3), ("raise KeyboardInterrupt", 130), ("pass", 130)]
)
async def test_what_ends_a_program_ends_it_as_without_us(
    tmp_path: Path, statement: str, code: int
) -> None:
    """Its exit code, and Ctrl-C, are not hidden in a group of exceptions."""
    async with serving(tmp_path) as harness:
        await harness.fill(1)
        program = ENDING.replace("STATEMENT", statement)
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", program, f"127.0.0.1:{harness.port}"], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with trio.fail_after(20):
            assert await process.stdout.receive_some()
            if statement == "pass":
                process.send_signal(signal.SIGINT)
            assert await process.wait() == code


ENDING = """
import sys, trio
from turbod.client import follow

async def main():
    async with follow(sys.argv[1], cursor=0) as records:
        async for record in records:
            print("here", flush=True)
            STATEMENT

try:
    trio.run(main)
except KeyboardInterrupt:
    sys.exit(130)
"""


async def test_a_slow_program_holds_the_server_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And loses nothing by it."""
    monkeypatch.setattr(buffer, "ROOM_BYTES", 100_000)
    most = 0

    class Watched(Buffer[Item]):
        def _change(self) -> None:
            nonlocal most
            most = max(most, self._used_bytes)
            super()._change()

    monkeypatch.setitem(following.__dict__, "Buffer", {Item: Watched})
    async with serving(tmp_path) as harness:
        await harness.fill(400, padding=20_000)
        async with running(f"127.0.0.1:{harness.port}", cursor=0) as program:
            program.go = trio.Event()
            await until(lambda: most > 100_000)
            await trio.sleep(0.3)
            assert most < 100_000 + 600_000, "one message above the bound"
            assert len(program.lines) == 1
            program.go.set()
            await until(lambda: len(program.lines) == 400)
            assert program.keys == [f"k{n}" for n in range(400)]


async def test_the_cursor_moves_past_what_is_left_out_and_says_when_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "REPORT_SECONDS", 0.05)
    monkeypatch.setattr("turbod.server.voice.HEARTBEAT_SECONDS", 0.1)
    async with serving(tmp_path) as harness:
        url = f"127.0.0.1:{harness.port}"
        async with running(url, cursor=0, dids=[did(5)]) as program:
            await harness.publish(post(1), post(2, author=did(5)), post(3))
            await until(lambda: program.cursor == str(harness.log.head), seconds=10)
            assert program.keys == ["k2"]
            await until(lambda: bool(program.progress))
            last = program.progress[-1]
            assert last.saved == str(last.cursor)
            assert last.source == "stream"
            assert program.records is not None
            await until(lambda: program.records is not None and program.records.should_save)
            assert not program.records.should_save, "nothing has moved since"


async def test_a_filter_too_long_for_a_request_is_sent_as_a_message(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(1, author=did(7)), post(2, author=did(5001)))
        url, dids = f"127.0.0.1:{harness.port}", [did(n) for n in range(5000)]
        async with running(url, cursor=0, dids=dids) as program:
            await until(lambda: program.keys == ["k1"])
            await harness.publish(post(3, author=did(4999)), post(4, author=did(5001)))
            await until(lambda: program.keys == ["k1", "k3"])


async def test_a_gap_is_told_in_its_place(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(0))
        harness.log.mark_gap("the upstream no longer had them")
        await harness.publish(post(1))
        async with running(f"127.0.0.1:{harness.port}", cursor=0) as program:
            await until(lambda: len(program.items) == 3)
            assert program.items[1] == program.gaps[0]
            assert "no longer had them" in program.gaps[0].message


async def test_a_cursor_older_than_what_is_retained_is_a_gap(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(0))
        floor = harness.log.floor
        begin = floor - 60_000_000
        async with running(f"127.0.0.1:{harness.port}", cursor=begin) as program:
            await until(lambda: program.keys == ["k0"])
            (gap,) = program.gaps
            assert (gap.after, gap.before) == (begin, floor + 1)


async def test_a_lost_connection_is_told_and_made_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, door_of(harness.port) as door:
        await harness.fill(20)
        async with running(door.url, cursor=1_795_000_000_000_000) as program:
            await until(lambda: len(program.keys) == 20)
            door.cut()
            await harness.fill(20)
            await until(lambda: len(program.keys) == 40)
            assert program.keys == [f"k{n}" for n in range(40)]
            assert [status.is_stuck for status in program.statuses][-3:] == [False, True, False]
            assert program.words[-2] == "the connection broke"


async def test_after_a_goodbye_it_comes_back_within_five_seconds_and_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[float, float]] = []

    def draw(least: float, most: float) -> float:
        waits.append((least, most))
        return 0.0

    monkeypatch.setattr("random.uniform", draw)
    async with serving(tmp_path) as harness:
        async with running(f"127.0.0.1:{harness.port}", cursor=0) as program:
            await harness.fill(1)
            await until(lambda: len(program.keys) == 1)
            (subscriber,) = harness.server._connections.subscribers
            subscriber.stop()
            await harness.fill(1)
            await until(lambda: len(program.keys) == 2)
            assert "the server shuts down" in program.words
        assert waits == [(0, 5.0)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cursor": "2030-01-01T00:00:00Z"}, "400: cursor .* is in the future"),
        ({"collections": ["com.example.none"]}, "400: wantedCollections: .* matches nothing here"),
        (
            {"collections": ["com.example.none"], "dids": [did(n) for n in range(2000)]},
            "InvalidMessage: wantedCollections: .* matches nothing here",
        ),
    ],
)
async def test_a_refusal_for_good_ends_it_at_once(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    async with serving(tmp_path) as harness:
        with trio.fail_after(10), pytest.raises(Refused, match=words):
            await Program().run(f"127.0.0.1:{harness.port}", **options)


@pytest.mark.parametrize(
    ("servers", "options", "error"),
    [
        ("ftp://h", {}, BadAddress),
        ("ws://h/turbostream?wantedDids=did:plc:x", {}, BadAddress),
        ([], {}, BadAddress),
        ("ws://h", {"cursor": "yesterday"}, BadCursor),
        ("ws://h", {"dids": ["alice"]}, InvalidRequest),
        ("ws://h", {"collections": ["post"]}, InvalidRequest),
        ("ws://h", {"kinds": ["like"]}, InvalidRequest),
        ("ws://h", {"shard": (4, 4)}, InvalidRequest),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_read(
    servers: str, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await Program().run(servers, **options)


@pytest.mark.parametrize(
    "behaviour",
    [
        partial(say, b"hello\r\n\r\n"),
        partial(stream_of, b"[]", 1),
        partial(stream_of, b"[1]", 1),
        partial(stream_of, b'[{"cursor":"x"}]', 1),
        partial(stream_of, b'{"$type":"#cursor"}', 1),
        partial(stream_of, b'{"$type":"#cursor","cursor":"x","head":{}}', 1),
        partial(stream_of, b'{"$type":"#info","name":"Gap"}', 1),
        partial(stream_of, b'{"$type":"#error","error":"Odd"}', 1),
        partial(stream_of, b"[" * 100, 1),
    ],
    ids=lambda one: repr(one.args),
)
async def test_a_server_that_sends_garbage_is_never_an_endless_silent_retry(
    behaviour: Behaviour,
) -> None:
    program = Program()
    async with behaving(behaviour) as port:
        with trio.fail_after(5), pytest.raises(Stuck, match="nothing could come for 0 s"):
            await program.run(f"127.0.0.1:{port}", give_up_seconds=0.3)
    assert program.lines == []
    assert all(status.is_stuck for status in program.statuses)
    assert len(program.statuses) > 3


async def test_retry_after_is_honoured(tmp_path: Path) -> None:
    settings = ServerSettings(max_connections_per_address=1)
    async with serving(tmp_path, settings=settings) as harness, harness.subscribe():
        url = f"127.0.0.1:{harness.port}"
        async with running(url) as program:
            await until(lambda: bool(program.statuses))
            (status,) = program.statuses
            assert "429" in status.words
            assert status.retry_seconds > 1


async def test_a_server_whose_upstreams_stall_is_stuck_and_a_quiet_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turbod.server.voice.HEARTBEAT_SECONDS", 0.05)
    async with serving(tmp_path) as harness:
        await harness.fill(1)
        async with running(f"127.0.0.1:{harness.port}") as program:
            await trio.sleep(1)
            assert program.words == ["connected"], "quiet"
            harness.upstream = "stalled"
            await until(lambda: len(program.statuses) == 2)
            assert program.statuses[1].is_stuck
            assert "upstreams" in program.words[1]
            harness.upstream = "live"
            await until(lambda: program.words[2:] == ["connected"])
        harness.upstream = "stalled"
        with trio.fail_after(5), pytest.raises(Stuck, match="upstreams"):
            await Program().run(f"127.0.0.1:{harness.port}", give_up_seconds=0.3)


async def test_a_server_that_stalls_is_stuck_also_after_it_gave_its_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it still has is progress; at its head nothing more can come."""
    monkeypatch.setattr("turbod.server.voice.HEARTBEAT_SECONDS", 0.05)
    async with serving(tmp_path) as harness:
        await harness.fill(300)
        harness.upstream = "stalled"
        program = Program()
        with trio.fail_after(5), pytest.raises(Stuck, match="upstreams"):
            await program.run(
                f"127.0.0.1:{harness.port}", cursor=1_795_000_000_000_000, give_up_seconds=0.3
            )
        assert program.keys == [f"k{n}" for n in range(300)]
        assert [status.is_stuck for status in program.statuses][-2:] == [False, True]


async def test_a_late_event_does_not_hide_that_a_server_stalls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turbod.server.voice.HEARTBEAT_SECONDS", 0.05)
    async with serving(tmp_path) as harness:
        harness.upstream = "stalled"
        async with running(f"127.0.0.1:{harness.port}") as program:
            await until(lambda: [one.is_stuck for one in program.statuses] == [True])
            await harness.publish(post(1))
            await until(lambda: [one.is_stuck for one in program.statuses] == [True, False, True])


@pytest.mark.parametrize(
    ("line", "attribute"),
    [
        (b'{"cursor":1795000000000001,"message":%b}' % (b"[" * 100_000), "did"),
        (b'{"x":%b}' % (b"[" * 100_000), "line"),
        (LINE % b'{"did":"\xff"}', "message"),
        (LINE % b'{"did":"\xff","kind":"commit"}', "key"),
        (LINE % (b'{"x":%b%b}' % (b"[" * 100_000, b"]" * 100_000)), "key"),
        (LINE % b"[]", "message"),
    ],
)
def test_what_is_no_record_is_one_kind_of_error(line: bytes, attribute: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        getattr(Record(line), attribute)


def test_no_item_is_counted_as_nothing() -> None:
    """What says little is bounded too, however long nobody takes it."""
    assert reading.NEWS_BYTES > 0
