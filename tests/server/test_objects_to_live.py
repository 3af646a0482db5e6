"""From the oldest object to live on one connection, over real objects, files and sockets."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import zstandard

from tests.archive.sealed import COLLECTIONS, DIDS, HOUR, T0, make_archive
from tests.server.harness import SERVED, Harness, post, serving
from turbod.config import LogSettings, ServerSettings
from turbod.filter import STREAM_PARAMETERS, read_query
from turbod.record import head_of_line
from turbod.server import subscriber, voice

HOURS = (0, 1, 3)
SMALL_MEMORY = LogSettings(memory_bytes=1024 * 1024)
QUERIES = [
    "",
    f"wantedDids={DIDS[3]}",
    f"aboutDids={DIDS[4]}&wantedDids={DIDS[1]}",
    f"wantedCollections={COLLECTIONS[2]}",
    "wantedCollections=app.bsky.feed.*&kinds=commit",
    "kinds=identity",
    "shard=1/3",
    "batch=7&maxMessageSizeBytes=600",
    "compress=zstd",
]


def selected(lines: Sequence[bytes], query: str, *, after: int) -> list[int]:
    """The cursors that a plain scan selects."""
    chosen = read_query(query, known=STREAM_PARAMETERS, served=SERVED).filter
    heads = [(head_of_line(line), len(line)) for line in lines]
    return [
        head.cursor for head, size in heads if head.cursor > after and chosen.matches(head, size)
    ]


async def all_lines(harness: Harness, archived: Sequence[bytes]) -> list[bytes]:
    """A plain scan of objects and files."""
    position, lines = harness.log.floor, [line.removesuffix(b"\n") for line in archived]
    while chunks := await harness.log.read_chunks(position):
        lines += [chunk.line(n) for chunk in chunks for n in range(len(chunk))]
        position = chunks[-1].last
    return lines


async def read(harness: Harness, cursor: int, query: str, *, until: int) -> list[Any]:
    """Every record up to a position, and what else but `#cursor` was said."""
    found: list[Any] = []
    async with harness.subscribe(f"cursor={cursor}&{query}".rstrip("&")) as client:
        while True:
            message = await client.connection.get_message()
            if isinstance(message, bytes):
                message = _plain(message)
            decoded = json.loads(message)
            if isinstance(decoded, list):
                found += [one["cursor"] for one in decoded]
            elif decoded["$type"] != "#cursor":
                found.append(decoded)
            elif decoded["cursor"] >= until:
                return found


def _plain(message: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(message)


async def test_every_cursor_and_filter_is_sent_what_a_plain_scan_selects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A heartbeat tells the end to those whose filter leaves it out.
    monkeypatch.setattr(voice, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(subscriber, "LONGEST_WAIT_SECONDS", 0.05)
    dice = random.Random(5)
    archived = make_archive(tmp_path / "archive", HOURS)
    async with serving(tmp_path, log_settings=SMALL_MEMORY) as harness:
        await harness.fill(150, padding=10_000)
        last = [post(900 + n, author=DIDS[n % 8]) for n in range(50)]
        until = await harness.publish(*last)
        lines = await all_lines(harness, archived)
        assert len(lines) == 3 * 120 + 200
        cursors = [json.loads(line)["cursor"] for line in lines]
        edges = [0, T0 - 1, T0 + HOUR - 1, T0 + HOUR, T0 + 2 * HOUR, T0 + 4 * HOUR - 1]
        places = [*edges, *dice.sample(cursors, 10), cursors[359], cursors[360]]
        for number, place in enumerate(places):
            query = QUERIES[number % len(QUERIES)]
            expected = selected(lines, query, after=place)
            with trio.fail_after(10):
                found = await read(harness, place, query, until=until)
            assert [one for one in found if isinstance(one, int)] == expected, (place, query)
            told = [one["name"] for one in found if isinstance(one, dict)]
            assert told == (["OutdatedCursor"] if 0 < place < T0 - 1 else []), place
        assert harness.server.statistics().errors == 0
        await harness.settled(lambda: harness.server.statistics().archive_readers == 0)


async def test_pages_lead_from_the_oldest_object_to_the_head(tmp_path: Path) -> None:
    archived = make_archive(tmp_path / "archive", HOURS)
    async with serving(tmp_path) as harness:
        head = await harness.fill(30)
        lines = await all_lines(harness, archived)
        cursor, found = 0, list[bytes]()
        while cursor < head:
            answer = await harness.get(f"/records?cursor={cursor}&limit=77")
            assert answer.status == 200
            found += answer.body.splitlines()
            cursor = int(answer.headers["turbod-cursor"])
        assert found == lines


async def test_where_an_object_vanished_there_is_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "HEARTBEAT_SECONDS", 0.1)
    archived = make_archive(tmp_path / "archive", HOURS)
    (vanishing,) = (tmp_path / "archive").glob("dt=*/hour=11/*.zst")
    async with serving(tmp_path) as harness:
        until = await harness.fill(5)
        vanishing.unlink()
        lines = await all_lines(harness, archived)
        cursors = [json.loads(line)["cursor"] for line in lines]
        found = await read(harness, 0, "", until=until)
        (gap,) = [one for one in found if isinstance(one, dict)]
        assert found == [*cursors[:120], gap, *cursors[240:]]
        assert (gap["name"], gap["after"], gap["before"]) == ("Gap", cursors[119], cursors[240])
        answer = await harness.get("/records?cursor=0&limit=1000")
        assert answer.headers["turbod-gap"] == f"{cursors[119]}-{cursors[240]}"
        assert len(answer.json_lines()) == 245


async def test_more_clients_than_places_walk_from_the_objects_to_live(tmp_path: Path) -> None:
    """Some begin in memory and fall back, which nobody is refused for."""
    archived = make_archive(tmp_path / "archive", HOURS, count=400)
    settings = ServerSettings(max_history_readers=2)
    async with serving(tmp_path, settings=settings) as harness, trio.open_nursery() as nursery:
        until = await harness.fill(10)
        cursors = [json.loads(line)["cursor"] for line in await all_lines(harness, archived)]
        results: list[list[Any]] = []

        async def collect() -> None:
            async with harness.subscribe("cursor=0&requireHello=true") as client:
                await client.update()
                found: list[int] = []
                while not found or found[-1] < until:
                    message = await client.message()
                    found += [one["cursor"] for one in message if isinstance(message, list)]
                results.append(found)

        for _ in range(6):
            nursery.start_soon(collect)
        await harness.settled(lambda: len(results) == 6, seconds=20)
        assert results == [cursors] * 6
