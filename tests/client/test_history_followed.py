"""From the objects of a public archive into the live stream, as one sequence."""

import json
from pathlib import Path

import pytest

from tests.archive.sealed import add_hour, hour_of_lines
from tests.client.programs import running, until
from tests.server.harness import post
from tests.server.served_archive import HOURS, LONG_AGO, T0, Archive, serving_archive
from turbod.archive.stores.store import StoreFault
from turbod.client import Gap, record
from turbod.cursor import HOUR_US

COUNT = 120  # records an hour


def lines_of(archive: Archive) -> list[bytes]:
    """Return every line of an archive, read without turbod's client."""
    import zstandard  # noqa: PLC0415 - once

    lines: list[bytes] = []
    for name in archive.names:
        data = archive.bytes_of(name)
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            lines += reader.read().splitlines()
    return lines


def cursor_of(line: bytes) -> int:
    return int(json.loads(line)["cursor"])


async def test_history_comes_from_the_objects_and_then_from_the_stream(tmp_path: Path) -> None:
    """This server's stream knows nothing of its archive, so it says what it does not have."""
    async with serving_archive(tmp_path) as (harness, archive):
        await harness.fill(2)
        expected = lines_of(archive)
        async with running(f"127.0.0.1:{harness.port}", cursor=0) as program:
            await until(lambda: program.keys[-2:] == ["k0", "k1"])
            await harness.publish(post(2), post(3))
            await until(lambda: program.keys[-2:] == ["k2", "k3"])
            assert program.lines[:-4] == expected
            assert program.cursor == str(harness.log.head)
            assert [gap.after for gap in program.gaps] == [archive.names[-1].last]
            assert program.words == ["connected"]


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0, 1.5])
async def test_history_begins_behind_any_cursor(tmp_path: Path, place: float) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        after = T0 + int(place * HOUR_US)
        expected = [line for line in lines_of(archive) if cursor_of(line) > after]
        async with running(f"127.0.0.1:{harness.port}", cursor=after) as program:
            await until(lambda: len(program.lines) == len(expected))
            assert program.lines == expected


async def test_a_filter_holds_in_the_objects_as_on_the_stream(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        did = json.loads(lines_of(archive)[0])["did"]
        expected = [line for line in lines_of(archive) if json.loads(line)["did"] == did]
        url = f"127.0.0.1:{harness.port}"
        async with running(url, cursor=0, dids=[did]) as program:
            await until(lambda: len(harness.server._connections.subscribers) == 1)
            await harness.publish(post(0), post(1, author=did))
            await until(lambda: len(program.lines) == len(expected) + 1)
            assert program.lines[:-1] == expected
            assert program.keys[-1] == "k1"


async def test_an_archive_that_is_not_public_is_left_for_the_stream(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, is_public=False) as (harness, _):
        await harness.fill(3)
        async with running(f"127.0.0.1:{harness.port}", cursor=0) as program:
            await until(lambda: len(program.lines) == 3)
            assert program.words[0].startswith("history comes by the stream: ")
            assert "has not made the archive public" in program.words[0]


async def test_damage_is_a_gap_in_its_place(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        expected = lines_of(archive)
        second = archive.names[1]
        path = archive.folder / second.key
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        async with running(f"127.0.0.1:{harness.port}", cursor=0) as program:
            await until(lambda: program.lines[-1:] == expected[-1:], seconds=15)
            (gap,) = program.gaps
            at = program.items.index(gap)
            before, behind = program.items[at - 1], program.items[at + 1]
            assert gap.after == before.cursor == archive.names[0].last  # type: ignore[union-attr]
            assert gap.before == behind.cursor  # type: ignore[union-attr]
            missing = set(expected) - set(program.lines)
            assert missing
            assert all(gap.after < cursor_of(line) < gap.before for line in missing)


async def test_an_archive_that_dies_on_the_way_is_gone_on_with_on_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on where the objects ended; here its log begins later, and that is told."""
    monkeypatch.setattr("turbod.archive.bulk.patience._FIRST_WAIT_SECONDS", 0.01)
    async with serving_archive(tmp_path) as (harness, archive):
        await harness.fill(3)
        read, last = archive.store.read, archive.names[2]
        whole = len(archive.bytes_of(last))

        async def fail(key: str, *, offset: int, size: int) -> bytes:
            if key == last.key and offset + size < whole:  # not its index, but what it is of
                raise StoreFault("no disk")
            return await read(key, offset=offset, size=size)

        monkeypatch.setattr(archive.store, "read", fail)
        async with running(f"127.0.0.1:{harness.port}", cursor=0) as program:
            await until(lambda: len(program.lines) == COUNT * (len(HOURS) - 1) + 3, seconds=10)
            assert any("history comes by the stream" in words for words in program.words)
            (gap,) = program.gaps
            assert gap.after == archive.names[1].last


async def test_a_gap_inside_an_object_is_told_between_its_records(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=()) as (harness, archive):
        lines = hour_of_lines(LONG_AGO, 10)
        cursors = [cursor_of(line) for line in lines]
        hidden = Gap(cursors[4], cursors[5], "the upstream had no more")
        add_hour(archive.folder, lines, previous=0, gaps=[hidden])
        await archive.look()
        async with running(f"127.0.0.1:{harness.port}", cursor=0) as program:
            await until(lambda: len(program.lines) == 10)
            assert program.items[5] == hidden


async def test_an_object_with_what_is_no_record_is_left_for_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another server's copies must be recognised, which needs more than the line's bytes."""
    decode = record._decode_message

    def fail(data: bytes) -> object:
        if b"3k" in bytes(data):  # as the samples of an archive have it
            raise RecursionError("deep")
        return decode(data)

    monkeypatch.setattr(record, "_decode_message", fail)
    async with serving_archive(tmp_path) as (harness, _):
        await harness.fill(2)
        servers = [f"127.0.0.1:{harness.port}", "127.0.0.1:1"]
        async with running(servers, cursor=0) as program:
            await until(lambda: program.keys == ["k0", "k1"])
            assert "history comes by the stream: deep" in program.words
