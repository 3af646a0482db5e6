"""One GET on the web, by redirects too: bounded in bytes and time, its faults in words."""

from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from turbod import __version__, causes
from turbod.archive.stores.store import StoreFault
from turbod.redaction import redacted

CONNECT_SECONDS: Final = 10.0
MAX_ERROR_BYTES: Final = 64 * 1024
MAX_REDIRECTS: Final = 4
SHOWN_CHARACTERS: Final = 200  # of a server's own words

_REDIRECTS = frozenset({301, 302, 307, 308})


class Wanted(msgspec.Struct, frozen=True):
    """What to ask for, and how long to wait for it.

    Attributes:
        headers: for the first server and for those that it leads to.
        max_bytes: of the body.
        seconds: for all of one answer.
        stall_seconds: without a byte.
    """

    headers: Mapping[str, str]
    max_bytes: int
    seconds: float
    stall_seconds: float


class Reply(msgspec.Struct, frozen=True):
    """What came back in the end.

    Attributes:
        body: whole where the status is a success, else its beginning.
        place: the URL that it is from.
    """

    status: int
    headers: httpx.Headers
    body: bytes
    place: str


class Refused(msgspec.Struct, frozen=True):
    """How a turbod says no."""

    error: str = ""
    message: str = ""


def new_client(connections: int) -> httpx.AsyncClient:
    """Return a client that sends nothing but what it must; the caller closes it."""
    return httpx.AsyncClient(
        # As it is stored: a range is of those bytes.
        headers={"User-Agent": f"turbod/{__version__}", "Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        trust_env=False,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


async def get(
    client: httpx.AsyncClient, url: str, wanted: Wanted, *, token: str | None = None
) -> Reply:
    """Get what is there, or where that leads to, whatever its status.

    The token is for the server that was named, and for none that it leads to.

    Raises:
        StoreFault: nobody answered, or with more than was wanted, or but with somewhere else.
    """
    start = url
    for _ in range(MAX_REDIRECTS):
        is_there = _origin(url) == _origin(start)
        reply = await _get(client, url, wanted, token if is_there else None)
        if reply.status not in _REDIRECTS:
            return reply
        url = _redirected(url, reply.headers.get("location", ""))
    raise StoreFault(f"{shown_url(start)} leads from place to place, {MAX_REDIRECTS} times")


def refused(reply: Reply) -> Refused:
    """Return what a turbod says in a refusal; empty where it is nothing of the kind."""
    try:
        return msgspec.json.decode(reply.body, type=Refused)
    except (ValueError, RecursionError):
        return Refused()


def shown_url(url: str) -> str:
    """Return scheme, host and path: neither a password nor a signature."""
    parts = urlsplit(url)
    return shown(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}")


def shown(text: str) -> str:
    """Return a server's words fit for one line of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in redacted(text)[:SHOWN_CHARACTERS])


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = httpx.URL(url)
    return parts.scheme, parts.host, parts.port


async def _get(client: httpx.AsyncClient, url: str, wanted: Wanted, token: str | None) -> Reply:
    bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
    headers = {**wanted.headers, **bearer}
    timeout = httpx.Timeout(wanted.stall_seconds, connect=CONNECT_SECONDS)
    try:
        with trio.fail_after(wanted.seconds):
            async with client.stream(
                "GET", url, headers=headers, timeout=timeout, follow_redirects=False
            ) as response:
                most = wanted.max_bytes if response.is_success else MAX_ERROR_BYTES
                body = await _body(response, most + 1)
    except (trio.TooSlowError, httpx.TimeoutException):
        raise StoreFault(f"{shown_url(url)} did not answer in time; try again later") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StoreFault(f"{shown_url(url)} cannot be read: {shown(causes.words(error))}") from None
    if response.is_success and len(body) > most:
        raise StoreFault(f"{shown_url(url)} sent more than {most} bytes")
    return Reply(response.status_code, response.headers, body, url)


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    """Read the whole body, or the first `max_bytes` of it."""
    pieces: list[bytes] = []
    size = 0
    with trio.CancelScope() as scope:
        async for piece in response.aiter_raw():
            pieces.append(piece)
            size += len(piece)
            if size >= max_bytes:
                # Leaving the loop would leave httpx's generators open: end them from within.
                scope.cancel()
    return b"".join(pieces)[:max_bytes]


def _redirected(url: str, location: str) -> str:
    try:
        target = httpx.URL(url).join(location)
    except httpx.InvalidURL:
        target = httpx.URL("")
    if target.scheme not in {"http", "https"} or not target.host:
        raise StoreFault(f"{shown_url(url)} leads to no place on the web")
    return str(target)
