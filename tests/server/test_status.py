import socket
from pathlib import Path

import pytest

from tests.server.harness import Answer, Harness, did, post, serving
from turbod.config import LogSettings
from turbod.server import records, status


async def test_plain_gets_answer_and_close(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        for path in ("/", "/healthz", "/readyz", "/metrics", "/status", "/records"):
            answer = await harness.get(path)
            assert answer.status == 200, path
            assert answer.headers["connection"] == "close"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert len(answer.body) == int(answer.headers["content-length"])


async def test_head_answers_like_get_without_the_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(post(1))
        for path in ("/", "/healthz", "/readyz", "/metrics", "/status", "/records?cursor=0"):
            got, head = await harness.get(path), await harness.get(path, method="HEAD")
            assert head.body == b""
            assert head.status == got.status
            assert head.headers["content-length"] == got.headers["content-length"], path


async def test_not_ready_is_503_on_readyz_and_for_who_wants_the_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        harness.is_ready = False
        answer = await harness.get("/readyz")
        assert (answer.status, answer.json) == (503, {"ready": False, "disk": "ok"})
        assert (await harness.get("/healthz")).status == 200
        assert (await harness.get("/records")).error == (503, "NotReady")
        refused = await harness.upgrade()
        assert refused.error == (503, "NotReady")
        assert int(refused.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["/nothing", "/turbostream/", "/%2e%2e/status", "/app"])
async def test_an_unknown_path_is_404(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as harness:
        assert (await harness.get(path)).error == (404, "NotFound")


async def test_records_are_paged_by_the_last_line_to_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        head = await harness.fill(250)
        cursor, keys = 0, []
        for _ in range(4):
            answer = await harness.get(f"/records?cursor={cursor}")
            lines = answer.json_lines()
            assert len(lines) <= 100
            keys += [line["message"]["commit"]["rkey"] for line in lines]
            cursor = lines[-1]["cursor"] if lines else cursor
            assert int(answer.headers["turbod-cursor"]) == cursor
        assert keys == [f"k{n}" for n in range(250)]
        assert cursor == head


async def test_pages_take_filters_cursors_and_limits(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        await harness.publish(*(post(n, author=did(n % 3)) for n in range(30)))
        answer = await harness.get(f"/records?cursor=-1h&limit=7&wantedDids={did(1)}")
        found = [one["message"]["commit"]["rkey"] for one in answer.json_lines()]
        assert found == [f"k{n}" for n in range(1, 20, 3)]
        assert answer.headers["content-type"] == "application/jsonl"
        for query in ("limit=0", "limit=1001", "batch=5", "cursor=x", "wantedDids=bob"):
            assert (await harness.get(f"/records?{query}")).error == (400, "InvalidRequest")


async def test_where_nothing_matches_the_header_tells_where_to_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        head = await harness.fill(20)
        answer = await harness.get(f"/records?cursor=0&wantedDids={did(500)}")
        assert (answer.body, answer.headers["turbod-cursor"]) == (b"", str(head))
        answer = await harness.get("/records")  # from the head
        assert (answer.body, answer.headers["turbod-cursor"]) == (b"", str(head))


async def pages(harness: Harness, query: str) -> list[tuple[int, int, int]]:
    """Go from page to page; return each page's records, bytes and cursor."""
    cursor = 0
    found: list[tuple[int, int, int]] = []
    while not found or found[-1][2] < harness.log.head:
        answer = await harness.get(f"/records?cursor={cursor}&limit=1000{query}")
        cursor = int(answer.headers["turbod-cursor"])
        found.append((len(answer.json_lines()), len(answer.body), cursor))
    return found


async def test_a_page_is_bounded_in_bytes_and_in_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_SCANNED_BYTES", 2_000_000)
    small = LogSettings(memory_bytes=1024 * 1024)
    async with serving(tmp_path, log_settings=small) as harness:
        await harness.fill(200, padding=30_000)
        await harness.publish(post(500, author=did(500)), padding=900_000)
        everything = await pages(harness, "")
        assert sum(count for count, _, _ in everything) == 201
        assert all(size <= 1024 * 1024 for _, size, _ in everything)
        rare = await pages(harness, f"&wantedDids={did(500)}")
        assert [count for count, _, _ in rare][-1] == sum(count for count, _, _ in rare) == 1
        assert len(rare) >= 3


@pytest.mark.parametrize("path", ["/records?cursor=0", "/status/samples", "/status/hours"])
async def test_long_answers_on_their_way_are_bounded(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that thousands of clients that read nothing cannot make us keep as many."""
    monkeypatch.setattr(status, "CONCURRENT_PAGES", 2)
    monkeypatch.setattr(status, "CONCURRENT_LOOKS", 2)
    long = b"0" * 5_000_000
    lookback = {"/status/samples": lambda _: long, "/status/hours": lambda _: long}
    async with serving(tmp_path, lookback=lookback) as harness:
        await harness.fill(40, padding=25_000)
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        async with await harness.connect() as one, await harness.connect() as two:
            for stream in (one, two):  # that do not read
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await stream.send_all(request)
            await harness.settled(
                lambda: (
                    harness.server.statistics().handshakes == 0
                    and harness.server.statistics().connections == 2
                )
            )
            assert (await harness.get(path)).error == (429, "TooManyConnections")
            assert (await harness.get("/healthz")).status == 200


async def test_a_plain_get_may_be_of_http_1_0_as_proxies_and_health_checks_send_it(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as harness:
        for head in (b"GET /healthz HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"):
            assert Answer(await harness.exchange(head)).status == 200
