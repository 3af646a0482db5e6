"""What was found for an event stays with it, whatever the cache lets go meanwhile."""

import json
import time
from pathlib import Path
from typing import Any

import trio

from turbod.config import CacheSettings, HydrationSettings
from turbod.database import Database
from turbod.event import parse
from turbod.hydration.cache import Cache
from turbod.hydration.hydrator import Hydrator
from turbod.record import Record
from turbod.simulation.world import simulated

AUTHOR, OTHER = "did:plc:author", "did:plc:other"
GONE = f"at://{OTHER}/app.bsky.feed.post/gone"


def now_us() -> int:
    return time.time_ns() // 1000


def reply(number: int, author: str) -> bytes:
    commit = {
        "rev": f"r{number}",
        "operation": "create",
        "collection": "app.bsky.feed.post",
        "rkey": f"k{number}",
        "cid": "c",
        "record": {"reply": {"parent": {"uri": GONE}, "root": {"uri": GONE}}},
    }
    event = {"did": author, "time_us": now_us(), "kind": "commit", "commit": commit}
    return json.dumps(event).encode()


async def test_a_view_evicted_between_look_up_and_use_is_still_shown(tmp_path: Path) -> None:
    """The cache holds one entry: each look-up pushes out the one before it."""
    answers = {did: json.dumps({"did": did, "handle": "h.test"}).encode() for did in (AUTHOR,)}
    database = Database(tmp_path / "cache.sqlite", max_bytes=10**9)
    records: list[Record] = []
    async with simulated(hosts=0, answers=answers) as simulation, trio.open_nursery() as nursery:
        hydrator = Hydrator(
            HydrationSettings(calls_per_second=1000),
            appview_url=simulation.appview.url,
            cache=Cache(CacheSettings(memory_bytes=1), database, now_us=now_us),
            append=records.append,
            dropped=lambda _: None,
            now_us=now_us,
        )
        await nursery.start(hydrator.run)
        for number in range(3):
            hydrator.take(parse(reply(number, AUTHOR)), number + 1, True)
            with trio.fail_after(5):
                await hydrator.drain()
        nursery.cancel_scope.cancel()
    database.close()
    shown: list[dict[str, Any]] = [
        json.loads(record.line(10**15))["hydrated_metadata"] for record in records
    ]
    assert [metadata["user"]["did"] for metadata in shown] == [AUTHOR] * 3
    assert [metadata["parent_post"] for metadata in shown] == [None] * 3
    assert not any("unresolved" in metadata for metadata in shown)
