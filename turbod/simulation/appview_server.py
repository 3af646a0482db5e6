"""A simulated AppView over HTTP: getProfiles and getPosts, as slow and as faulty as wanted."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import msgspec
import structlog
import trio

from turbod.simulation.index import Index
from turbod.simulation.jetstream_host import clock_us
from turbod.simulation.questions import PARAMETER, POSTS, PROFILES, complaint
from turbod.simulation.views import post_view, profile_view

log = structlog.get_logger()

_CALLS_KEPT = 100_000
_LATENCY_SPREAD = 0.3  # sigma of the logarithm
_RECEIVE_BYTES = 65536
_OK = 200
_JSON = "application/json; charset=utf-8"
_HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n</body>\r\n</html>\r\n"
_LIKE_THE_REAL_ONES: Mapping[str, float] = {
    "500": 1,
    "502": 1,
    "503": 0.5,
    "drop": 1,
    "truncated": 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that arrived."""

    path: str
    items: tuple[str, ...]
    time_us: int
    outcome: str  # "200", another status, or the name of the failure


@dataclass(slots=True, kw_only=True)
class AppViewStatistics:
    """What was asked, in all; `calls` has the newest hundred thousand."""

    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=_CALLS_KEPT))
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (path, outcome)
    items: Counter[str] = field(default_factory=Counter)  # by path
    distinct: dict[str, set[str]] = field(default_factory=lambda: {PROFILES: set(), POSTS: set()})
    open_connections: int = 0


