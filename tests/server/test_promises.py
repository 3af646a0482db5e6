"""Sentences of docs/protocol.md that no other test holds."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import zstandard

from tests.server.harness import (
    DID,
    LIKE,
    UPGRADE,
    Answer,
    did,
    exchange,
    notice,
    open_stream,
    post,
    serving,
)
from tests.server.test_subscriber import SMALL_MEMORY, keys
from turbod.server import subscriber, voice
from turbod.server.server import AT_THE_DOOR_SECONDS


def masked(text: str) -> bytes:
    data = text.encode()
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + data


async def test_behind_counts_events_where_that_costs_no_scan(tmp_path: Path) -> None:
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        head = await harness.fill(200, padding=20_000)
        async with harness.subscribe("cursor=0") as client:
            first = await client.news()
            assert first["behind"] == {"ms": (head - first["cursor"]) // 1000}
        chunk = harness.log.next_chunk(head - 1)
        assert chunk is not None
        async with harness.subscribe(f"cursor={chunk.after}&wantedDids={did(5)}") as client:
            behind = (await client.news())["behind"]
            assert behind == {"ms": (head - chunk.after) // 1000, "events": len(chunk)}


async def test_now_is_the_servers_clock_and_upstream_how_the_server_stands(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        for state in ("live", "catching_up", "stalled"):
            harness.upstream = state
            before = time.time_ns() // 1000
            async with harness.subscribe() as client:
                first = await client.news()
                assert before <= first["now"] <= time.time_ns() // 1000
                assert first["upstream"] == state


async def test_the_cursor_does_not_move_with_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "HEARTBEAT_SECONDS", 0.05)
    async with serving(tmp_path) as harness:
        head = await harness.publish(post(1))
        async with harness.subscribe() as client:
            for _ in range(3):
                news = await client.news()
                assert (news["cursor"], news["head"]) == (head, head)


async def test_live_turns_false_for_who_lags_and_true_again(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, log_settings=SMALL_MEMORY) as harness,
        harness.subscribe() as client,
    ):
        assert (await client.news())["live"]
        await harness.fill(300, padding=20_000)  # it takes the first few only
        (one,) = harness.server._connections.subscribers
        assert not harness.log.in_memory(one._position)
        await client.update()
        heard: list[dict[str, Any]] = []
        with trio.fail_after(5):
            while not heard or heard[-1]["reason"] != "cutover":
                message = await client.message()
                heard += [message] if isinstance(message, dict) else []
        assert [
            (news["reason"], news["live"]) for news in heard if news["reason"] != "progress"
        ] == [
            ("options", False),
            ("cutover", True),
        ]


async def test_who_lags_is_not_called_live_before_it_reads_on(tmp_path: Path) -> None:
    """As when an options_update is confirmed behind a frame that took long."""
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        await harness.fill(200, padding=20_000)
        async with harness.subscribe() as client:
            assert (await client.news())["live"]
            (one,) = harness.server._connections.subscribers
            one._position = harness.log.floor
            await client.update(wantedDids=[did(200)])
            confirmed = await client.news()
            assert (confirmed["reason"], confirmed["live"]) == ("options", False)
            assert "events" not in confirmed["behind"]


async def test_without_metadata_an_error_is_a_close_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(1))
        async with await open_stream(harness, "/turbostream?metadata=false") as stream:
            raw = await exchange(stream, masked("nonsense"))
            assert raw == b"\x88\x10" + (1008).to_bytes(2, "big") + b"InvalidMessage"


async def test_every_message_is_compressed_that_of_history_and_the_last_one_too(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        await harness.fill(300, padding=20_000)
        texts: list[Any] = []
        async with harness.subscribe("cursor=0&compress=zstd") as client:

            async def message() -> Any:
                frame = await client.connection.get_message()
                assert isinstance(frame, bytes)
                return json.loads(zstandard.ZstdDecompressor().decompress(frame))

            reasons: list[str] = []
            with trio.fail_after(5):
                while (
                    sum(len(text) for text in texts if isinstance(text, list)) < 300
                    or "cutover" not in reasons
                ):
                    texts.append(await message())
                    reasons += [texts[-1]["reason"]] if isinstance(texts[-1], dict) else []
            assert reasons[0] == "connect"
            assert keys([one for text in texts if isinstance(text, list) for one in text]) == [
                f"k{n}" for n in range(300)
            ]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: harness.server.drain(seconds=2))
                assert (await message())["reason"] == "bye"


async def test_a_time_with_a_plus_is_understood_encoded_or_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.fill(5)
        past = datetime.now(UTC) - timedelta(hours=1)
        text = past.strftime("%Y-%m-%dT%H:%M:%S")
        for zone in ("Z", "+00:00", "%2B00:00"):
            answer = await harness.get(f"/records?cursor={text}{zone}")
            assert len(answer.json_lines()) == 5


async def test_who_is_refused_at_the_end_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as harness,
        await harness.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        await harness.settled(lambda: harness.server.statistics().connections == 1)
        nursery.start_soon(lambda: harness.server.drain(seconds=5))
        await trio.sleep(2 * AT_THE_DOOR_SECONDS)
        refused = Answer(await exchange(stream, f"GET /turbostream HTTP/1.1\r\n{UPGRADE}\r\n"))
        assert refused.error == (503, "ShuttingDown")
        assert int(refused.headers["retry-after"]) > 0


async def test_an_update_leaves_shard_and_batch_as_the_query_gave_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, harness.subscribe("shard=0/2&batch=3") as client:
        await client.news()
        await client.update(wantedCollections=["app.bsky.feed.*"])
        assert (await client.news())["reason"] == "options"
        await harness.fill(40)
        async with harness.subscribe("cursor=0&shard=0/2") as other:
            mine: list[dict[str, Any]] = []
            await other.news()
            whole = await other.message()
            while len(mine) < len(whole):
                batch = await client.message()
                assert len(batch) <= 3
                mine += batch
        assert mine == whole
        assert 0 < len(whole) < 40


async def test_no_filter_holds_a_gap_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "LONGEST_WAIT_SECONDS", 0.05)
    queries = (f"wantedDids={did(7)}", "kinds=account", f"wantedCollections={LIKE}", "shard=0/1024")
    async with serving(tmp_path) as harness:
        await harness.publish(post(1))
        for query in queries:
            async with harness.subscribe(query) as client:
                await client.news()
                harness.log.mark_gap("lost")
                await harness.publish(notice(1, "identity", author=DID))
                gap = await client.news()
                assert (gap["name"], gap["message"]) == ("Gap", "lost")
                assert gap["before"] == harness.log.head


async def test_a_message_of_a_megabyte_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, harness.subscribe() as client:
        await client.news()
        update = '{"type":"options_update","payload":{}}'
        await client.connection.send_message(update + " " * (1_000_000 - len(update)))
        assert (await client.news())["reason"] == "options"


async def test_a_page_says_nothing_of_what_is_below_the_floor_and_begins_there(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as harness:
        await harness.fill(3)
        answer = await harness.get("/records?cursor=1000000000000000")
        assert len(answer.json_lines()) == 3
