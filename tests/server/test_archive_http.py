"""GET /archive over real sockets: what is listed is true, and an object comes as it is stored."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.archive.sealed import HOUR, add_hour, hour_of_lines
from tests.server.harness import Answer, Harness, serving
from tests.server.served_archive import HOURS, LONG_AGO, T0, Archive, serving_archive
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.names import IDENTITY_KEY, Name, parse_file
from turbod.archive.stores.folder import FolderStore
from turbod.archive.stores.hours_page import MAX_HOURS
from turbod.archive.stores.store import Listed, NotThere, Store, StoreFault
from turbod.config import ServerSettings
from turbod.cursor import hour_name
from turbod.eventlog.chunk import Gap
from turbod.server import archive_entries, archive_listing, file_answer

# The listing --------------------------------------------------------------------------------


async def test_the_listing_tells_of_each_hour_what_its_index_says(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    first, second = hour_of_lines(LONG_AGO, 60), hour_of_lines(LONG_AGO + 1, 40)
    last = json.loads(first[-1])["cursor"]
    gap = Gap(last, T0 + HOUR, "nobody had them")
    add_hour(archive.folder, first, previous=0)
    name = add_hour(archive.folder, second, previous=last, gaps=[gap])
    await archive.look()
    async with serving(tmp_path / "data", archive=archive.listing()) as harness:
        answer = await harness.get("/archive")
    assert answer.headers["content-type"] == "application/json"
    page = answer.json
    hours = page.pop("hours")
    assert page == {"instance": "here", "format": 1, "floor": T0 - 1, "archivedUntil": name.last}
    assert [hour["hour"] for hour in hours] == ["2024-08-09T02", "2024-08-09T03"]
    collections = hours[1].pop("collections")
    assert sum(collections.values()) == 40
    assert "#identity" in collections
    assert hours[1] == {
        "name": name.key,
        "hour": hour_name(name.hour),
        "first": name.first,
        "last": name.last,
        "previous": last,
        "records": 40,
        "size": len(archive.bytes_of(name)),
        "rawBytes": sum(map(len, second)),
        "sha256": hashlib.sha256(b"".join(second)).hexdigest(),
        "gaps": [{"after": gap.after, "before": gap.before, "message": gap.message}],
        "url": f"/archive/{name.key}",
    }


async def test_pages_lead_through_all_hours_and_the_last_leads_no_further(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0, 1, 3, 4, 5)) as (harness, archive):
        cursor: int | None = 0
        found: list[str] = []
        counts: list[int] = []
        while cursor is not None:
            page = (await harness.get(f"/archive?cursor={cursor}&limit=2")).json
            found += [hour["name"] for hour in page["hours"]]
            counts.append(len(page["hours"]))
            cursor = page.get("cursor")
        assert counts == [2, 2, 1]
        assert found == [name.key for name in archive.names]


async def test_cursor_and_until_choose_the_hours_that_have_such_records(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        first, second, third = archive.names
        cases: dict[str, list[Name]] = {
            "": [first, second, third],
            "cursor=0": [first, second, third],
            f"cursor={first.last - 1}": [first, second, third],
            f"cursor={first.last}": [second, third],
            f"cursor={third.last}": [],
            f"until={second.first}": [first, second],
            f"until={second.first - 1}": [first],
            f"cursor={first.last}&until={third.first - 1}": [second],
            "cursor=2024-08-09T03:00:00Z&until=2024-08-09T05:00:00Z": [second],
        }
        for query, expected in cases.items():
            page = (await harness.get(f"/archive?{query}")).json
            assert [hour["name"] for hour in page["hours"]] == [n.key for n in expected], query
            assert "cursor" not in page


async def test_a_query_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    queries = (
        *("cursor=x", "cursor=", "limit=0", "limit=1001", "limit=-1", "limit=%D9%A1", "limit=1e3"),
        *("until=0", "until=1723168800000000&cursor=1723168800000000", "cursor=0&cursor=0"),
        *("wantedDids=did:plc:x", "limit=1&limit=1", "%ff=1", "cursor=9007199254740992"),
    )
    async with serving_archive(tmp_path, hours=()) as (harness, _):
        for query in queries:
            answer = await harness.get(f"/archive?{query}")
            assert answer.error == (400, "InvalidRequest"), query


async def test_a_cursor_of_the_future_is_refused_as_everywhere(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, _):
        for name in ("cursor", "until"):
            answer = await harness.get(f"/archive?{name}=9007199254740991")
            assert answer.error == (400, "FutureCursor")


async def test_only_what_the_store_has_is_listed_and_served(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        waiting = Name(T0 + 5 * HOUR, T0 + 5 * HOUR + 9)
        archive.catalogue.add_local(waiting, 100, tmp_path / waiting.file)
        between = Name(T0 + 2 * HOUR, T0 + 2 * HOUR + 9)
        archive.catalogue.add_local(between, 100, tmp_path / between.file)
        page = (await harness.get("/archive")).json
        assert len(page["hours"]) == 3
        assert page["archivedUntil"] == archive.names[-1].last
        assert "cursor" not in page
        for name in (waiting, between, Name(between.first + 1, between.last)):
            path = archive.folder / name.key  # where nobody has verified it yet
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            assert (await harness.get(f"/archive/{name.key}")).error == (404, "NotFound")


async def test_an_empty_archive_has_an_empty_listing(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=()) as (harness, _):
        page = (await harness.get("/archive")).json
        assert page == {"instance": "here", "format": 1, "floor": 0, "archivedUntil": 0} | {
            "hours": []
        }


async def test_a_damaged_object_is_listed_as_such_and_served_as_it_is(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        name = archive.names[1]
        path = archive.folder / name.key
        damaged = path.read_bytes()[:-40] + bytes(40)
        path.unlink()
        path.write_bytes(damaged)
        hours = (await harness.get("/archive")).json["hours"]
        assert [hour.get("damaged", False) for hour in hours] == [False, True, False]
        assert hours[1] == {
            "name": name.key,
            "hour": hour_name(name.hour),
            "first": name.first,
            "last": name.last,
            "size": len(damaged),
            "url": f"/archive/{name.key}",
            "damaged": True,
        }
        assert (await harness.get(f"/archive/{name.key}")).body == damaged


async def test_each_index_is_read_once_however_often_the_hours_are_listed(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(harness.get, "/archive")
        await harness.get("/archive?limit=1")
        assert sorted(archive.asked) == archive.names


async def test_what_is_kept_of_the_listing_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_entries, "KEPT_BYTES", 1000)
    async with serving_archive(tmp_path) as (harness, archive):
        first, second = (await harness.get("/archive")), (await harness.get("/archive"))
        assert first.json == second.json
        assert len(archive.asked) > 3


async def test_a_page_is_bounded_in_bytes_and_says_where_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_listing, "MAX_PAGE_BYTES", 1)
    monkeypatch.setattr(archive_listing, "CONCURRENT_INDEXES", 1)
    async with serving_archive(tmp_path) as (harness, archive):
        page = (await harness.get("/archive")).json
        assert len(page["hours"]) == 1
        assert page["cursor"] == archive.names[0].last


async def test_a_store_that_does_not_answer_is_told_and_is_no_damage(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        archive.fault = StoreFault("s3://secret-bucket: does not answer")
        answer = await harness.get("/archive")
        assert answer.error == (503, "HistoryUnavailable")
        assert b"secret-bucket" not in answer.body
        assert int(answer.headers["retry-after"]) > 0
        archive.fault = None
        await harness.get(f"/archive?until={archive.names[0].last}")
        archive.fault = StoreFault("away again")
        page = (await harness.get("/archive")).json
        assert (len(page["hours"]), page["cursor"]) == (1, archive.names[0].last)


@pytest.mark.parametrize("fault", [Damaged("no index"), NotThere("gone")])
async def test_damage_is_looked_at_again_the_next_time(tmp_path: Path, fault: Exception) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        archive.fault = fault
        assert (await harness.get("/archive")).json["hours"][0]["damaged"] is True
        archive.fault = None
        assert "damaged" not in (await harness.get("/archive")).json["hours"][0]


async def test_pages_of_the_listing_on_their_way_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_listing, "CONCURRENT_PAGES", 1)
    async with serving_archive(tmp_path) as (harness, archive):
        archive.go = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.get, "/archive")
            await harness.settled(lambda: bool(archive.asked))
            assert (await harness.get("/archive")).error == (429, "TooManyConnections")
            archive.go.set()
        assert (await harness.get("/archive")).status == 200


# Who may ask --------------------------------------------------------------------------------


async def test_what_the_operator_has_not_made_public_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    async with serving_archive(tmp_path, is_public=False) as (harness, archive):
        for path in ("", "?cursor=x", "/turbod.json", f"/{archive.names[0].key}", "/nothing"):
            answer = await harness.get(f"/archive{path}")
            assert answer.error == (403, "NotPublic")
            assert "archive.public = true" in answer.json["message"]


async def test_before_the_log_and_the_listing_are_there_it_is_not_ready(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        harness.is_ready = False
        assert (await harness.get("/archive")).error == (503, "NotReady")
        harness.is_ready = True
        archive.catalogue.is_listed = False
        for path in ("", f"/{archive.names[0].key}", "/turbod.json"):
            answer = await harness.get(f"/archive{path}")
            assert answer.error == (503, "NotReady")
            assert int(answer.headers["retry-after"]) > 0


async def test_head_answers_like_get_without_the_body(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        for path in ("", "/turbod.json", f"/{archive.names[0].key}"):
            got = await harness.get(f"/archive{path}")
            head = await harness.get(f"/archive{path}", method="HEAD")
            assert (head.status, head.body) == (200, b"")
            assert head.headers == got.headers, path


# Objects ------------------------------------------------------------------------------------


async def fetch(harness: Harness, path: str, **headers: str) -> Answer:
    """Get something with more headers, underscores for hyphens."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return Answer(await harness.exchange(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"))


