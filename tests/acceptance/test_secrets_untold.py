"""Whatever servers, clients and files bring, no secret is in the log, on a page or in an error."""

import base64
import hashlib
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.acceptance.plain_scan import logged
from tests.acceptance.process import Turbod
from tests.acceptance.settling import until
from tests.acceptance.untold import check_untold
from turbod.simulation.world import simulated

PASSWORD = "correct-horse-battery"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SESSION = "FwoGZXIvYXdzEXAMPLEsessiontoken0123456789"
TOKEN = "turbod_" + base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
WRONG_TOKEN = "turbod_" + base64.urlsafe_b64encode(bytes(range(32, 64))).decode().rstrip("=")
SECRETS = {PASSWORD, SECRET_KEY, KEY_ID, SESSION, TOKEN, WRONG_TOKEN}
LURE = f"https://me:{PASSWORD}@example.com/x?X-Amz-Signature={PASSWORD}&token={TOKEN}"

_signed = re.compile(r"Signature=([0-9a-f]{64})").findall


class Gossip:
    """A server of anything that repeats, in its refusals, all that it was sent, and more.

    Attributes:
        heard: the signatures that came.
        asked: the first words of each path.
    """

    def __init__(self) -> None:
        self.heard: set[str] = set()
        self.asked: set[str] = set()
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                if not (piece := await stream.receive_some(65536)):
                    return
                head += piece
            await stream.send_all(self._answer(head.decode("latin-1")))
        except trio.BrokenResourceError:
            return
        finally:
            await trio.aclose_forcefully(stream)

    def _answer(self, head: str) -> bytes:
        self.heard.update(_signed(head))
        path = head.split()[1]
        self.asked.add(path.split("/")[1].partition("?")[0])
        gossip = " ".join(f"{LURE} {head}".split())
        if path.startswith("/subscribe"):
            return _response("302 Found", gossip, location=LURE)
        if path.startswith("/xrpc/"):
            return _response("400 Bad Request", f'{{"error":"No","message":"{LURE}"}}')
        xml = f"<Error><Code>Odd</Code><Message>{gossip.replace('&', '&amp;')}</Message></Error>"
        return _response("400 Bad Request", xml)


def _response(status: str, body: str, *, location: str = "") -> bytes:
    more = f"Location: {location}\r\n" if location else ""
    size = len(body.encode("latin-1", "replace"))
    head = f"HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Length: {size}\r\n\r\n"
    return (head + body).encode("latin-1", "replace")


@asynccontextmanager
async def gossiping() -> AsyncIterator[Gossip]:
    async with trio.open_nursery() as nursery:
        gossip = Gossip()
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        gossip.url = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, gossip.serve, listeners)
        yield gossip
        nursery.cancel_scope.cancel()


async def exchange(port: int, target: str, *headers: str) -> bytes:
    """Return a whole answer, head included."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = "\r\n".join((f"GET {target} HTTP/1.1", "Host: a", "Connection: close", *headers))
        await stream.send_all(f"{head}\r\n\r\n".encode())
        return b"".join([bytes(piece) async for piece in stream])


def write_settings(file: Path, gossip: Gossip, *, appview: str = "") -> None:
    file.write_text(
        f'appview = "{appview or f"http://{gossip.url}"}"\n'
        f'[s3]\nendpoint = "http://{gossip.url}"\n'
        f'[server]\ntokens = "{file.with_name("tokens.toml")}"\n'
    )


@pytest.mark.parametrize(
    "form",
    [
        "journal",
        *(pytest.param(form, marks=pytest.mark.slow) for form in ("logfmt", "json", "text")),
    ],
)
async def test_no_secret_is_in_the_log_on_a_page_or_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    (tmp_path / "tokens.toml").write_text(f'[alice]\nsha256 = "{digest}"\n')
    settings = tmp_path / "turbod.toml"
    async with gossiping() as gossip, simulated(hosts=1, rate=30) as simulation:
        write_settings(settings, gossip)
        turbod = Turbod(
            tmp_path / "data",
            upstreams=[simulation.jetstreams[0].url, f"ws://{gossip.url}/subscribe"],
            appview="",
            options=["--log-format", form, "--config", str(settings)],
        )
        turbod.command = [  # the file's
            word for word in turbod.command if word not in {"--appview", ""}
        ]
        try:
            await turbod.start()  # for there to be a log: an empty one waits for the archive
            await until(lambda: bool(logged(turbod.data)), seconds=30, what="something logged")
            await turbod.stop()
            turbod.command += ["--archive", "s3://bucket/x"]
            await turbod.start(wait=False)
            bearer = f"Authorization: Bearer {TOKEN}"
            parts = {"subscribe", "xrpc", "bucket"}
            await until(lambda: gossip.asked >= parts, seconds=30, what="all parts asked it")
            settings_were = settings.read_text()
            write_settings(settings, gossip, appview=LURE)
            turbod.process.send_signal(signal.SIGHUP)
            answers = [
                await exchange(turbod.port, target, *headers)
                for target in ("/", "/status", "/metrics", "/readyz", "/healthz", "/archive", "/no")
                for headers in ([bearer], [], [f"Authorization: Bearer {WRONG_TOKEN}"])
            ]
            answers += [
                await exchange(turbod.port, f"/turbostream?token={WRONG_TOKEN}"),
                await exchange(turbod.port, f"/records?cursor={TOKEN}", bearer),
                await exchange(turbod.port, f"/{TOKEN}", bearer),
                await exchange(
                    turbod.port,
                    "/turbostream",
                    "Upgrade: websocket",
                    "Connection: Upgrade",
                    "Sec-WebSocket-Version: 13",
                    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                    f"Sec-WebSocket-Protocol: bearer.{WRONG_TOKEN}",
                ),
            ]
            await trio.sleep(0.5)  # for a second attempt of each
            settings.write_text(settings_were)
            await turbod.stop()
        finally:
            await turbod.clean_up()
        said = turbod.output
        for event in ("upstream disconnected", "appview bad request", "archive failing"):
            assert event in said.replace("_", " "), said
        assert "reload refused" in said.replace("_", " ")
        for answer in answers:
            assert answer.startswith(b"HTTP/1.1 ")
            check_untold("an answer", answer, SECRETS | gossip.heard)
        check_untold("the log", said, SECRETS | gossip.heard)
