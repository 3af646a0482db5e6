"""Looks at this machine's clock, and at those of the servers that turbod speaks with."""

import ctypes
import time
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
import trio

from turbod.check.finding import Finding
from turbod.check.network_verdicts import ClockSeen, judge_clock
from turbod.config import Settings
from turbod.hydration.appview import new_client
from turbod.hydration.call import Unanswered, get

CALL_SECONDS: Final = 8.0
_TIMEX_BYTES: Final = 1024  # struct timex has 208
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised


async def look(settings: Settings) -> list[Finding]:
    """Return whether the clock is right, as far as others tell."""
    servers = [settings.appview, *_store(settings)]
    seen: list[ClockSeen] = []
    async with trio.open_nursery() as nursery:
        for url in servers:
            nursery.start_soon(_compare, url, seen)
    return judge_clock(sorted(seen, key=lambda each: each.server), is_synchronised=_synchronised())


def _store(settings: Settings) -> list[str]:
    """Return the S3 server, which refuses requests of another time."""
    if not settings.archive.location.startswith("s3://"):
        return []
    return [settings.s3.endpoint or "https://s3.amazonaws.com"]


async def _compare(url: str, seen: list[ClockSeen]) -> None:
    async with new_client() as client:
        sent = time.time()
        try:
            reply = await get(client, f"{url.rstrip('/')}/", seconds=CALL_SECONDS)
        except Unanswered:
            return  # told where the server itself is looked at
        told = read_date(reply.headers)
        if told is not None:
            server = httpx.URL(url).host
            # A Date is cut to seconds, and somewhere between sending and receiving.
            seen.append(ClockSeen(server, sent - told - 1.0, time.time() - told))


def read_date(headers: httpx.Headers) -> float | None:
    """Return when an answer was made and sent, by its Date and Age (RFC 9110, 9111)."""
    age = headers.get("age", "0").strip()
    try:
        date = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return None
    return date + (int(age[:9]) if age.isascii() and age.isdigit() else 0)


def _synchronised() -> bool | None:
    """Return what the kernel knows of it, None where it does not say."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR
