"""Another turbod's archive as a source, over real sockets: it gives what is stored there."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.archive.s3_servers import S3Server
from tests.server.harness import Harness, serving
from tests.server.served_archive import HOURS, Archive, serving_archive
from turbod.archive.bulk.walk import walk
from turbod.archive.format.names import IDENTITY_KEY, Name
from turbod.archive.stores import web
from turbod.archive.stores.store import NotThere, StoreFault
from turbod.archive.stores.web import WebSource
from turbod.cursor import HOUR_US
from turbod.server import file_answer

KEY = "dt=2024-08-09/hour=02/1723168800000000-1723172370000000.jsonl.zst"
EMPTY = b'{"instance":"here","format":1,"floor":0,"archivedUntil":0,"hours":[]}'


@asynccontextmanager
async def reading(harness: Harness) -> AsyncIterator[WebSource]:
    """Read from a served archive."""
    async with WebSource(f"http://127.0.0.1:{harness.port}/", keeps_details=True) as source:
        yield source


async def test_the_list_is_the_stores_own_in_pages_and_from_any_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_HOURS", 2)
    async with (
        serving_archive(tmp_path, hours=range(5)) as (harness, archive),
        reading(harness) as source,
    ):
        everything = await archive.store.list()
        assert len(everything) == 6
        keys = [each.key for each in everything]
        for after in ("", *keys, "dt=2024-08-09/hour=04/", "s", "z"):
            assert await source.list(after=after) == await archive.store.list(after=after)


async def test_details_come_with_the_list(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive), reading(harness) as source:
        key = archive.names[1].key
        assert source.details(key) is None
        await source.list()
        details = source.details(key)
        assert details is not None
        assert (details.records, details.previous) == (120, archive.names[0].last)
        assert details.size == len(archive.bytes_of(archive.names[1]))


async def test_what_is_in_each_hour_is_kept_only_for_whom_shows_it(tmp_path: Path) -> None:
    """A year of hours with 300 collections each is 240 MB."""
    async with (
        serving_archive(tmp_path) as (harness, archive),
        WebSource(f"http://127.0.0.1:{harness.port}") as source,
    ):
        assert len(await source.list()) == 4
        assert all(source.details(name.key) is None for name in archive.names)


async def test_a_damaged_object_is_listed_without_details(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive), reading(harness) as source:
        name = archive.names[1]
        (archive.folder / name.key).write_bytes(bytes(archive.catalogue.stored()[1].size))
        assert len(await source.list()) == 4
        assert source.details(name.key) is None
        assert source.details(archive.names[2].key) is not None


async def test_a_read_is_exactly_the_bytes_that_are_stored(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        data = archive.bytes_of(name)
        size = len(data)
        async with reading(harness) as source:
            for offset, count in ((0, 1), (0, size), (5, 7), (size - 1, 1), (3, 0), (size, 0)):
                got = await source.read(name.key, offset=offset, size=count)
                assert got == data[offset : offset + count]
            for offset, count in ((0, size + 1), (size - 1, 2), (size, 1)):
                with pytest.raises(StoreFault):
                    await source.read(name.key, offset=offset, size=count)
            identity = (archive.folder / IDENTITY_KEY).read_bytes()
            assert await source.read(IDENTITY_KEY, offset=1, size=5) == identity[1:6]
            with pytest.raises(StoreFault):
                await source.read(IDENTITY_KEY, offset=0, size=len(identity) + 1)


async def test_what_is_not_there_is_told_apart_from_a_fault(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        (archive.folder / name.key).unlink()
        (archive.folder / IDENTITY_KEY).unlink()
        async with reading(harness) as source:
            for key in (KEY.replace("02/", "03/"), name.key, "../secret", "x", IDENTITY_KEY):
                with pytest.raises(NotThere):
                    await source.read(key, offset=0, size=1)


async def test_a_walk_over_the_web_gives_what_a_walk_over_the_folder_gives(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive), reading(harness) as source:
        found = []
        for each in (archive.store, source):
            async with walk(each) as pieces:
                found.append(b"".join([piece.lines async for piece in pieces]))
        assert found[0].count(b"\n") == 360
        assert found[0] == found[1]


async def test_more_reads_at_once_than_the_server_lets_in_wait_here(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        data = archive.bytes_of(name)
        async with reading(harness) as source, trio.open_nursery() as nursery:

            async def read(offset: int) -> None:
                got = await source.read(name.key, offset=offset, size=9)
                assert got == data[offset : offset + 9]

            for offset in range(60):
                nursery.start_soon(read, offset)
        assert harness.server.statistics().refused == {}


async def test_reads_that_are_cancelled_leave_a_source_that_works(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        async with reading(harness) as source:

            async def impatient(number: int) -> None:
                with trio.move_on_after(number % 20 / 2000):
                    await source.read(name.key, offset=0, size=5)

            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(impatient, number)
            with trio.fail_after(5):
                await source.read(name.key, offset=0, size=5)


async def test_what_is_not_public_is_told_with_the_other_way(tmp_path: Path) -> None:
    async with (
        serving_archive(tmp_path, is_public=False) as (harness, archive),
        reading(harness) as source,
    ):
        with pytest.raises(StoreFault, match="not made the archive public; read it over WebSocket"):
            await source.list()
        with pytest.raises(StoreFault, match="not made the archive public"):
            await source.read(archive.names[0].key, offset=0, size=1)


# A bucket behind it -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rclone", "moto"])
async def test_objects_of_a_bucket_come_from_the_bucket(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    folder = Archive(tmp_path)
    folder.fill(HOURS)
    archive = Archive(tmp_path, store=server.store(server.bucket()))
    for each in await folder.store.list():
        await archive.store.put(each.key, folder.folder / each.key)
    await archive.look()
    async with (
        serving(tmp_path / "data", archive=archive.listing()) as harness,
        reading(harness) as source,
    ):
        assert await source.list() == await folder.store.list()
        async with walk(source) as pieces:
            lines = b"".join([piece.lines async for piece in pieces])
        assert lines.count(b"\n") == 360
        answered = harness.server.statistics().answered
        name = archive.names[0]
        data = archive.bytes_of(name)
        for offset in range(5):
            got = await source.read(name.key, offset=offset, size=3)
            assert got == data[offset : offset + 3]
        # Where each object is was kept: the turbod is not asked again.
        assert harness.server.statistics().answered == answered
        source._places[name.key] = source._places[name.key].replace("Signature=", "Signature=0")
        assert await source.read(name.key, offset=0, size=3) == data[:3]


# A server of the worst kind -----------------------------------------------------------------

Script = Callable[[bytes], bytes]


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[int]:
    """Serve whatever a script makes of each request's head; yield the port."""

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(65536)
        said = script(head)
        await stream.send_all(said or b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        if not said:
            await trio.sleep_forever()

    async def guarded(stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            try:
                await serve(stream)
            except trio.BrokenResourceError:
                scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, guarded, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def page(hours: list[object], **more: object) -> bytes:
    """Return a page of the listing."""
    known = {"instance": "here", "format": 1, "floor": 0, "archivedUntil": 0, "hours": hours}
    return answer(json.dumps({**known, **more}).encode())


FIRST = 1723168800000000
ENTRY = {"name": KEY, "hour": "2024-08-09T02", "first": FIRST, "url": "/x"} | {
    "last": 1723172370000000,
    "size": 9,
    "damaged": True,
}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (answer(b"x", "404 Not Found"), "is it a turbod, and of this version?"),
        (answer(b"x", "500 Oh"), "answered 500 when asked for its listing"),
        (answer(b'{"error":"NotReady","message":"wait"}', "503 No"), "503 .*(NotReady: wait)"),
        (answer(b'{"error":"\\u001b[31m","message":"\\n"}', "400 No"), r"\?\[31m: \?"),
        (answer(b"\x1f\x8b\x00"), "not what this turbod reads"),
        (answer(b"[" * 100_000), "not what this turbod reads"),
        (answer(b'{"hours":[]}'), "not what this turbod reads"),
        (page([], format=2), "format 2: update turbod"),
        (page([], cursor=0), "goes on with 0"),
        (page([], cursor=-5), "goes on with -5"),
        (page([{}]), "not what this turbod reads"),
        (page([{**ENTRY, "damaged": False}]), "not what this turbod reads"),
        (page([{**ENTRY, "name": "../../etc/passwd"}]), "has no place there"),
        (page([{**ENTRY, "first": 1723168800000001}]), "has no place there"),
        (page([ENTRY, ENTRY]), "has no place there"),
        (page([ENTRY], cursor=1723168800000000 + 10**10), "goes on with"),
        (answer(b"", "302 Found", "Location: file:///etc/passwd"), "leads to no place on the web"),
        (answer(b"", "302 Found", "Location: ws://there/"), "leads to no place on the web"),
        (answer(b"", "302 Found"), "leads from place to place"),
        (answer(b"", "307 Go", "Location: /archive"), "leads from place to place"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nabc", "not what this turbod reads"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be read"),
        (b"", "did not answer in time"),
    ],
)
async def test_a_server_of_the_worst_kind_is_a_fault_in_one_line(
    monkeypatch: pytest.MonkeyPatch, said: bytes, words: str
) -> None:
    monkeypatch.setattr(web, "PAGE_SECONDS", 0.2)
    monkeypatch.setattr(web, "STALL_SECONDS", 0.2)
    async with scripted(lambda _: said) as port, WebSource(f"http://127.0.0.1:{port}") as source:
        with pytest.raises(StoreFault, match=words) as listing, trio.fail_after(5):
            await source.list()
        with pytest.raises(StoreFault), trio.fail_after(5):
            await source.read(KEY, offset=0, size=100)
    assert str(listing.value).startswith(f"http://127.0.0.1:{port}")
    assert str(listing.value).isprintable()


async def test_pages_without_end_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_PAGES", 5)
    cursors = iter(range(1, 10))
    async with (
        scripted(lambda _: page([], cursor=next(cursors))) as port,
        WebSource(f"http://127.0.0.1:{port}") as source,
    ):
        with pytest.raises(StoreFault, match="more than 5 pages"):
            await source.list()


async def test_objects_without_end_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a thousand, ten thousand times, would be gigabytes."""
    monkeypatch.setattr(web, "MAX_LISTED", 3)

    def entry(number: int) -> dict[str, Any]:
        cursor = FIRST + number * HOUR_US
        return {**ENTRY, "name": Name(cursor, cursor).key, "first": cursor, "last": cursor}

    numbers = count(1)
    async with (
        scripted(lambda _: page([one := entry(next(numbers))], cursor=one["last"])) as port,
        WebSource(f"http://127.0.0.1:{port}") as source,
    ):
        with pytest.raises(StoreFault, match="more than 3 objects"):
            await source.list()
    assert next(numbers) == 5


async def test_a_page_too_long_for_memory_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_PAGE_BYTES", 1000)
    # Whoever waited for its end would see it break off.
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + b" " * 5_000_000
    async with scripted(lambda _: long) as port, WebSource(f"http://127.0.0.1:{port}") as source:
        with pytest.raises(StoreFault, match="sent more than 1000 bytes"):
            await source.list()


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        (answer(b"abcde", "206 Part", "Content-Range: bytes 3-7/99"), True),
        (answer(b"abcde", "200 OK", "Content-Range: bytes 3-7/99"), True),  # as rclone answers
        (answer(b"abcde", "206 Part", "Content-Range: bytes 2-6/99"), False),
        (answer(b"abcde", "206 Part"), False),
        (answer(b"abcde"), False),
        (answer(b"abc", "206 Part", "Content-Range: bytes 3-5/6"), False),
        (answer(b"abcdefgh", "206 Part", "Content-Range: bytes 3-7/99"), False),
        (answer(b"x" * 5_000_000), False),
        (answer(b"", "416 No", "Content-Range: bytes */3"), False),
        (answer(b"", "304 Not Modified"), False),
    ],
)
async def test_only_the_right_bytes_are_taken(said: bytes, *, is_right: bool) -> None:
    async with scripted(lambda _: said) as port, WebSource(f"http://127.0.0.1:{port}") as source:
        if is_right:
            assert await source.read(KEY, offset=3, size=5) == b"abcde"
        else:
            with pytest.raises(StoreFault):
                await source.read(KEY, offset=3, size=5)


async def test_a_busy_server_is_asked_again_when_it_says_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "BUSY_SECONDS", 0.35)
    asked, free_at = 0, 3

    def script(_: bytes) -> bytes:
        nonlocal asked
        asked += 1
        refusal = answer(b"", "429 Too Many", "Retry-After: 0")  # which is taken for a tenth
        return refusal if asked < free_at else answer(EMPTY)

    async with scripted(script) as port, WebSource(f"http://127.0.0.1:{port}") as source:
        await source.list()
        asked, free_at = 0, 1000
        with pytest.raises(StoreFault, match="answered 429"):
            await source.list()
        assert 2 <= asked <= 4


async def test_a_password_in_the_url_goes_to_the_turbod_alone_and_into_no_message() -> None:
    heads: list[bytes] = []

    def bucket(head: bytes) -> bytes:
        heads.append(head)
        return answer(b"<Error/>", "403 Forbidden")

    async with scripted(bucket) as elsewhere:
        place = f"http://127.0.0.1:{elsewhere}/{KEY}?X-Amz-Signature=secret"

        def turbod(head: bytes) -> bytes:
            heads.append(head)
            return answer(b"", "307 Go", f"Location: {place}")

        async with (
            scripted(turbod) as port,
            WebSource(f"http://user:secret@127.0.0.1:{port}") as source,
        ):
            assert source.url == f"http://127.0.0.1:{port}"
            with pytest.raises(StoreFault) as fault:
                await source.read(KEY, offset=0, size=5)
    asked, signed = (head.lower() for head in heads)
    assert b"authorization: basic" in asked
    assert b"authorization" not in signed
    assert b"range: bytes=0-4" in signed
    assert "secret" not in str(fault.value)
    assert f"127.0.0.1:{elsewhere}/{KEY} answered 403" in str(fault.value)


async def test_a_connection_that_cannot_be_made_secure_is_a_fault_in_words(
    tmp_path: Path,
) -> None:
    """A wrong certificate is told in the same way."""
    async with (
        serving(tmp_path) as harness,
        WebSource(f"https://127.0.0.1:{harness.port}") as source,
    ):
        with pytest.raises(StoreFault, match="cannot be read: wrong version number"):
            await source.list()


async def test_nobody_there_is_a_fault_in_words() -> None:
    async with WebSource("http://127.0.0.1:9") as source:
        with pytest.raises(StoreFault, match=r"http://127\.0\.0\.1:9.* cannot be read"):
            await source.list()


def test_as_many_connections_as_a_server_lets_in() -> None:
    assert web.CONNECTIONS == file_answer.CONCURRENT_DOWNLOADS
