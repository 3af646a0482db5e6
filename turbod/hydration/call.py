"""One GET to the AppView, bounded in time and in bytes, its troubles told as one exception."""

import zlib
from typing import Final

import httpx
import msgspec
import trio

from turbod import causes
from turbod.redaction import redacted

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
_GZIP_WINDOW = 31  # zlib's way to say: a gzip header and trailer, and nothing else


class Unanswered(Exception):
    """A call that brought no answer.

    Attributes:
        reason: one of a small closed set of words, fit for a metric's label.
        detail: what happened, for a log line.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = redacted(detail)
        super().__init__(f"{reason}: {self.detail}" if detail else reason)

    @property
    def words(self) -> str:
        """What happened, for people."""
        if self.reason == "timeout":
            return f"no answer within {self.detail}"
        return causes.words(self.__cause__ or self)


class Reply(msgspec.Struct, frozen=True):
    """What came back, whatever its status; the body unpacked."""

    status: int
    headers: httpx.Headers
    body: bytes


async def get(client: httpx.AsyncClient, url: str, *, seconds: float) -> Reply:
    """Make the call.

    Args:
        client: one that asks for no other content coding than gzip.
        url: where.
        seconds: for all of it; timeouts of reads do not bound a body that drips.

    Raises:
        Unanswered: `timeout`, `pool`, `network`, `too_large`, `encoding` or `url`.
    """
    try:
        with trio.fail_after(seconds):
            async with client.stream("GET", url) as response:
                return Reply(response.status_code, response.headers, await _body(response))
    except httpx.PoolTimeout as error:
        raise Unanswered("pool", "no place for it") from error
    except (trio.TooSlowError, httpx.TimeoutException) as error:
        raise Unanswered("timeout", f"{seconds:.1f} s") from error
    except httpx.HTTPError as error:
        raise Unanswered("network", causes.words(error)) from error
    except (httpx.InvalidURL, UnicodeError) as error:  # of a host as a..b
        raise Unanswered("url", str(error)) from error


async def _body(response: httpx.Response) -> bytes:
    """Read the body raw and unpack it ourselves: httpx would unpack a bomb to any size."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"identity", "gzip", "x-gzip", ""}:
        raise Unanswered("encoding", coding[:50])
    body, too_large = bytearray(), False
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                # Leaving the loop would leave httpx's generators open: end them from within.
                too_large = True
                body.clear()
                scope.cancel()
    if too_large:
        raise Unanswered("too_large", f"more than {MAX_BODY_BYTES} bytes")
    return _unpack(bytes(body)) if "gzip" in coding and body else bytes(body)


def _unpack(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        data = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise Unanswered("encoding", str(error)) from error
    if len(data) > MAX_BODY_BYTES:
        raise Unanswered("too_large", f"more than {MAX_BODY_BYTES} bytes unpacked")
    if not unpacker.eof:
        raise Unanswered("encoding", "cut short")
    return data
