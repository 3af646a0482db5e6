"""Scripts of which web pages may connect, told by raw sockets and by a real browser."""

import json
import subprocess
from functools import partial
from pathlib import Path
from shutil import which
from urllib.parse import unquote

import pytest
import trio

from tests.server.harness import Harness, serving
from tests.server.people import ALICE, STRANGER, tokens
from tests.server.served_archive import serving_archive
from turbod.config import ServerSettings
from turbod.server.request import HeadReader, answer

PAGES = ("https://app.example", "http://other.example:8080", "http://[2001:db8::1]")
NAMED = ServerSettings(allowed_origins=PAGES)
PATHS = ("/", "/healthz", "/records", "/status", "/nothing")


def origin(text: str) -> str:
    return f"Origin: {text}\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "https://app.example",
        "https://app.example:443",
        "HTTPS://App.Example",
        "http://other.example:8080",
        "http://[2001:DB8::1]:80",
        "http://localhost",  # which the harness says is our own name
        "https://localhost",  # behind a proxy that took off the TLS
        "http://localhost:80",
    ],
)
async def test_named_pages_and_our_own_may_connect(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path, settings=NAMED) as harness:
        for path in PATHS:
            got = await harness.get(path, more=origin(text))
            assert got.status == (404 if path == "/nothing" else 200)
            assert got.headers["access-control-allow-origin"] == text
            assert got.headers["vary"] == "Origin"
        got = await harness.upgrade("/turbostream?x", more=origin(text))
        assert got.error == (400, "InvalidRequest")  # it came as far as its parameters


@pytest.mark.parametrize(
    "text",
    [
        "http://app.example",
        "https://app.example:8443",
        "https://evil.example",
        "https://app.example.evil.example",
        "https://evil.example/https://app.example",
        "https://app.example@evil.example",
        "https://app.example/",
        "https://app.example, https://app.example",
        "http://localhost:1",
        "null",
        "",
        "file://",
        "chrome-extension://abcdefghijklmnop",
        "https://",
        "https://app.example:99999999",
        "x" * 60_000,
    ],
)
async def test_other_pages_may_not_and_no_page_at_all_may(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path, settings=NAMED) as harness:
        for method, path in (*(("GET", path) for path in PATHS), ("OPTIONS", "/records")):
            refused = await harness.get(path, method=method, more=origin(text))
            assert refused.error == (403, "OriginNotAllowed")
            assert "access-control-allow-origin" not in refused.headers
        assert (await harness.upgrade(more=origin(text))).error == (403, "OriginNotAllowed")
        for path in PATHS[:-1]:
            got = await harness.get(path)
            assert got.status == 200
            assert got.headers["vary"] == "Origin"
            assert "access-control-allow-origin" not in got.headers


async def test_two_origins_are_none(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=NAMED) as harness:
        refused = await harness.get("/records", more=origin(PAGES[0]) * 2)
        assert refused.error == (403, "OriginNotAllowed")


async def test_where_no_page_is_named_all_may_read_the_data_and_none_the_operators_figures(
    tmp_path: Path,
) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        data = ("/records", "/archive", f"/archive/{archive.names[0].key}", "/readyz", "/nothing")
        for path in data:
            for more in ("", origin("https://any.example"), origin("null")):
                got = await harness.get(path, more=more)
                assert got.headers["access-control-allow-origin"] == "*"
                assert got.headers["access-control-expose-headers"] == "*"
        for path in ("/status", "/metrics", "/status/samples", "/status/hours"):
            got = await harness.get(path, more=origin("https://any.example"))
            assert got.status == 200
            assert "access-control-allow-origin" not in got.headers
        refused = await harness.get("/records?x=1", more=origin("https://any.example"))
        assert refused.headers["access-control-allow-origin"] == "*"  # its script can read why
        await harness.upgrade("/turbostream?x", more=origin("https://any.example"))


async def test_a_download_has_one_head_with_what_browsers_are_told(tmp_path: Path) -> None:
    async with serving_archive(tmp_path) as (harness, archive):
        got = await harness.get(f"/archive/{archive.names[0].key}", more="Range: bytes=0-9\r\n")
        assert got.status == 206
        assert got.headers["access-control-allow-origin"] == "*"
        assert got.body == archive.bytes_of(archive.names[0])[:10]