class AppViewServer:
    """Answers from an index, or from given bytes.

    Attributes:
        answers: DID or URI to the view's bytes, or to None for absent; goes before the index.
        only_answers: what is not in `answers` is absent, whatever the index says.
        latency_seconds: median of the wait before each answer; the answer is made before it.
        failures: name of a failure to its share of all calls. Names: an HTTP status (`500`, `503`,
            `429`, ...), `502` (an HTML body), `drop`, `truncated`, `silent`, `drip`, `empty`,
            `not_json`, `wrong_shape`.
        fail_next: failures of the very next calls, before any other; "" lets one pass.
        budget: (calls, window in seconds), as a fixed window, or None.
        budget_headers: whether RateLimit-* (and Retry-After with a 429) are sent with a budget.
        control: takes the query of `/control`, to switch faults; a ValueError is a 400.
        deduplicate_posts: answer a URI that was asked twice only once.
    """

    def __init__(
        self,
        index: Index,
        *,
        seed: int = 1,
        port: int = 0,
        now_us: Callable[[], int] = clock_us,
    ) -> None:
        self.answers: dict[str, bytes | None] = {}
        self.only_answers = False
        self.latency_seconds = 0.0
        self.failures: dict[str, float] = {}
        self.fail_next: deque[str] = deque()
        self.budget: tuple[int, float] | None = None
        self.budget_headers = True
        self.deduplicate_posts = False
        self.control: Callable[[str], None] | None = None
        self.port = port
        self.statistics = AppViewStatistics()
        self._index = index
        self._now_us = now_us
        self._random = Random(seed)  # noqa: S311 - the same seed gives the same failures
        self._window = 0.0
        self._used = 0
        self._up = trio.Event()
        self._up.set()
        self._scope = trio.CancelScope()

    @property
    def url(self) -> str:
        """What to give to `--appview`."""
        return f"http://127.0.0.1:{self.port}"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, and listen again after `go_down` and `come_up`, until cancelled."""
        while True:
            await self._up.wait()
            with trio.CancelScope() as self._scope:
                listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
                self.port = listeners[0].socket.getsockname()[1]
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await trio.serve_listeners(self._serve, listeners)

    def go_down(self) -> None:
        """Refuse connections and drop those that are there."""
        self._up = trio.Event()
        self._scope.cancel()

    def come_up(self) -> None:
        """Listen again, on the same port."""
        self._up.set()

    def fail(self, share: float) -> None:
        """Let this share of the calls fail, in the ways that are usual."""
        whole = sum(_LIKE_THE_REAL_ONES.values())
        self.failures = {name: share * part / whole for name, part in _LIKE_THE_REAL_ONES.items()}

    def view(self, path: str, item: str) -> bytes | None:
        """Return what is answered for one item now, None for nothing."""
        if item in self.answers or self.only_answers:
            return self.answers.get(item)
        self._index.catch_up(self._now_us())
        if path == POSTS:
            return post_view(self._index, item)
        did = item if item.startswith("did:") else self._index.did_of(item)
        return None if did is None else profile_view(self._index, did)

    # One connection.

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.statistics.open_connections += 1
        try:
            await _Exchange(self, stream).run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        except* Exception as errors:  # noqa: BLE001 - one client's sin must not end the others
            log.debug("simulated_appview_connection_failed", errors=repr(errors))
        finally:
            self.statistics.open_connections -= 1
            await trio.aclose_forcefully(stream)

    def outcome(self) -> str:
        """Draw how the next call ends: "200", or the name of a failure."""
        if self.fail_next:
            return self.fail_next.popleft() or str(_OK)
        if not self._within_budget():
            return "429"
        draw = self._random.random()
        for name, share in self.failures.items():
            if draw < share:
                return name
            draw -= share
        return str(_OK)

    def latency(self) -> float:
        """Draw how long the next call takes."""
        return self.latency_seconds * self._random.lognormvariate(0, _LATENCY_SPREAD)

    def note(self, path: str, items: list[str], outcome: str) -> None:
        """Count a call."""
        statistics = self.statistics
        call = Call(path=path, items=tuple(items), time_us=self._now_us(), outcome=outcome)
        statistics.calls.append(call)
        statistics.outcomes[path, outcome] += 1
        statistics.items[path] += len(items)
        statistics.distinct.setdefault(path, set()).update(items)

    def budget_fields(self, status: int) -> list[tuple[str, str]]:
        """Return the RateLimit headers of the official servers, or none."""
        if self.budget is None or not self.budget_headers:
            return []
        calls, seconds = self.budget
        reset = self._window + seconds
        fields = [
            ("RateLimit-Limit", str(calls)),
            ("RateLimit-Remaining", str(max(calls - self._used, 0))),
            ("RateLimit-Reset", str(math.ceil(reset))),
            ("RateLimit-Policy", f"{calls};w={math.ceil(seconds)}"),
        ]
        if status == 429:  # noqa: PLR2004 - Too Many Requests
            wait = max(reset - self._now_us() / 1_000_000, 0)
            fields.append(("Retry-After", str(math.ceil(wait))))
        return fields

    def _within_budget(self) -> bool:
        if self.budget is None:
            return True
        calls, seconds = self.budget
        now = self._now_us() / 1_000_000
        if now >= self._window + seconds:
            self._window, self._used = now - now % seconds, 0
        self._used += 1
        return self._used <= calls


class _Exchange:
    """One connection: requests and answers in turn, as long as both sides keep it alive."""

    def __init__(self, server: AppViewServer, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
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
        if parts.path == "/control" and self._server.control is not None:
            await self._control(self._server.control, unquote(parts.query))
            return True
        if request.method != b"GET" or parts.path not in PARAMETER:
            await self._send(404, _error("XRPCNotSupported", "XRPCNotSupported"))
            return True
        items = parse_qs(parts.query).get(PARAMETER[parts.path], [])
        server = self._server
        if (wrong := complaint(parts.path, items)) is not None:
            server.note(parts.path, items, "400")
            await self._send(400, _error("InvalidRequest", wrong))
            return True
        outcome = server.outcome()
        server.note(parts.path, items, outcome)
        body = self._body(parts.path, items)
        if server.latency_seconds:
            await trio.sleep(server.latency())
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

    def _body(self, path: str, items: list[str]) -> bytes:
        server = self._server
        if path == POSTS and server.deduplicate_posts:
            items = list(dict.fromkeys(items))
        views = [view for item in items if (view := server.view(path, item)) is not None]
        name = b"posts" if path == POSTS else b"profiles"
        return b'{"%b":[%b]}' % (name, b",".join(views))

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
            *self._server.budget_fields(status),
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


_NAMES: Mapping[str, tuple[str, str]] = {
    "400": ("InvalidRequest", "Error: uris/0 must be a valid at-uri"),
    "401": ("AuthenticationRequired", "Authentication Required"),
    "403": ("Forbidden", "Forbidden"),
    "429": ("RateLimitExceeded", "Rate Limit Exceeded"),
    "500": ("InternalServerError", "Internal Server Error"),
    "503": ("NotEnoughResources", "Not Enough Resources"),
    "504": ("UpstreamTimeout", "Upstream Timeout"),
}


def _error(name: str, message: str) -> bytes:
    return msgspec.json.encode({"error": name, "message": message})
