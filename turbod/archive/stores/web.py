"""The archive of another turbod, as a source: its /archive, or the bucket that this leads to."""

from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import trio

from turbod.archive.format.names import IDENTITY_KEY, parse_key
from turbod.archive.stores import hours_page
from turbod.archive.stores.hours_page import MAX_HOURS, Foreign, HourDetails, HoursPage
from turbod.archive.stores.store import MAX_LISTED, Listed, NotThere, StoreFault
from turbod.archive.stores.web_call import Reply, Wanted, get, new_client, refused, shown, shown_url

CONNECTIONS: Final = 8  # as many downloads as a turbod serves from a folder at once
STALL_SECONDS: Final = 30.0  # of a read without a byte
PAGE_SECONDS: Final = 120.0  # for a page of the listing, for which a server may read indexes first
READ_SECONDS: Final = 60.0  # for a read, beside the time that it takes at the slowest
SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
BUSY_SECONDS: Final = 60.0  # of waiting for a server that has too much to do
BUSY_WAIT_SECONDS: Final = 10.0  # where it does not say how long
MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
MAX_PAGES: Final = 10_000
MAX_IDENTITY_BYTES: Final = 64 * 1024
KEPT_PLACES: Final = 256

_OK, _PART = 200, 206
_FORBIDDEN, _NOT_FOUND, _BUSY = 403, 404, 429