async def test_a_browser_that_asks_first_is_told_what_it_may_send(tmp_path: Path) -> None:
    asks = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization\r\n"
    for settings in (ServerSettings(), NAMED):
        async with serving(tmp_path, settings=settings, tokens=tokens()) as harness:
            got = await harness.get("/records", method="OPTIONS", more=origin(PAGES[0]) + asks)
            assert (got.status, got.body) == (204, b"")
            assert got.headers["access-control-allow-origin"] in {"*", PAGES[0]}
            assert "Authorization" in got.headers["access-control-allow-headers"]
            assert got.headers["access-control-allow-methods"] == "GET, HEAD"
            got = await harness.get("/status", method="OPTIONS", more=origin("http://x") + asks)
            assert "access-control-allow-origin" not in got.headers
            got = await harness.get("/records", method="DELETE")
            assert got.error == (405, "MethodNotAllowed")
            assert got.headers["allow"] == "GET, HEAD, OPTIONS"


# A real browser -----------------------------------------------------------------------------------

TRY = """<!doctype html><script>
const base = %s, token = %s, wrong = %s, found = {};
const by = token => ({ headers: { Authorization: "Bearer " + token } });
const get = (path, more) => fetch("http://" + base + path, more)
  .then(a => a.status + " " + a.headers.get("turbod-cursor"), () => "blocked");
const open = list => new Promise(done => {
  const socket = new WebSocket("ws://" + base + "/turbostream", list);
  socket.onerror = () => done("failed");
  socket.onmessage = m => {
    done(JSON.parse(m.data).reason + " " + socket.protocol);
    socket.close();
  };
});
(async () => {
  found.none = await open([]);
  found.both = await open(["turbostream.v1.json", "bearer." + token]);
  found.alone = await open(["bearer." + token]);
  found.wrong = await open(["turbostream.v1.json", "bearer." + wrong]);
  found.records = await get("/records", by(token));
  found.wrongRecords = await get("/records", by(wrong));
  found.status = await get("/status", by(token));
  fetch("/said?" + encodeURIComponent(JSON.stringify(found)));
})();
</script>"""


async def tried(browser: str, folder: Path, harness: Harness) -> dict[str, str]:
    """Return what a script of another page achieved."""
    script = TRY % tuple(map(json.dumps, (f"127.0.0.1:{harness.port}", ALICE, STRANGER)))
    send, said = trio.open_memory_channel[str](1)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            reader = HeadReader()
            while (request := reader.feed(bytes(await stream.receive_some()))) is None:
                pass
            await stream.send_all(answer(200, script.encode(), content_type="text/html"))
            if request.path == "/said":
                await send.send(unquote(request.query))

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.start_soon(browse, browser, folder, url)
        with trio.fail_after(50):
            found: dict[str, str] = json.loads(await said.receive())
        nursery.cancel_scope.cancel()
    return found


@pytest.fixture
def browser() -> str:
    """Chromium, by whatever name."""
    found = which("chromium") or which("chromium-browser") or which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here")
    return found


async def browse(browser: str, folder: Path, url: str, *flags: str) -> str:
    """Return what a browser has made of a page."""
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    always += ["--disable-background-networking", f"--user-data-dir={folder / 'browser'}"]
    result = await trio.run_process(
        [browser, *always, *flags, url], capture_stdout=True, stderr=subprocess.DEVNULL
    )
    return result.stdout.decode()


@pytest.mark.slow
async def test_a_browsers_script_connects_by_a_subprotocol_and_fetches_by_a_header(
    tmp_path: Path, browser: str
) -> None:
    async with serving(tmp_path, tokens=tokens()) as harness:
        head = await harness.fill(3)
        assert await tried(browser, tmp_path, harness) == {
            "none": "failed",
            "both": "connect turbostream.v1.json",
            "alone": f"connect bearer.{ALICE}",
            "wrong": "failed",
            "records": f"200 {head}",
            "wrongRecords": "401 null",
            "status": "blocked",
        }


@pytest.mark.slow
async def test_a_script_of_a_page_that_is_not_named_is_kept_out_by_server_and_browser(
    tmp_path: Path, browser: str
) -> None:
    async with serving(tmp_path, settings=NAMED, tokens=tokens()) as harness:
        found = await tried(browser, tmp_path, harness)
        assert set(found.values()) == {"failed", "blocked"}


@pytest.mark.slow
async def test_our_own_page_asks_for_a_token(tmp_path: Path, browser: str) -> None:
    async with serving(tmp_path, tokens=tokens()) as harness:
        url = f"http://127.0.0.1:{harness.port}/"
        with trio.fail_after(50):
            shown = await browse(browser, tmp_path, url, "--virtual-time-budget=4000", "--dump-dom")
        assert ">a token is needed</span>" in shown
        assert 'id="ask" hidden' not in shown
        assert harness.server.statistics().wrong_tokens == 0
