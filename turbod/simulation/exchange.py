"""One HTTP connection of the simulated AppView."""

from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import msgspec
import trio

from turbod.simulation.appview import AppView
from turbod.simulation.questions import PARAMETER, complaint

_RECEIVE_BYTES = 65536
_OK = 200
_JSON = "application/json; charset=utf-8"
_HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n</body>\r\n</html>\r\n"
_NAMES: Mapping[str, tuple[str, str]] = {
    "400": ("InvalidRequest", "Error: uris/0 must be a valid at-uri"),
    "401": ("AuthenticationRequired", "Authentication Required"),
    "403": ("Forbidden", "Forbidden"),
    "429": ("RateLimitExceeded", "Rate Limit Exceeded"),
    "500": ("InternalServerError", "Internal Server Error"),
    "503": ("NotEnoughResources", "Not Enough Resources"),
    "504": ("UpstreamTimeout", "Upstream Timeout"),
}


class Exchange:
    """One connection: requests and answers in turn, as long as both sides keep it alive."""

    def __init__(self, appview: AppView, stream: trio.SocketStream) -> None:
        self._appview = appview
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        """Serve until the connection ends."""
        while (request := await self._request()) is not None:
            if not await self._answer(request):
                return
            if self._http.our_state is h11.MUST_CLOSE:
                return
            self._http.start_next_cycle()

    async def _request(self) -> h11.Request | None:
        request: h11.Request | None = None
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(bytes(await self._stream.receive_some(_RECEIVE_BYTES)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif isinstance(event, h11.ConnectionClosed):
                return None

    async def _answer(self, request: h11.Request) -> bool:
        """Answer; tell whether the connection may go on."""
        parts = urlsplit(request.target.decode())
        if parts.path == "/control" and self._appview.control is not None:
            await self._control(self._appview.control, unquote(parts.query))
            return True
        if request.method != b"GET" or parts.path not in PARAMETER:
            await self._send(404, _error("XRPCNotSupported", "XRPCNotSupported"))
            return True
        items = parse_qs(parts.query).get(PARAMETER[parts.path], [])
        appview = self._appview
        if (wrong := complaint(parts.path, items)) is not None:
            appview.note(parts.path, items, "400")
            await self._send(400, _error("InvalidRequest", wrong))
            return True
        outcome = appview.outcome()
        appview.note(parts.path, items, outcome)
        body = appview.body(parts.path, items)
        if appview.latency_seconds:
            await trio.sleep(appview.latency())
        if outcome == str(_OK):
            await self._send(_OK, body)
            return True
        return await self._fail(outcome, body)

    async def _control(self, control: Callable[[str], None], text: str) -> None:
        try:
            control(text)
        except ValueError as error:
            await self._send(400, f"{error}\n".encode(), kind="text/plain")
        else:
            await self._send(_OK, b"done\n", kind="text/plain")

    async def _fail(self, outcome: str, body: bytes) -> bool:
        match outcome:
            case "drop":
                return False
            case "silent":
                while await self._stream.receive_some(_RECEIVE_BYTES):
                    pass
                return False
            case "truncated":
                await self._send(_OK, body, cut=len(body) // 2)
                return False
            case "drip":
                await self._send(_OK, body, pause_seconds=0.2)
            case "empty":
                await self._send(_OK, b"")
            case "not_json":
                await self._send(_OK, body[:-2])
            case "wrong_shape":
                await self._send(_OK, b'{"profiles":null,"posts":{"uri":1}}')
            case "502":
                await self._send(502, _HTML, kind="text/html")
            case status:
                await self._send(int(status), _error(*_NAMES.get(status, ("", ""))))
        return True

    async def _send(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = _JSON,
        cut: int | None = None,
        pause_seconds: float = 0.0,
    ) -> None:
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            *self._appview.budget_fields(status),
        ]
        head = self._http.send(h11.Response(status_code=status, headers=headers))
        data = self._http.send(h11.Data(data=body))
        end = self._http.send(h11.EndOfMessage())
        whole = (head or b"") + (data or b"") + (end or b"")
        if cut is not None:
            whole = whole[: len(head or b"") + cut]
        if not pause_seconds:
            await self._stream.send_all(whole)
            return
        for place in range(len(whole)):
            await self._stream.send_all(whole[place : place + 1])
            await trio.sleep(pause_seconds)


def _error(name: str, message: str) -> bytes:
    return msgspec.json.encode({"error": name, "message": message})
