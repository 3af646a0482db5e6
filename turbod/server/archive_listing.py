"""GET /archive: which hours the store has, what is in each, and the way to its bytes."""

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final
from urllib.parse import parse_qsl, unquote

import msgspec
import trio

from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.index import FORMAT
from turbod.archive.format.names import IDENTITY_KEY, parse_key
from turbod.archive.stores.hours_page import MAX_HOURS, HoursPage
from turbod.archive.stores.store import NotThere, Store, StoreFault
from turbod.cursor import LIMIT
from turbod.server.admission import RETRY_AFTER_SECONDS, too_many_connections
from turbod.server.archive_entries import ARCHIVE, Entries, Summary
from turbod.server.file_answer import Downloads, File, Outlet, Part, choose_part
from turbod.server.guard import Guest
from turbod.server.news import ARCHIVE_AWAY
from turbod.server.request import Refusal, Request, answer

PARAMETERS: Final = frozenset({"cursor", "limit", "until"})
OBJECT_TYPE: Final = "application/zstd"
DEFAULT_HOURS: Final = 168  # a week
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024  # one hour alone may bring it above
PAGE_SECONDS: Final = 20.0  # after which a page ends with what it has
CONCURRENT_PAGES: Final = 4
CONCURRENT_INDEXES: Final = 8
MAX_IDENTITY_BYTES: Final = 64 * 1024
IDENTITY_SECONDS: Final = 60.0  # for which `turbod.json` is kept
URL_SECONDS: Final = 3600

_is_number = re.compile(r"[1-9][0-9]{0,3}", re.ASCII).fullmatch

Send = Callable[[bytes], Awaitable[None]]
Asked = Callable[[str], int]  # the cursor that a client wrote


class Query(msgspec.Struct, frozen=True):
    """Which hours a client asked for: those with records above `after`, up to `until`."""

    after: int
    until: int
    limit: int


