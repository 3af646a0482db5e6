"""The plain GETs: the page, health, readiness, metrics, status and records."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import msgspec
import trio

from turbod.cursor import BadCursor, FutureCursor
from turbod.cursor import parse as parse_cursor
from turbod.cursor import position as start_position
from turbod.eventlog.reader import HistoryUnavailable
from turbod.filter import RECORDS_PARAMETERS, InvalidRequest, read_query
from turbod.server.admission import RETRY_AFTER_SECONDS, too_many_connections
from turbod.server.archive_listing import ArchiveListing, is_archive
from turbod.server.file_answer import Outlet
from turbod.server.guard import Guest
from turbod.server.news import ARCHIVE_AWAY
from turbod.server.page import Page
from turbod.server.records import read_page
from turbod.server.request import Refusal, Request, answer
from turbod.server.services import Services

HTML_TYPE: Final = "text/html; charset=utf-8"
JSON_TYPE: Final = "application/json"
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LINES_TYPE: Final = "application/jsonl"
NO_SUCH_QUERY: Final = "/status/samples takes after=SECONDS, /status/hours takes nothing"
CONCURRENT_PAGES: Final = 32  # of /records, each about 1 MiB until it is sent
CONCURRENT_LOOKS: Final = 32  # at the last hours, each some 0.7 MB until it is sent

Lookback = Callable[[str], bytes | None]  # JSON for a query; None where it takes no such one


class Plain:
    """Answers requests that open no WebSocket."""

    def __init__(
        self,
        services: Services,
        *,
        status: Callable[[], Mapping[str, Any]],
        metrics: Callable[[], bytes],
        ready: Callable[[], tuple[bool, Mapping[str, Any]]],
        archive: ArchiveListing | None = None,
        lookback: Mapping[str, Lookback] | None = None,
    ) -> None:
        self._services = services
        self._status = status
        self._metrics = metrics
        self._ready = ready
        self._archive = archive
        self._lookback = lookback or {}
        self._pages = trio.CapacityLimiter(CONCURRENT_PAGES)
        self._looks = trio.CapacityLimiter(CONCURRENT_LOOKS)
        self._page = Page(services.served)

    def adapt(self) -> None:
        """Name what is served now on the page."""
        self._page = Page(self._services.served)

    def check_ready(self) -> None:
        """Pass where subscribers can be served.

        Raises:
            Refusal: NotReady.
        """
        if not self._ready()[0]:
            raise Refusal(
                503, "NotReady", "the log is being repaired", headers={"Retry-After": "5"}
            )

    async def answer(
        self,
        request: Request,
        send: Callable[[bytes], Awaitable[None]],
        outlet: Outlet,
        *,
        guest: Guest,
    ) -> None:
        """Send the whole HTTP answer, a long one through the outlet.

        Raises:
            Refusal: where there is nothing under this path, or not for this query.
            Gone: where a long answer ended before its end.
        """
        if self._archive is not None and is_archive(request.path):
            self._archive.check_public(guest)
            self.check_ready()
            await self._archive.answer(request, send, outlet, guest=guest, asked=self._asked)
            return
        if request.path in self._lookback:
            with _place(self._looks, "looks at the last hours"):
                await send(self._look_back(request))
        elif request.path == "/records":
            self.check_ready()
            with _place(self._pages, "pages"):
                await send(await outlet.while_there(partial(self._records, request)))
        else:
            await send(self._brief(request, guest))

    def _asked(self, text: str) -> int:
        _, asked = starting(text, self._services)
        assert asked is not None, "a text was given"
        return asked

    def _brief(self, request: Request, guest: Guest) -> bytes:
        match request.path:
            case "/":
                page = self._page.render(request.host)
                return _answer(request, page, HTML_TYPE, headers=self._page.headers)
            case "/healthz":
                return _answer(request, _json({"ok": True}))
            case "/readyz":
                is_ready, detail = self._ready()
                body = _json({"ready": is_ready, **(detail if guest.is_trusted else {})})
                return _answer(request, body, status=200 if is_ready else 503)
            case "/metrics":
                return _answer(request, self._metrics(), METRICS_TYPE)
            case "/status":
                return _answer(request, _json(self._status()))
        raise Refusal(404, "NotFound", "there is nothing here; / says what there is")

    def _look_back(self, request: Request) -> bytes:
        found = self._lookback[request.path](request.query)
        if found is None:
            raise Refusal(400, "InvalidRequest", NO_SUCH_QUERY)
        return _answer(request, found)

    async def _records(self, request: Request) -> bytes:
        services = self._services
        try:
            options = read_query(request.query, known=RECORDS_PARAMETERS, served=services.served)
        except InvalidRequest as error:
            raise Refusal(400, "InvalidRequest", str(error)) from None
        position, _ = starting(options.cursor, services)
        check_archive_room(position, services)
        try:
            page = await read_page(services, options, position)
        except HistoryUnavailable:
            raise Refusal(
                503,
                "HistoryUnavailable",
                ARCHIVE_AWAY,
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None
        return _answer(request, page.body, LINES_TYPE, headers=page.headers)


@contextmanager
def _place(limiter: trio.CapacityLimiter, what: str) -> Iterator[None]:
    """Take one of the places while an answer is made and sent, or refuse."""
    try:
        limiter.acquire_nowait()
    except trio.WouldBlock:
        raise too_many_connections(f"{limiter.total_tokens} {what} are on their way") from None
    try:
        yield
    finally:
        limiter.release()


def check_archive_room(position: int, services: Services) -> None:
    """Pass where who begins at a position needs no object, or may read them at once.

    Raises:
        Refusal: TooManyConnections.
    """
    begins = max(position, services.log.floor)
    if services.is_archived(begins) and not services.archive.has_room:
        services.archive.refuse()
        raise too_many_connections(f"{services.archive.count} clients are served from the archive")


def starting(text: str | None, services: Services) -> tuple[int, int | None]:
    """Return where a client begins and the cursor it asked for, by the text it gave.

    Raises:
        Refusal: InvalidRequest or FutureCursor.
    """
    head, now_us = services.log.head, services.now_us()
    try:
        asked = None if text is None else parse_cursor(text, now_us=now_us)
        return start_position(asked, head=head, now_us=now_us), asked
    except BadCursor as error:
        raise Refusal(400, "InvalidRequest", str(error)) from None
    except FutureCursor as error:
        raise Refusal(400, "FutureCursor", str(error)) from None


def _answer(
    request: Request,
    body: bytes,
    content_type: str = JSON_TYPE,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    return answer(
        status, body, content_type=content_type, headers=headers, head_only=request.is_head
    )


_json = msgspec.json.encode