class WebSource:
    """Reads the archive of a running turbod that has made it public.

    To be closed, by `aclose` or `async with`. Where that turbod's archive is a bucket, the objects
    come from there, by the URLs that it signs.

    Args:
        url: `https://host`, and a path where its `/archive` lies below one.
        token: sent to that turbod, and to nobody else; None for none.
        keeps_details: whether what a listing tells of each object is to be kept, up to 30 KB each.
    """

    def __init__(self, url: str, *, token: str | None = None, keeps_details: bool = False) -> None:
        self._base = url.rstrip("/")
        self._token = token
        self._keeps_details = keeps_details
        self._client = new_client(CONNECTIONS)
        # httpcore's pool is spoilt for ever by a call cancelled while it waits for a place
        # (encode/httpcore issue 1093): so none ever waits there.
        self._connections = trio.CapacityLimiter(CONNECTIONS)
        self._places: OrderedDict[str, str] = OrderedDict()
        self._details: dict[str, HourDetails] = {}
        self._identity = b""

    @property
    def url(self) -> str:
        """Where it is, for people; without secrets."""
        return shown_url(self._base)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with trio.CancelScope(shield=True):  # it closes sockets, and waits for nobody
            await self.aclose()

    def details(self, key: str) -> HourDetails | None:
        """Return what the last listing told of an object; None where nothing, or none is kept."""
        return self._details.get(key)

    async def list(self, *, after: str = "") -> list[Listed]:
        """Return every object whose key is above `after`, in order of key.

        Raises:
            StoreFault: where it cannot be known.
        """
        name = parse_key(after)
        objects = await self._objects(0 if name is None else name.last)
        found = [each for each in objects if each.key > after]
        if after < IDENTITY_KEY and (identity := await self._read_identity()):
            found.append(Listed(IDENTITY_KEY, len(identity)))
        return found

    async def read(self, key: str, *, offset: int, size: int) -> bytes:
        """Return exactly these bytes of an object.

        Raises:
            NotThere: there is no such object.
            StoreFault: anything else, an object shorter than that included.
        """
        if key == IDENTITY_KEY:
            return self._part(await self._read_identity(), offset, size)
        if parse_key(key) is None:
            raise NotThere(f"{shown(key)} is no object of an archive")
        if size == 0:
            return b""
        reply = await self._read_object(key, offset, size)
        if reply.status not in {_OK, _PART}:
            raise self._fault(reply, key)
        if not _is_part(reply, offset, size):
            raise StoreFault(
                f"{shown_url(reply.place)} sent other bytes of {key} than {size} from {offset}"
            )
        return reply.body

    # The listing ----------------------------------------------------------------------------

    async def _objects(self, cursor: int) -> Sequence[Listed]:
        found: list[Listed] = []
        for _ in range(MAX_PAGES):
            page = await self._page(cursor)
            try:
                some = hours_page.read_hours(page, above=cursor)
            except Foreign as error:
                raise self._foreign(error) from None
            found += [Listed(hour.name, hour.size) for hour in some]
            if self._keeps_details:
                self._details |= {one.name: one for one in some if isinstance(one, HourDetails)}
            if len(found) > MAX_LISTED:
                raise StoreFault(f"{self.url} lists more than {MAX_LISTED:,} objects")
            if page.cursor is None:
                return found
            cursor = page.cursor
        raise StoreFault(f"{self.url} lists its hours on more than {MAX_PAGES} pages")

    async def _page(self, cursor: int) -> HoursPage:
        url = f"{self._base}/archive?cursor={cursor}&limit={MAX_HOURS}"
        reply = await self._ask(url, Wanted({}, MAX_PAGE_BYTES, PAGE_SECONDS, PAGE_SECONDS))
        if reply.status == _NOT_FOUND:
            raise StoreFault(f"{self.url} has no /archive: is it a turbod, and of this version?")
        if reply.status != _OK:
            raise self._fault(reply, "its listing")
        try:
            return hours_page.read(reply.body, above=cursor)
        except Foreign as error:
            raise self._foreign(error) from None

    async def _read_identity(self) -> bytes:
        """Return the bytes of `turbod.json`, none where there is none."""
        if not self._identity:
            url = f"{self._base}/archive/{IDENTITY_KEY}"
            reply = await self._ask(
                url, Wanted({}, MAX_IDENTITY_BYTES, READ_SECONDS, STALL_SECONDS)
            )
            if reply.status == _NOT_FOUND:
                return b""
            if reply.status != _OK:
                raise self._fault(reply, IDENTITY_KEY)
            self._identity = reply.body
        return self._identity

    def _part(self, data: bytes, offset: int, size: int) -> bytes:
        if not data:
            raise NotThere(f"{self.url} has no {IDENTITY_KEY}")
        if offset + size > len(data):
            raise StoreFault(f"{self.url}: {IDENTITY_KEY} has {len(data)} bytes")
        return data[offset : offset + size]

    # Objects --------------------------------------------------------------------------------

    async def _read_object(self, key: str, offset: int, size: int) -> Reply:
        """Ask where the object was the last time, else the turbod itself."""
        headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
        seconds = READ_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        wanted = Wanted(headers, size, seconds, STALL_SECONDS)
        if (place := self._places.get(key)) is not None:
            reply = await self._get(place, wanted)
            if reply.status in {_OK, _PART}:
                return reply
            self._places.pop(key, None)  # its signature was good for a time
        url = f"{self._base}/archive/{key}"
        reply = await self._ask(url, wanted)
        if reply.place != url and reply.status in {_OK, _PART}:
            self._places[key] = reply.place
            if len(self._places) > KEPT_PLACES:
                self._places.popitem(last=False)
        return reply

    async def _ask(self, url: str, wanted: Wanted) -> Reply:
        """Ask the turbod, and again for a while where it has too much to do."""
        ends_at = trio.current_time() + BUSY_SECONDS
        while True:
            reply = await self._get(url, wanted, token=self._token)
            wait = _wait_seconds(reply.headers.get("retry-after", ""))
            if reply.status != _BUSY or trio.current_time() + wait > ends_at:
                return reply
            await trio.sleep(wait)

    async def _get(self, url: str, wanted: Wanted, *, token: str | None = None) -> Reply:
        async with self._connections:
            return await get(self._client, url, wanted, token=token)

    # Faults ---------------------------------------------------------------------------------

    def _fault(self, reply: Reply, what: str) -> StoreFault:
        """Say in words why something was not answered."""
        if reply.status == _NOT_FOUND:
            return NotThere(f"{self.url} has no {what}")
        said = refused(reply)
        if reply.status == _FORBIDDEN and said.error == "NotPublic":
            return StoreFault(
                f"{self.url}: the operator has not made the archive public; read it over WebSocket"
            )
        if said.error == "AuthRequired":  # its own words look like a token where those are hidden
            why = "asks for a token" if self._token is None else "does not know this token"
            return StoreFault(f"{self.url} {why}; its operator gives one, TURBOD_TOKEN is for it")
        words = shown(": ".join(text for text in (said.error, said.message) if text))
        return StoreFault(
            f"{shown_url(reply.place)} answered {reply.status} when asked for {what}"
            + (f" ({words})" if words else "")
        )

    def _foreign(self, error: Foreign) -> StoreFault:
        return StoreFault(
            f"{self.url}: /archive is not what this turbod reads: {shown(str(error))}"
        )


def _is_part(reply: Reply, offset: int, size: int) -> bool:
    """Tell whether the body is what was asked for. Some servers send a part with status 200."""
    sent = reply.headers.get("content-range", "").replace(" ", "")
    is_whole = reply.status == _OK and not sent and offset == 0
    return len(reply.body) == size and (
        is_whole or sent.startswith(f"bytes{offset}-{offset + size - 1}/")
    )


def _wait_seconds(retry_after: str) -> float:
    is_short = retry_after.isascii() and retry_after.isdigit() and len(retry_after) <= len("3600")
    return max(float(retry_after), 0.1) if is_short else BUSY_WAIT_SECONDS