class ArchiveListing:
    """Answers /archive and what is below it.

    What lies in the store is looked up in the catalogue: no path or key of a client's reaches it.

    Args:
        catalogue: which hours there are; only those that the store has are spoken of.
        store: where they are.
        instance: who writes them.
        summary: what is in an object; raises Damaged or StoreFault. Asked once for each object
            while KEPT_BYTES of what it says are kept.
        is_public: whether everybody may ask who is let in at all.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        *,
        instance: Callable[[], str],
        summary: Summary,
        is_public: bool,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._instance = instance
        self._is_public = is_public
        self._entries = Entries(summary)
        self._pages = 0
        self._downloads = Downloads()
        self._asking = trio.Lock()
        self._identity_bytes = b""
        self._identity_until = float("-inf")

    def check_public(self, guest: Guest) -> None:
        """Pass where a guest may ask.

        Raises:
            Refusal: NotPublic.
        """
        if not self._is_allowed(guest):
            raise Refusal(
                403,
                "NotPublic",
                "whole hours are not served here: the operator would set archive.public = true; "
                "history comes over /turbostream and /records",
            )

    def publish(self, *, is_public: bool) -> None:
        """Let everybody ask from now on, or only who has a token for it."""
        self._is_public = is_public
        self.check_downloads()

    def check_downloads(self) -> None:
        """Cut short the downloads of those who may ask no longer."""
        self._downloads.check()

    def _is_allowed(self, guest: Guest) -> bool:
        return self._is_public or guest.has_archive

    def stop(self) -> None:
        """Cut short the downloads under way."""
        self._downloads.stop()

    async def answer(
        self, request: Request, send: Send, outlet: Outlet, *, guest: Guest, asked: Asked
    ) -> None:
        """Send the whole HTTP answer.

        Raises:
            Refusal: where there is nothing under this path, not for this query, or not now.
        """
        if not self._catalogue.is_listed:
            raise _unavailable("NotReady", "it is not known yet what is in the archive")
        try:
            if request.path == ARCHIVE:
                await self._answer_page(request, send, asked)
            else:
                await self._answer_object(request, send, outlet, guest)
        except NotThere:
            raise _not_found() from None
        except StoreFault:
            raise _unavailable("HistoryUnavailable", ARCHIVE_AWAY) from None

    async def _answer_page(self, request: Request, send: Send, asked: Asked) -> None:
        query = read_query(request.query, asked)
        if self._pages >= CONCURRENT_PAGES:
            raise too_many_connections(f"{CONCURRENT_PAGES} pages of /archive are on their way")
        self._pages += 1
        try:
            body = msgspec.json.encode(await self._page(query))
            await send(answer(200, body, head_only=request.is_head))
        finally:
            self._pages -= 1

    async def _page(self, query: Query) -> HoursPage:
        hours, position = await self._hours(query)
        more = next(self._stored(position, query.until), None)
        return HoursPage(
            instance=self._instance(),
            format=FORMAT,
            floor=self._catalogue.floor,
            archived_until=self._archived_until(),
            hours=hours,
            cursor=None if more is None else position,
        )

    async def _hours(self, query: Query) -> tuple[list[msgspec.Raw], int]:
        """Return a page's entries and the position behind them, bounded in bytes and time."""
        ends_at = trio.current_time() + PAGE_SECONDS
        hours: list[msgspec.Raw] = []
        some: list[Held] = []
        position, size = query.after, 0
        while len(hours) < query.limit and size < MAX_PAGE_BYTES and trio.current_time() < ends_at:
            count = min(CONCURRENT_INDEXES, query.limit - len(hours))
            some = list(islice(self._stored(position, query.until), count))
            if not some:
                break
            found = await self._entries.of(some)
            if not found:
                break
            hours += found
            size += sum(map(len, found))
            position = some[len(found) - 1].name.last
        if not hours and some:
            raise StoreFault("no index can be read now")
        return hours, position

    def _stored(self, position: int, until: int) -> Iterator[Held]:
        while (held := self._catalogue.after(position)) and held.name.first <= until:
            position = held.name.last
            if held.is_stored:
                yield held

    def _archived_until(self) -> int:
        held = self._catalogue.before(LIMIT)
        while held is not None and not held.is_stored:
            held = self._catalogue.before(held.name.first)
        return 0 if held is None else held.name.last

    async def _answer_object(
        self, request: Request, send: Send, outlet: Outlet, guest: Guest
    ) -> None:
        if request.query:
            raise Refusal(400, "InvalidRequest", "an object takes no parameters")
        key = unquote(request.path.removeprefix(ARCHIVE + "/"))
        if key == IDENTITY_KEY:
            await send(answer(200, await self._identity(), head_only=request.is_head))
            return
        held = self._find(key)
        if not request.is_head:
            url = await self._store.url_of(held.name.key, seconds=URL_SECONDS)
            if url is not None:
                await send(answer(307, b"", headers={"Location": url}))
                return
        tag = f'"{held.name.first}-{held.name.last}"'
        file = File(held.size, tag, OBJECT_TYPE, is_private=guest.token is not None)
        await self._send_object(held, choose_part(request, file), send, outlet, guest)

    async def _send_object(
        self, held: Held, part: Part, send: Send, outlet: Outlet, guest: Guest
    ) -> None:
        if not part.size:
            await send(part.head)
            return

        async def read(offset: int, size: int) -> bytes:
            return await self._store.read(held.name.key, offset=offset, size=size)

        is_allowed = partial(self._is_allowed, guest)
        await self._downloads.send(part, read, outlet, is_allowed=is_allowed)
        await send(b"")

    def _find(self, key: str) -> Held:
        name = parse_key(key)
        held = None if name is None else self._catalogue.after(name.first - 1)
        if held is None or held.name != name or not held.is_stored:
            raise _not_found()
        return held

    async def _identity(self) -> bytes:
        """Return `turbod.json`, asked of the store now and then: a bucket bills each request."""
        async with self._asking:
            if trio.current_time() >= self._identity_until:
                self._identity_bytes = await self._read_identity()
                self._identity_until = trio.current_time() + IDENTITY_SECONDS
        if not self._identity_bytes:
            raise _not_found()
        return self._identity_bytes

    async def _read_identity(self) -> bytes:
        listed = await self._store.list(after=IDENTITY_KEY[:-1])
        size = next((one.size for one in listed if one.key == IDENTITY_KEY), 0)
        if not 0 < size <= MAX_IDENTITY_BYTES:
            return b""
        return await self._store.read(IDENTITY_KEY, offset=0, size=size)


def is_archive(path: str) -> bool:
    """Tell whether a path is answered here."""
    return path == ARCHIVE or path.startswith(ARCHIVE + "/")


def read_query(query: str, asked: Asked) -> Query:
    """Read the query of /archive.

    Raises:
        Refusal: for a parameter that is unknown, malformed, doubled or beyond its limit.
    """
    given = _single_values(query)
    after = asked(given.get("cursor", "0"))
    until = asked(given["until"]) if "until" in given else LIMIT
    if until <= after:
        raise _invalid("until must lie above cursor")
    limit = given.get("limit", str(DEFAULT_HOURS))
    if not _is_number(limit) or not 1 <= int(limit) <= MAX_HOURS:
        raise _invalid(f"limit is a whole number, 1 to {MAX_HOURS}")
    return Query(after, until, int(limit))


def _single_values(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError:
        raise _invalid("the query is not percent-encoded UTF-8") from None
    given = dict(pairs)
    if not given.keys() <= PARAMETERS or len(given) < len(pairs):
        raise _invalid("/archive takes cursor, limit and until, each once")
    return given


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidRequest", message)


def _not_found() -> Refusal:
    return Refusal(404, "NotFound", "the archive has no such object; /archive lists what it has")


def _unavailable(name: str, message: str) -> Refusal:
    return Refusal(503, name, message, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
