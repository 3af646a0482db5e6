from pathlib import Path

import pytest

from tests.server.harness import post, serving


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
