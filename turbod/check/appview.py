"""Looks at the AppView: asks for one profile and one post, as turbod does for 25."""

import time
from typing import Final

import httpx
import trio

from turbod.check.finding import Finding
from turbod.check.network_verdicts import CallSeen, judge_appview
from turbod.config import Settings
from turbod.envelope import Malformed
from turbod.hydration.appview import new_client
from turbod.hydration.budget import read_allowance
from turbod.hydration.call import Reply, Unanswered, get
from turbod.hydration.views import Kind, read_answer

CALL_SECONDS: Final = 5.0
# Bluesky's own account. An AppView that has neither it nor a post of it leaves them out.
_DID: Final = "did:plc:z72i7hdynmk6r22z27h6tvur"
_ASKED: Final = (
    ("profiles", Kind.PROFILE, _DID),
    ("posts", Kind.POST, f"at://{_DID}/app.bsky.feed.post/3l6oveex3ii2l"),
)
_OK: Final = 200


async def look(settings: Settings) -> list[Finding]:
    """Return whether views could be had, and how many."""
    calls: list[CallSeen] = []
    async with new_client() as client:
        for what, kind, key in _ASKED:
            calls.append(await _call(client, settings.appview.rstrip("/"), what, kind, key))
            if calls[-1].words:
                break
    rate = settings.hydration.calls_per_second
    return judge_appview(settings.appview, calls, calls_per_second=rate)


async def _call(
    client: httpx.AsyncClient, appview: str, what: str, kind: Kind, key: str
) -> CallSeen:
    began = trio.current_time()
    try:
        url = f"{appview}{kind.path}?{kind.parameter}={key}"
        reply = await get(client, url, seconds=CALL_SECONDS)
    except Unanswered as error:
        return CallSeen(what, trio.current_time() - began, 0, error.words)
    return CallSeen(
        what,
        trio.current_time() - began,
        reply.status,
        _refusal(reply, kind),
        read_allowance(reply.headers, time.time()),
    )


def _refusal(reply: Reply, kind: Kind) -> str:
    """Return why an answer is none, empty where it is one."""
    if reply.status != _OK:
        return f"HTTP {reply.status}"
    try:
        read_answer(reply.body, kind)
    except Malformed:
        return "the answer is not an AppView's"
    return ""