async def test_an_object_comes_as_it_is_stored(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        for name in archive.names:
            answer = await harness.get(f"/archive/{name.key}")
            assert answer.status == 200
            assert answer.body == archive.bytes_of(name)
            assert answer.headers["content-type"] == "application/zstd"
            assert answer.headers["content-length"] == str(len(answer.body))
            assert answer.headers["accept-ranges"] == "bytes"
            assert answer.headers["etag"] == f'"{name.first}-{name.last}"'
            assert "public" in answer.headers["cache-control"]
            assert "immutable" in answer.headers["cache-control"]
        quoted = archive.names[0].key.replace("=", "%3D")
        assert (await harness.get(f"/archive/{quoted}")).status == 200
        identity = await harness.get("/archive/turbod.json")
        assert identity.json == {"format": 1, "instance": "here"}


async def test_a_range_is_exactly_those_bytes(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        data = archive.bytes_of(name)
        size = len(data)
        for asked, first, end in (
            ("bytes=0-0", 0, 1),
            ("bytes=5-9", 5, 10),
            (f"bytes={size - 1}-", size - 1, size),
            ("bytes=0-", 0, size),
            (f"bytes=7-{size * 9}", 7, size),
            (f"bytes=7-{'9' * 30}", 7, size),
            ("bytes=-1", size - 1, size),
            (f"bytes=-{size}", 0, size),
            (f"bytes=-{size + 5}", 0, size),
        ):
            answer = await fetch(harness, f"/archive/{name.key}", Range=asked)
            assert answer.status == 206, asked
            assert answer.body == data[first:end], asked
            assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
            assert answer.headers["content-length"] == str(end - first)


async def test_a_range_beyond_the_end_is_416_with_the_size(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        size = len(archive.bytes_of(name))
        for asked in (
            f"bytes={size}-",
            f"bytes={size}-{size + 1}",
            f"bytes={'9' * 30}-",
            "bytes=-0",
        ):
            answer = await fetch(harness, f"/archive/{name.key}", Range=asked)
            assert answer.error == (416, "RangeNotSatisfiable"), asked
            assert answer.headers["content-range"] == f"bytes */{size}"


async def test_a_range_that_is_none_is_passed_over(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        for asked in (
            *("bytes=9-5", "bytes=", "bytes=-", "bytes=a-b", "lines=0-5", "bytes=0-1,5-6"),
            *("bytes=0x1-2", "bytes=1--2", "bytes= 0 - 1", f"bytes={'1' * 60000}-"),
        ):
            answer = await fetch(harness, f"/archive/{name.key}", Range=asked)
            assert (answer.status, answer.body) == (200, archive.bytes_of(name)), asked
        head = await harness.exchange(
            f"HEAD /archive/{name.key} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n"
        )
        assert Answer(head).status == 200


async def test_conditions_hold_by_the_tag(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        path, tag = f"/archive/{name.key}", f'"{name.first}-{name.last}"'
        get = partial(fetch, harness, path)
        assert (await get(Range="bytes=1-2", If_Range=tag)).status == 206
        for other in ('"x"', f"W/{tag}", "Fri, 09 Aug 2024 08:00:00 GMT"):
            assert (await get(Range="bytes=1-2", If_Range=other)).status == 200, other
        for same in (tag, f'"x", W/{tag}', "*"):
            answer = await get(If_None_Match=same)
            assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag), same
        assert (await get(If_None_Match='"x"')).status == 200
        assert (await get(If_Match=tag)).status == 200
        assert (await get(If_Match='"x"')).error == (412, "PreconditionFailed")


async def test_a_key_is_looked_up_and_never_a_path(tmp_path: Path) -> None:
    paths = (
        *("/", "/..", "/../", "/../turbod.json", "/%2e%2e/turbod.json", "/%2e%2e%2fturbod.json"),
        *("//etc/passwd", "/%2fetc%2fpasswd", "/etc/passwd", "/turbod.json/", "/turbod.json%00"),
        *("/KEY%00", "/KEY/", "/./KEY", "/x/../KEY", "//KEY", "/KEY%20", "/%c0%ae%c0%ae/", "/%ff"),
        *("/" + "a" * 60_000, "/" + "../" * 20_000, "/KEY\\..", "/dt=2024-08-09", "/secret"),
        *("/dt=2024-08-09/hour=02/", "/dt=2024-08-09/hour=03/FILE", "/FILE", "/%252e%252e"),
    )
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        (archive.folder / "secret").write_text("x")
        for path in paths:
            tried = path.replace("KEY", name.key).replace("FILE", name.file)
            answer = await harness.get(f"/archive{tried}")
            assert answer.error == (404, "NotFound"), path


async def test_an_object_takes_no_parameters(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        answer = await harness.get(f"/archive/{archive.names[0].key}?x=1")
        assert answer.error == (400, "InvalidRequest")


async def test_an_object_that_went_away_is_404(tmp_path: Path) -> None:
    async with serving_archive(tmp_path, hours=(0,)) as (harness, archive):
        [name] = archive.names
        (archive.folder / name.key).unlink()
        assert (await harness.get(f"/archive/{name.key}")).error == (404, "NotFound")
        (archive.folder / "turbod.json").unlink()
        assert (await harness.get("/archive/turbod.json")).error == (404, "NotFound")


@asynccontextmanager
async def serving_big(
    root: Path, size: int, *, settings: ServerSettings | None = None
) -> AsyncIterator[tuple[Harness, Archive, Name]]:
    """Serve an object of so many bytes, which need be none of turbod's to be served."""
    async with serving_archive(root, settings=settings, hours=(0,)) as (harness, archive):
        name = Name(T0 + 9 * HOUR, T0 + 9 * HOUR + 5)
        path = archive.folder / name.key
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(size))
        await archive.look()
        yield harness, archive, name


async def test_twelve_at_once_eight_are_served_whole_and_four_come_again(tmp_path: Path) -> None:
    async with serving_big(tmp_path, 24 * 1024 * 1024) as (harness, archive, name):
        url = f"http://127.0.0.1:{harness.port}/archive/{name.key}"
        refused = 0

        async def download(client: httpx.AsyncClient) -> None:
            nonlocal refused
            while True:
                response = await client.get(url)
                if response.status_code == 200:
                    assert response.content == archive.bytes_of(name)
                    return
                assert response.json()["error"] == "TooManyConnections"
                refused += 1
                await trio.sleep(0.1)

        async with (
            httpx.AsyncClient(trust_env=False, timeout=30) as client,
            trio.open_nursery() as nursery,
        ):
            for _ in range(12):
                nursery.start_soon(download, client)
            await trio.sleep(0.05)
            assert (await harness.get("/healthz")).status == 200
        assert refused >= 4
        assert (await harness.get("/archive")).status == 200


async def unread(harness: Harness, path: str) -> trio.SocketStream:
    """Ask for something and read none of it."""
    stream = await harness.connect()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return stream


async def read_all(stream: trio.SocketStream) -> bytes:
    """Read to the end."""
    return b"".join([bytes(data) async for data in stream])


async def test_a_client_that_stops_reading_is_reset_and_holds_nothing(tmp_path: Path) -> None:
    settings = ServerSettings(stuck_seconds=0.3)
    async with serving_big(tmp_path, 32 * 1024 * 1024, settings=settings) as (harness, _, name):
        async with await unread(harness, f"/archive/{name.key}") as stream:
            await harness.settled(lambda: harness.server.statistics().resets == 1)
            with pytest.raises(trio.BrokenResourceError):
                await read_all(stream)
        await harness.settled(lambda: harness.server.statistics().connections == 0)
        assert harness.server.statistics().errors == 0


async def test_a_slow_client_that_takes_enough_gets_all(tmp_path: Path) -> None:
    settings = ServerSettings(stuck_seconds=1)
    async with serving_big(tmp_path, 16_000_000, settings=settings) as (harness, archive, name):
        received = b""
        async with await harness.connect() as stream:
            await stream.send_all(f"GET /archive/{name.key} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            for _ in range(15):
                received += await stream.receive_some(256 * 1024)
                await trio.sleep(0.1)
            received += await read_all(stream)
        assert received.endswith(archive.bytes_of(name))


async def test_a_shutdown_does_not_wait_for_a_download(tmp_path: Path) -> None:
    async with (
        serving_big(tmp_path, 32 * 1024 * 1024) as (harness, _, name),
        await unread(harness, f"/archive/{name.key}") as stream,
    ):
        assert await stream.receive_some(1)
        with trio.fail_after(10):
            await harness.server.drain(seconds=30)


class Failing:
    """A store whose objects can be read up to some byte."""

    def __init__(self, store: Store, *, good_bytes: int) -> None:
        self._store = store
        self._good_bytes = good_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        if offset + size > self._good_bytes:
            raise StoreFault(f"{key}: the disk says no")
        return await self._store.read(key, offset=offset, size=size)


async def test_what_cannot_be_read_further_ends_early_and_says_so_by_its_length(
    tmp_path: Path,
) -> None:
    async with serving_big(tmp_path, 1024 * 1024) as (harness, archive, name):
        data = archive.bytes_of(name)
    failing: Any = Failing(archive.store, good_bytes=600 * 1024)
    broken = Archive(tmp_path, store=failing)
    await broken.look()
    async with serving(tmp_path / "more", archive=broken.listing()) as harness:
        answer = await harness.get(f"/archive/{name.key}")
        assert answer.headers["content-length"] == str(len(data))
        assert 0 < len(answer.body) < len(data)
        assert data.startswith(answer.body)
        answer = await fetch(harness, f"/archive/{name.key}", Range="bytes=700000-700001")
        assert answer.error == (503, "HistoryUnavailable")
        assert harness.server.statistics().errors == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
async def test_curl_lists_downloads_and_resumes(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        base = f"http://127.0.0.1:{harness.port}"

        async def curl(*arguments: str) -> bytes:
            command = ["curl", "--silent", "--show-error", "--fail", *arguments]
            done = await trio.run_process(command, capture_stdout=True)
            return done.stdout

        hours = json.loads(await curl(f"{base}/archive"))["hours"]
        name = archive.names[0]
        target = tmp_path / "resumed"
        target.write_bytes(archive.bytes_of(name)[:1000])
        await curl("--continue-at", "-", "--output", str(target), base + hours[0]["url"])
        assert target.read_bytes() == archive.bytes_of(name)
        assert parse_file(Path(hours[0]["name"]).name) == name
        if shutil.which("zstd") is not None:
            plain = await trio.run_process(["zstd", "-dc", target], capture_stdout=True)
            assert hashlib.sha256(plain.stdout).hexdigest() == hours[0]["sha256"]


# A bucket -----------------------------------------------------------------------------------


class Bucket(Failing):
    """A store that signs URLs."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, good_bytes=2**60)
        self.signed: list[tuple[str, int]] = []

    async def url_of(self, key: str, *, seconds: int) -> str | None:
        self.signed.append((key, seconds))
        return f"https://bucket.test/{key}?signature=s"


async def test_of_a_bucket_the_client_is_sent_to_a_signed_url(tmp_path: Path) -> None:
    folder = Archive(tmp_path)
    folder.fill(HOURS)
    bucket: Any = Bucket(folder.store)
    archive = Archive(tmp_path, store=bucket)
    await archive.look()
    async with serving(tmp_path / "data", archive=archive.listing()) as harness:
        name = archive.names[0]
        answer = await fetch(harness, f"/archive/{name.key}", Range="bytes=0-5")
        assert (answer.status, answer.body) == (307, b"")
        assert answer.headers["location"] == f"https://bucket.test/{name.key}?signature=s"
        assert answer.headers["cache-control"] == "no-store"
        assert bucket.signed == [(name.key, 3600)]
        head = await harness.get(f"/archive/{name.key}", method="HEAD")
        assert (head.status, int(head.headers["content-length"])) == (
            200,
            len(archive.bytes_of(name)),
        )
        assert (await harness.get("/archive/turbod.json")).json["instance"] == "here"
        assert (await harness.get("/archive/nothing")).status == 404
        assert len(bucket.signed) == 1


def test_the_numbers_are_those_of_the_protocol() -> None:
    assert archive_listing.DEFAULT_HOURS == 168
    assert MAX_HOURS == 1000
    assert file_answer.CONCURRENT_DOWNLOADS == 8


async def test_the_identity_is_asked_of_the_store_once_for_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time would be two requests that a bucket bills, and a turn before readers of history."""
    asked: list[str] = []
    plain_list = FolderStore.list

    async def list_and_note(store: FolderStore, *, after: str = "") -> list[Listed]:
        asked.append(after)
        return await plain_list(store, after=after)

    monkeypatch.setattr(FolderStore, "list", list_and_note)
    async with serving_archive(tmp_path) as (harness, archive):
        asked.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(harness.get, f"/archive/{IDENTITY_KEY}")
        kept = (archive.folder / IDENTITY_KEY).read_bytes()
        assert (await harness.get(f"/archive/{IDENTITY_KEY}")).body == kept
        assert len(asked) == 1
