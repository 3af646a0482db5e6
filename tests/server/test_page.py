import base64
import hashlib
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import trio

from tests.server.harness import serving
from turbod.server.page import Page

STATUS: dict[str, Any] = {
    "turbod": "9.9.9",
    "now": 1_795_171_620_770_754,
    "uptime_seconds": 18,
    "upstream": "catching_up",
    "events_per_minute": 1030.0,
    "lag_seconds": 0.252,
    "hosts": [
        {
            "url": "ws://jetstream.example/subscribe",
            "state": "<b>live</b>",
            "lag_seconds": None,
            "received": 319,
            "accepted": 177,
            "duplicate": 140,
            "malformed": {"json": 2},
            "connects": 1,
            "last_error": "what was once",
        },
        {
            "url": "ws://jetstream2.example/subscribe",
            "state": "waiting",
            "lag_seconds": None,
            "received": 0,
            "accepted": 0,
            "duplicate": 0,
            "malformed": {},
            "connects": 0,
            "last_error": "cannot connect: <i>refused</i>",
        },
    ],
    "appview": {"down": True, "last_error": "HTTP 503", "calls": {"profiles 503": 3}},
    "log": {"fault": "disk full", "records": 12_345, "head": 1_795_171_620_770_754},
    "server": {"subscribers": 7, "refused": {"NotFound": 3}},
}


def test_the_host_cannot_bring_markup_in() -> None:
    page = Page(["app.bsky.feed.post", "<i>"]).render('"><script>alert(1)</script>').decode()
    assert "<script>alert" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;" in page
    assert "{{" not in page


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    page = Page(["app.bsky.feed.post"])
    text, policy = page.render("a.example").decode(), page.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (inline,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_page_asks_nothing_of_other_hosts() -> None:
    text = Page(["app.bsky.feed.post"]).render("a.example").decode()
    assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) - {
        "/status",
        "/metrics",
        "/readyz",
        "/records?cursor=-5m&amp;limit=3",
        "#connect",
    } == set(re.findall(r'href="(data:[^"]*)"', text))
    assert "@import" not in text
    assert "url(" not in text


async def test_the_page_tells_how_to_connect_to_the_host_it_was_asked_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        raw = await harness.exchange("GET / HTTP/1.1\r\nHost: turbod.example:81\r\n\r\n")
        assert b'ws://turbod.example:81</span>/turbostream"' in raw
        assert b"app.bsky.feed.like" in raw


@pytest.mark.slow
async def test_a_browser_shows_the_live_state(tmp_path: Path) -> None:
    browser = which("chromium") or which("chromium-browser") or which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    async with serving(tmp_path, status=lambda: STATUS) as harness:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += ["--disable-background-networking", f"--user-data-dir={tmp_path / 'browser'}"]
        with trio.fail_after(50):
            result = await trio.run_process(
                [
                    browser,
                    *flags,
                    "--virtual-time-budget=4000",
                    "--dump-dom",
                    f"http://127.0.0.1:{harness.port}/",
                ],
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
            )
    shown = result.stdout.decode()
    assert ">catching up</span>" in shown
    assert ">disk full; the AppView does not answer</span>" in shown
    assert "cannot connect: &lt;i&gt;refused&lt;/i&gt;" in shown
    assert "what was once" not in shown
    assert ">252 ms</b>" in shown
    assert "&lt;b&gt;live&lt;/b&gt;" in shown  # what a stranger wrote is text
    assert "12.3K events" in shown
    assert "turbod 9.9.9" in shown
