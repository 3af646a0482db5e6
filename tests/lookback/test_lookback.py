"""The page's figures of a real daemon, as a browser gets them."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.archive.samples_archive import plain_lines
from tests.one_daemon import running
from turbod.daemon import Daemon
from turbod.lookback import lookback


async def test_samples_and_incidents_come_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookback, "SAMPLE_SECONDS", 0.05)
    async with running(tmp_path) as daemon:
        told = await _until(daemon, lambda told: len(told["seconds"]) > 3 and told["incidents"])
        assert told["figures"]["subscribers"] == [0] * len(told["seconds"])
        (url,) = told["hosts"]
        assert any(each["what"] == f"host {url}" for each in told["incidents"])
        newer = json.loads(daemon.lookback.samples(f"after={told['seconds'][-1] + 5}") or "")
        assert newer["seconds"] == []
        assert newer["incidents"]


async def _until(daemon: Daemon, condition: Any) -> Any:
    with trio.fail_after(10):
        while True:
            told = json.loads(daemon.lookback.samples("") or "")
            if condition(told):
                return told
            await trio.sleep(0.02)


async def test_no_other_query_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        for query in ("after=", "after=-1", "after=1&after=2", "after=1" * 20, "x"):
            assert daemon.lookback.samples(query) is None
        assert daemon.lookback.hours("after=1") is None


async def test_what_lies_in_an_hour_is_known_soon_after_somebody_asked(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    lines = plain_lines(0, 30), plain_lines(1, 20)
    for name, some in zip(("2026-11-20T10", "2026-11-20T11"), lines, strict=True):
        (tmp_path / "live" / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in some))
    async with running(tmp_path) as daemon:
        by_hour: dict[str, Any] = {}
        with trio.fail_after(10):
            while by_hour.get("2026-11-20T10", {}).get("records") is None:
                told = json.loads(daemon.lookback.hours("") or "")
                by_hour = {hour["hour"]: hour for hour in told["hours"]}
                await trio.sleep(0.02)
        assert by_hour["2026-11-20T10"]["state"] in {"waiting", "verified"}
        assert by_hour["2026-11-20T10"]["records"] == 30
        assert by_hour["2026-11-20T10"]["is_here"]


async def test_both_paths_are_answered_and_only_our_own_page_may_read_them(tmp_path: Path) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with running(tmp_path, listeners=listeners):
        for path in ("/status/samples", "/status/hours"):
            head, _, body = (await _get(port, path)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"Access-Control-Allow-Origin" not in head
            assert json.loads(body)
            assert b" 400 " in (await _get(port, f"{path}?x=1"))[:20]


async def _get(port: int, target: str) -> bytes:
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async for data in stream:
            received += data
    return received
