import json
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import zstandard

from tests.server.harness import (
    DID,
    LIKE,
    POST,
    SERVED,
    UPGRADE,
    Harness,
    did,
    exchange,
    notice,
    open_stream,
    post,
    serving,
)
from turbod.config import LogSettings, ServerSettings
from turbod.eventlog.reader import Pruned
from turbod.filter import STREAM_PARAMETERS, read_query
from turbod.record import Head, head_of_line
from turbod.server import subscriber, voice
from turbod.server.places import Places
from turbod.server.server import AT_THE_DOOR_SECONDS

SMALL_MEMORY = LogSettings(memory_bytes=1024 * 1024)
CURSOR_KEYS = [
    "$type", "reason", "cursor", "head", "floor", "now", "live", "upstream", "behind",
    "eventsPerMinute",
]  # fmt: skip


def keys(records: Sequence[dict[str, Any]]) -> list[str]:
    return [one["message"]["commit"]["rkey"] for one in records]


async def all_lines(harness: Harness) -> list[bytes]:
    """A plain scan of the whole log."""
    position, lines = 0, []
    while chunks := await harness.log.read_chunks(position):
        lines += [chunk.line(n) for chunk in chunks for n in range(len(chunk))]
        position = chunks[-1].last
    return lines


async def test_the_first_message_is_the_cursor_and_then_come_records(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, harness.subscribe() as client:
        first = await client.news()
        assert list(first) == CURSOR_KEYS
        assert first | {"now": 0} == {
            "$type": "#cursor",
            "reason": "connect",
            "cursor": 0,
            "head": 0,
            "floor": 0,
            "now": 0,
            "live": True,
            "upstream": "live",
            "behind": {"ms": 0, "events": 0},
            "eventsPerMinute": 0,
        }
        await harness.publish(*(post(n, author=did(n)) for n in range(250)))
        assert keys(await client.records(250)) == [f"k{n}" for n in range(250)]


async def test_records_are_the_bytes_of_the_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, harness.subscribe("cursor=0") as client:
        await client.news()
        await harness.publish(*(post(n, text="é\u2028🦋\\") for n in range(5)))
        received = await client.connection.get_message()
        assert isinstance(received, str)
        assert received.encode() == b"[%b]" % b",".join(await all_lines(harness))


async def test_without_a_cursor_the_stream_begins_at_the_head(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        head = await harness.fill(10)
        async with harness.subscribe() as client:
            assert (await client.news())["cursor"] == head
            await harness.publish(post(99))
            assert keys(await client.records(1)) == ["k99"]


async def test_a_cursor_means_after_it_at_every_place_of_the_log(tmp_path: Path) -> None:
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        head = await harness.fill(400, padding=20_000)
        cursors = [json.loads(line)["cursor"] for line in await all_lines(harness)]
        assert not harness.log.in_memory(cursors[0])
        for index in (0, 1, 57, 200, 397, 398):
            async with harness.subscribe(f"cursor={cursors[index]}") as client:
                assert (await client.news())["cursor"] == cursors[index]
                found = await client.records(399 - index)
                assert [one["cursor"] for one in found] == cursors[index + 1 :]
        async with harness.subscribe(f"cursor={head + 1}") as client:  # ahead, by a second server
            assert (await client.news())["cursor"] == head


async def test_history_passes_into_memory_and_live_without_a_seam(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, log_settings=SMALL_MEMORY) as harness,
        trio.open_nursery() as nursery,
    ):
        await harness.fill(300, padding=20_000)

        async def keep_writing() -> None:
            for _ in range(60):
                await harness.fill(10, padding=5_000)
                await trio.sleep(0.01)

        nursery.start_soon(keep_writing)
        async with harness.subscribe("cursor=0") as client:
            found: list[dict[str, Any]] = []
            news = []
            with trio.fail_after(20):
                while len(found) < 900:
                    message = await client.message()
                    if isinstance(message, list):
                        found += message
                    else:
                        news.append((message["reason"], message["live"], message["cursor"]))
            assert keys(found) == [f"k{n}" for n in range(900)]
            assert [(reason, live) for reason, live, _ in news][:2] == [
                ("connect", False),
                ("cutover", True),
            ]
            cutover = next(cursor for reason, _, cursor in news if reason == "cutover")
            assert cutover in {one["cursor"] for one in found}


async def test_a_cursor_below_the_floor_starts_there_and_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.fill(5)
        floor = harness.log.floor
        for query in ("cursor=1000000000000000", "cursor=-30d", "cursor=2020-01-01T00:00:00Z"):
            async with harness.subscribe(query) as client:
                first, second = await client.news(), await client.news()
                assert first["cursor"] == first["floor"] == floor
                assert (second["$type"], second["name"]) == ("#info", "OutdatedCursor")
                assert keys(await client.records(5)) == [f"k{n}" for n in range(5)]
        async with harness.subscribe("cursor=0") as client:
            assert (await client.news())["cursor"] == floor
            assert keys(await client.records(5)) == [f"k{n}" for n in range(5)]


async def test_an_empty_log_takes_any_cursor_and_serves_what_comes(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        for query in ("", "cursor=0", "cursor=-1h", "cursor=1700000000000000"):
            async with harness.subscribe(query) as client:
                first = await client.news()
                assert (first["cursor"], first["head"], first["floor"]) == (0, 0, 0)
        async with harness.subscribe("cursor=-1h") as client:
            await client.news()
            await harness.publish(post(1))
            assert keys(await client.records(1)) == ["k1"]


async def test_the_future_is_refused_and_a_minute_of_it_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        assert (await harness.upgrade("/turbostream?cursor=2099-01-01T00:00:00Z")).error == (
            400,
            "FutureCursor",
        )
        assert (await harness.get("/records?cursor=9007199254740991")).error == (
            400,
            "FutureCursor",
        )
        async with harness.subscribe("cursor=-0s") as client:
            assert (await client.news())["cursor"] == 0


@pytest.mark.parametrize("cursor", ["1", "01", "-5", "-1w", "abc", "", "9007199254740992"])
async def test_what_is_no_cursor_is_refused(tmp_path: Path, cursor: str) -> None:
    async with serving(tmp_path) as harness:
        refused = await harness.upgrade(f"/turbostream?cursor={cursor}")
        assert refused.error == (400, "InvalidRequest")
        assert "cursor" in refused.json["message"]


QUERIES = [
    f"wantedDids={did(3)}",
    f"aboutDids={did(4)}",
    f"wantedDids={did(3)}&aboutDids={did(4)}",
    f"wantedCollections={LIKE}",
    "wantedCollections=app.bsky.feed.*&operations=delete",
    "kinds=identity",
    f"kinds=commit&wantedCollections={POST}&wantedDids={did(1)}&wantedDids={did(2)}",
    "shard=1/3",
    "maxMessageSizeBytes=10600",
]


def mixed(numbers: range, dice: random.Random) -> list[bytes]:
    """Events of all kinds; the last is for every filter below its end."""
    return [
        notice(n, dice.choice(["identity", "account"]), author=did(n % 11))
        if n % 10 == 0
        else post(
            n,
            author=did(n % 11),
            mentions=[did(n % 7)] if n % 3 == 0 else [],
            collection=dice.choice([POST, LIKE]),
            operation=dice.choice(["create", "update", "delete"]),
        )
        for n in numbers
    ]


def scanned(lines: Sequence[bytes], query: str) -> list[int]:
    """The cursors that a plain scan selects."""
    chosen = read_query(query, known=STREAM_PARAMETERS, served=SERVED).filter
    heads = [(head_of_line(line), len(line)) for line in lines]
    return [head.cursor for head, size in heads if chosen.matches(head, size)]


async def test_a_filter_selects_what_a_scan_does_in_history_memory_and_live(
    tmp_path: Path,
) -> None:
    dice = random.Random(7)
    results: dict[str, list[int]] = {query: [] for query in QUERIES}
    async with (
        serving(tmp_path, log_settings=SMALL_MEMORY) as harness,
        trio.open_nursery() as nursery,
    ):

        async def collect(query: str) -> None:
            async with harness.subscribe(f"cursor=0&{query}") as client:
                while True:
                    message = await client.message(seconds=30)
                    if isinstance(message, list):
                        results[query] += [one["cursor"] for one in message]

        await harness.publish(*mixed(range(200), dice), padding=10_000)
        for query in QUERIES:
            nursery.start_soon(collect, query)
        for n in range(200, 400, 5):
            await harness.publish(*mixed(range(n, n + 5), dice), padding=10_000)
        lines = await all_lines(harness)
        expected = {query: scanned(lines, query) for query in QUERIES}
        with trio.move_on_after(5):
            await harness.settled(lambda: results == expected)
        assert results == expected
        assert all(0 < len(found) < 400 for found in results.values())
        nursery.cancel_scope.cancel()


async def test_messages_hold_at_most_batch_records(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.fill(50)
        async with harness.subscribe("cursor=0&batch=7") as client:
            await client.news()
            lengths: list[int] = []
            while sum(lengths) < 50:
                message = await client.message()
                lengths.append(len(message))
            assert max(lengths) <= 7


async def test_messages_hold_at_most_512_kib_unless_one_record_is_longer(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(*(post(n) for n in range(4)), padding=200_000)
        await harness.publish(post(4), padding=900_000)
        for query in ("cursor=0", f"cursor=0&wantedDids={DID}"):
            async with harness.subscribe(query) as client:
                await client.news()
                found = 0
                while found < 5:
                    text = await client.connection.get_message()
                    records = json.loads(text)
                    found += len(records)
                    assert len(text) <= 512 * 1024 or len(records) == 1


async def test_gaps_stand_at_their_place_in_history_and_live(tmp_path: Path) -> None:
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:

        async def messages(client: Any, count: int) -> list[str]:
            found: list[str] = []
            while len(found) < count:
                message = await client.message()
                if isinstance(message, list):
                    found += keys(message)
                elif message["$type"] == "#info":
                    assert message["name"] == "Gap"
                    assert message["after"] < message["before"]
                    found.append(message["message"])
            return found

        await harness.publish(post(99, author=did(2)))
        expected = []
        async with harness.subscribe(f"wantedDids={did(1)}") as live:
            await live.news()
            for n in range(3):
                harness.log.mark_gap(f"gap {n}")
                await harness.publish(post(n, author=did(1)))
                expected += [f"gap {n}", f"k{n}"]
            assert await messages(live, 6) == expected
        async with harness.subscribe("cursor=0") as client:
            assert await messages(client, 7) == ["k99", *expected]
        await harness.fill(200, padding=20_000)
        assert not harness.log.in_memory(harness.log.floor)
        async with harness.subscribe(f"cursor=0&wantedDids={did(1)}") as client:
            assert (await messages(client, 6))[:6] == expected


async def test_while_nothing_comes_there_is_a_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "HEARTBEAT_SECONDS", 0.3)
    monkeypatch.setattr(subscriber, "LONGEST_WAIT_SECONDS", 0.05)
    async with serving(tmp_path) as harness:
        await harness.publish(post(1))
        async with harness.subscribe(f"wantedDids={did(5)}") as client:
            await client.news()
            started = trio.current_time()
            head = await harness.publish(post(2))
            harness.upstream = "stalled"
            beat = await client.news()
            assert 0.25 < trio.current_time() - started < 10
            # It moves on past what the filter leaves out.
            assert (beat["reason"], beat["cursor"], beat["upstream"]) == (
                "heartbeat",
                head,
                "stalled",
            )
            assert beat["behind"] == {"ms": 0, "events": 0}


async def test_without_metadata_there_are_only_arrays_and_pings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "HEARTBEAT_SECONDS", 0.1)
    async with serving(tmp_path) as harness:
        for path in (
            "/turbostream?metadata=false&cursor=1700000000000000",
            "/app/api/v1/turbostream/turbostream?cursor=1700000000000000",
        ):
            await harness.publish(post(1))
            harness.log.mark_gap("something")
            await harness.publish(post(2))
            async with await open_stream(harness, path) as stream:
                received = b""
                with trio.fail_after(10):
                    while received.count(b"\x89\x00") < 3:
                        received += await stream.receive_some()
                assert b"$type" not in received.replace(b"richtext.facet", b"")
                assert b'"k1"' in received
                assert b'"k2"' in received


async def test_grazes_path_has_metadata_where_it_is_asked_for(tmp_path: Path) -> None:
    path = "/app/api/v1/turbostream/turbostream"
    async with (
        serving(tmp_path) as harness,
        harness.subscribe("metadata=true", path=path) as client,
    ):
        assert (await client.news())["reason"] == "connect"


async def test_during_history_there_is_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "PROGRESS_SECONDS", 0.0)
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        head = await harness.fill(300, padding=20_000)
        async with harness.subscribe(f"cursor=0&wantedDids={did(200)}") as client:
            news = [await client.news()]
            while news[-1]["reason"] != "cutover":
                news.append(await client.news())
            reasons = [one["reason"] for one in news]
            assert reasons == ["connect", *["progress"] * (len(news) - 2), "cutover"]
            assert len(news) > 4
            cursors = [one["cursor"] for one in news]
            assert cursors == sorted(cursors)
            assert all(one["cursor"] <= head and not one["live"] for one in news[:-1])


async def test_compressed_messages_are_zstd_frames_of_the_text(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.fill(20)
        async with harness.subscribe("cursor=0&compress=zstd") as client:
            texts = []
            for _ in range(2):
                message = await client.connection.get_message()
                assert isinstance(message, bytes)
                assert zstandard.get_frame_parameters(message).content_size > 0
                texts.append(zstandard.ZstdDecompressor().decompress(message))
            assert json.loads(texts[0])["reason"] == "connect"
            assert texts[1] == b"[%b]" % b",".join(
                (await all_lines(harness))[: len(json.loads(texts[1]))]
            )


async def test_an_options_update_replaces_the_filter_and_is_confirmed(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as harness,
        harness.subscribe(f"wantedDids={did(1)}") as client,
    ):
        await client.news()
        await harness.publish(post(1, author=did(1)), post(2, author=did(2)))
        assert keys(await client.records(1)) == ["k1"]
        await client.update(wantedDids=[did(2)], kinds=["commit"])
        confirmed = await client.news()
        assert (confirmed["reason"], confirmed["cursor"]) == ("options", harness.log.head)
        await harness.publish(post(3, author=did(1)), post(4, author=did(2)))
        assert keys(await client.records(1)) == ["k4"]
        await client.update()
        assert (await client.news())["reason"] == "options"
        await harness.publish(post(5, author=did(1)), post(6, author=did(2)))
        assert keys(await client.records(2)) == ["k5", "k6"]


async def test_with_require_hello_nothing_comes_before_the_first_update(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(1))
        for query, expected in (("", []), ("cursor=0&", ["k1", "k2"])):
            async with harness.subscribe(f"{query}requireHello=true") as client:
                if not query:
                    await harness.publish(post(2))  # before the hello: the head at that moment
                with trio.move_on_after(0.1):
                    pytest.fail(f"came before the hello: {await client.message()}")
                await client.update(wantedDids=[DID])
                first = await client.news()
                assert first["reason"] == "connect"
                if expected:
                    assert keys(await client.records(2)) == expected
                else:
                    assert first["cursor"] == harness.log.head


async def test_without_a_hello_the_connection_ends_with_1008(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "HELLO_SECONDS", 0.2)
    async with serving(tmp_path) as harness, harness.subscribe("requireHello=true") as client:
        assert await client.end() == (1008, [])


@pytest.mark.parametrize(
    "message",
    ["hello", "[]", '{"type":"options_update"}', b'{"type":"options_update","payload":{}}'],
)
async def test_any_other_message_is_an_error_and_1008(tmp_path: Path, message: str | bytes) -> None:
    async with serving(tmp_path) as harness:
        head = await harness.publish(post(1))
        async with harness.subscribe() as client:
            await client.news()
            await client.connection.send_message(message)
            code, (error,) = await client.end()
            assert code == 1008
            assert (error["$type"], error["error"], error["cursor"]) == (
                "#error",
                "InvalidMessage",
                head,
            )
            assert set(error) == {"$type", "error", "message", "cursor"}


async def test_the_sixth_update_in_a_minute_is_an_error(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, harness.subscribe() as client:
        await client.news()
        for _ in range(5):
            await client.update(wantedDids=[DID])
            assert (await client.news())["reason"] == "options"
        await client.update()
        code, (error,) = await client.end()
        assert (code, error["error"]) == (1008, "InvalidMessage")
        assert "five" in error["message"] or "5" in error["message"]


async def test_who_stands_where_records_were_pruned_is_told_so(tmp_path: Path) -> None:
    class Pruning:
        """The log, whose objects are dropped as soon as somebody reads them."""

        def __init__(self, log: Any) -> None:
            self._log = log

        def __getattr__(self, name: str) -> Any:
            return getattr(self._log, name)

        async def read(self, *_: Any) -> Any:
            raise Pruned("everything up to the head was dropped")

    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        await harness.fill(300, padding=20_000)
        harness.server._services.log = Pruning(harness.whole_log)
        async with harness.subscribe("cursor=0") as client:
            first = await client.news()
            code, (error,) = await client.end()
            assert (code, error["error"]) == (1008, "ConsumerTooSlow")
            assert error["cursor"] == first["cursor"]


async def test_what_is_withheld_is_sent_to_nobody(tmp_path: Path) -> None:
    excluded = {did(1)}

    def withhold(head: Head, line: bytes) -> bytes | None:
        if head.did in excluded:
            return None
        return line.replace(b"secret", b"------")

    async with serving(tmp_path, withhold=withhold) as harness:
        messages = [post(n, author=did(n), text="a secret") for n in range(4)]
        async with harness.subscribe() as one, harness.subscribe() as other:
            await one.news()
            await other.news()
            await harness.publish(*messages)
            for client in (one, other):
                found = await client.records(3)
                assert keys(found) == ["k0", "k2", "k3"]
                assert "secret" not in json.dumps(found)
        page = await harness.get("/records?cursor=0")
        assert b"secret" not in page.body
        assert len(page.json_lines()) == 3
        excluded.add(did(2))
        harness.server.withhold(withhold)
        async with harness.subscribe("cursor=0") as client:
            await client.news()
            assert keys(await client.records(2)) == ["k0", "k3"]


async def test_draining_says_bye_with_the_cursor_and_1001(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        head = await harness.publish(post(1))
        async with (
            harness.subscribe() as idle,
            harness.subscribe("cursor=0") as reader,
            harness.subscribe("requireHello=true") as silent,
            trio.open_nursery() as nursery,
        ):
            await idle.news()
            await reader.records(1)
            started = trio.current_time()
            nursery.start_soon(lambda: harness.server.drain(seconds=5))
            for client in (idle, reader, silent):
                code, messages = await client.end()
                assert code == 1001
                assert (messages[-1]["reason"], messages[-1]["cursor"]) == ("bye", head)
            with pytest.raises(OSError, match="all attempts"):
                await harness.connect()
        assert trio.current_time() - started < 4, "sooner than it may take"
        assert harness.server.statistics().connections == 0


async def test_draining_serves_who_is_at_the_door(tmp_path: Path) -> None:
    """Accepted before the end, asking at once: an answer, no refusal."""
    async with (
        serving(tmp_path) as harness,
        await harness.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        await harness.settled(lambda: harness.server.statistics().connections == 1)
        nursery.start_soon(lambda: harness.server.drain(seconds=5))
        await trio.sleep(AT_THE_DOOR_SECONDS / 10)
        raw = await exchange(stream, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 200 " in raw


async def test_draining_refuses_who_is_still_in_handshake(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as harness,
        await harness.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        await harness.settled(lambda: harness.server.statistics().connections == 1)
        nursery.start_soon(lambda: harness.server.drain(seconds=5))
        await trio.sleep(2 * AT_THE_DOOR_SECONDS)
        raw = await exchange(stream, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 503 " in raw
        assert b'"ShuttingDown"' in raw


async def test_draining_does_not_wait_for_the_stuck_beyond_its_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, await open_stream(harness):
        await harness.fill(200, padding=50_000)
        started = trio.current_time()
        await harness.server.drain(seconds=0.3)
        assert 0.2 < trio.current_time() - started < 10


async def test_a_stuck_client_is_reset_and_others_notice_nothing(tmp_path: Path) -> None:
    settings = ServerSettings(stuck_seconds=0.5)
    async with (
        serving(tmp_path, settings=settings) as harness,
        await open_stream(harness),
        harness.subscribe() as other,
    ):
        await other.news()
        for n in range(30):
            await harness.fill(10, padding=50_000)
            assert keys(await other.records(10)) == [f"k{n * 10 + i}" for i in range(10)]
        await harness.settled(lambda: harness.server.statistics().connections == 1)
        assert harness.server.statistics().resets == 1


async def test_a_slow_client_loses_nothing_and_holds_no_memory(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, log_settings=SMALL_MEMORY) as harness,
        harness.subscribe() as client,
    ):
        await client.news()
        await harness.fill(600, padding=10_000)  # six times what memory holds
        await harness.settled(lambda: harness.server.statistics().messages > 1)
        found = await client.records(600)
        assert keys(found) == [f"k{n}" for n in range(600)]


@asynccontextmanager
async def half_sent(harness: Harness, size: int) -> AsyncIterator[trio.SocketStream]:
    async with await open_stream(harness) as stream:
        await stream.send_all(b"\x01\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * (size - 1))
        yield stream


async def test_half_sent_messages_are_bounded_over_all_connections(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, trio.open_nursery() as nursery:
        harness.server._connections.unfinished._max_bytes = 2_000_000

        async def hold() -> None:
            async with half_sent(harness, 300_000):
                await trio.sleep_forever()

        for _ in range(6):
            nursery.start_soon(hold)
        await harness.settled(lambda: harness.server.statistics().unfinished_bytes > 1_790_000)
        async with await open_stream(harness) as stream:
            head = b"\x01\xff" + (900_000).to_bytes(8, "big") + bytes(4)
            raw = await exchange(stream, head + b"x" * 800_000)
            assert not raw.endswith(b"\x03\xe8")
        statistics = harness.server.statistics()
        assert (statistics.resets, statistics.subscribers) == (1, 6)
        nursery.cancel_scope.cancel()


async def test_finished_messages_and_pongs_hold_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, await open_stream(harness) as stream:
        update = b'{"type":"options_update","payload":{}}'
        frame = b"\x81" + bytes([0x80 | len(update)]) + bytes(4) + update
        for _ in range(3):
            await stream.send_all(b"\x8a\x82" + bytes(4) + b"ok" + frame)
        await harness.settled(lambda: harness.server.statistics().messages >= 2)
        assert harness.server.statistics().unfinished_bytes == 0


@pytest.mark.parametrize(
    ("offered", "echoed"),
    [
        ([], None),
        (["turbostream.v1.json"], "turbostream.v1.json"),
        (["other", "turbostream.v1.json"], "turbostream.v1.json"),
    ],
)
async def test_a_known_framing_is_chosen_and_echoed(
    tmp_path: Path, offered: list[str], echoed: str | None
) -> None:
    async with serving(tmp_path) as harness, harness.subscribe(subprotocols=offered) as client:
        await client.news()
        assert client.connection.subprotocol == echoed


async def test_no_known_framing_is_no_refusal_and_not_echoed(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, await harness.connect() as stream:
        request = f"GET /turbostream HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: x\r\n\r\n"
        await stream.send_all(request.encode())
        head = bytes(await stream.receive_some())
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Protocol" not in head


async def test_a_stuck_reader_of_history_does_not_keep_others_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "HISTORY_PATIENCE_SECONDS", 0.1)
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        harness.server._services.history = places = Places(1)
        await harness.fill(400, padding=20_000)
        async with await open_stream(harness, "/turbostream?cursor=0"):
            await harness.settled(lambda: places.taken == 1)
            await trio.sleep(0.1)
            async with harness.subscribe("cursor=0") as client:
                assert keys(await client.records(400)) == [f"k{n}" for n in range(400)]
            assert harness.server.statistics().subscribers >= 1
        await harness.settled(lambda: harness.server.statistics().connections == 0)
        assert places.taken == 0


async def test_whoever_waits_to_read_history_is_neither_silent_nor_deaf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "PROGRESS_SECONDS", 0.2)
    monkeypatch.setattr(subscriber, "LONGEST_WAIT_SECONDS", 0.1)
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        await harness.fill(400, padding=20_000)
        harness.server._services.history = places = Places(1)
        held = places.ask()
        async with harness.subscribe("cursor=0") as client:
            first = await client.news()
            for _ in range(3):
                progress = await client.news(seconds=1)
                assert progress["reason"] == "progress"
                assert (progress["cursor"], progress["live"]) == (first["cursor"], False)
            await client.update(wantedDids=[did(3)])
            while (message := await client.news(seconds=1))["reason"] != "options":
                assert message["reason"] == "progress"
            held.leave()
            assert len(await client.records(4)) == 4
        await harness.settled(lambda: places.taken == 0)


async def test_a_client_stuck_at_a_word_between_records_keeps_nobody_from_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place held for as long as a client may be stuck would be held for a minute."""
    monkeypatch.setattr(subscriber, "HISTORY_PATIENCE_SECONDS", 0.1)

    slow: list[voice.Voice] = []

    async def stuck(one: voice.Voice, *_: object, **__: object) -> None:
        if one in (slow or [one]):
            await trio.sleep_forever()

    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        harness.server._services.history = places = Places(1)
        await harness.fill(400, padding=20_000)
        monkeypatch.setattr(voice.Voice, "progress", stuck)
        async with await open_stream(harness, f"/turbostream?cursor=0&wantedDids={did(500)}"):
            await harness.settled(lambda: places.taken == 1)
            slow += [one._voice for one in harness.server._connections.subscribers]
            async with harness.subscribe("cursor=0") as client:
                assert len(await client.records(400)) == 400


async def test_passing_over_what_is_in_memory_lets_others_run(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, trio.open_nursery() as nursery:
        head = await harness.fill(1500)
        cursors = [json.loads(line)["cursor"] for line in await all_lines(harness)]
        passed = {0}

        async def look() -> None:
            while True:
                for one in harness.server._connections.subscribers:
                    passed.add(bisect_right(cursors, one._position))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(look)
        async with harness.subscribe("cursor=0&maxMessageSizeBytes=1") as client:
            await client.news()
            await harness.settled(lambda: len(cursors) in passed)
        assert harness.log.head == head
        assert max(later - sooner for sooner, later in pairwise(sorted(passed))) <= 400
        nursery.cancel_scope.cancel()


async def test_memory_that_moves_on_during_the_cutover_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow client takes its time for that message, and the position leaves memory again."""
    tell, cutovers = subscriber.Subscriber._tell_cursor, 0

    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:

        async def slowly(one: subscriber.Subscriber, reason: Any) -> None:
            nonlocal cutovers
            await tell(one, reason)
            if reason == "cutover":
                cutovers += 1
            if reason == "cutover" and cutovers == 1:
                await harness.fill(200, padding=20_000)

        monkeypatch.setattr(subscriber.Subscriber, "_tell_cursor", slowly)
        await harness.fill(200, padding=20_000)
        async with harness.subscribe("cursor=0") as client:
            assert keys(await client.records(400)) == [f"k{n}" for n in range(400)]
        assert harness.server.statistics().errors == 0
        assert cutovers == 2


async def test_the_clock_never_cuts_a_frame_off(tmp_path: Path) -> None:
    """It wakes a subscriber in the very moment in which the log does."""
    async with serving(tmp_path) as harness:

        def tick(_: object) -> None:
            for one in harness.server._connections.subscribers:
                one.tick(trio.current_time() + 100)

        harness.log._written = tick
        async with harness.subscribe() as client:
            await client.news()
            for n in range(5):
                await harness.publish(post(n), padding=900_000)
                assert keys(await client.records(1)) == [f"k{n}"]
