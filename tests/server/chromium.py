"""A headless Chromium that is driven over its DevTools protocol; skips where there is none."""

import base64
import itertools
import json
import math
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Any, Final

import pytest
import trio
import trio_websocket

FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--hide-scrollbars", "--remote-debugging-port=0"),
)
_address = re.compile(rb"DevTools listening on (ws://\S+)").search


class Tab:
    """One page.

    Attributes:
        messages: what the page's scripts and the browser complained of: errors, refused loads.
        requests: every address that was asked for.
    """

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._answers: dict[int, trio.Event | dict[str, Any]] = {}
        self.messages: list[str] = []
        self.requests: list[str] = []

    async def receive(self) -> None:
        """Take what the browser sends, until cancelled."""
        while True:
            message = json.loads(await self._connection.get_message())
            waiting = self._answers.get(message.get("id", 0))
            if isinstance(waiting, trio.Event):
                self._answers[message["id"]] = message
                waiting.set()
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, method: str | None, told: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.messages.append(json.dumps(told["exceptionDetails"])[:1000])
            case "Log.entryAdded" if told["entry"]["level"] in {"error", "warning"}:
                self.messages.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(told["url"])

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol, and return its result."""
        number, done = next(self._numbers), trio.Event()
        self._answers[number] = done
        await self._connection.send_message(
            json.dumps({"id": number, "method": method, "params": parameters})
        )
        with trio.fail_after(20):
            await done.wait()
        answer = self._answers.pop(number)
        assert isinstance(answer, dict)
        assert "error" not in answer, answer
        return answer["result"]

    async def open(self, url: str) -> None:
        """Go there; what was noted of another page is forgotten."""
        self.messages.clear()
        self.requests.clear()
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def evaluate(self, script: str) -> Any:
        """Return what an expression of JavaScript becomes, a promise's result too."""
        result = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, script: str, *, seconds: float = 10) -> Any:
        """Wait until an expression is true, and return its value."""
        with trio.move_on_after(seconds):
            while True:
                found = await self.evaluate(script)
                if found:
                    return found
                await trio.sleep(0.05)
        body = await self.evaluate("document.body && document.body.innerText.slice(0, 1500)")
        raise AssertionError(f"never: {script}\n{self.messages}\n{body}")

    async def look(
        self, *, width: int = 1280, height: int = 900, scheme: str = "light", is_phone: bool = False
    ) -> None:
        """Give the page another size, and the reader another taste."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )

    async def photograph(self, file: Path) -> None:
        """Write a PNG of the whole page."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": math.ceil(size["height"])}
        clip["scale"] = 1
        picture = await self.call(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        await trio.Path(file).write_bytes(base64.b64decode(picture["data"]))


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Tab]:
    """Run a browser with a profile of its own, and yield its tab."""
    browser = which("chromium") or which("chromium-browser") or which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'browser'}", "about:blank"]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            address = await _devtools(process, nursery)
            page = await _first_page(address)
            async with trio_websocket.open_websocket_url(
                page, max_message_size=64 * 1024 * 1024
            ) as connection:
                tab = Tab(connection)
                nursery.start_soon(tab.receive)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                await tab.look()
                yield tab
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _devtools(process: trio.Process, nursery: trio.Nursery) -> str:
    """Return where the browser listens, which it says, and let it say more."""
    assert process.stderr is not None
    told = b""
    with trio.fail_after(30):
        while (match := _address(told)) is None:
            told += await process.stderr.receive_some()
    nursery.start_soon(_pass_over, process.stderr)
    return match[1].decode()


async def _pass_over(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


async def _first_page(address: str) -> str:
    host, port = address.removeprefix("ws://").partition("/")[0].split(":")
    request = f"GET /json/list HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    answer = b""
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(request.encode())
        with trio.fail_after(10):
            while not (
                match := re.search(rb'"webSocketDebuggerUrl":\s*"(ws://[^"]+/page/[^"]+)"', answer)
            ):
                answer += await stream.receive_some()
    return match[1].decode()
