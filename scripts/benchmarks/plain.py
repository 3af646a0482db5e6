"""A plain hydrator, as Graze's Turbostream is built: json, dicts, SQLite.

The columns, checks and indexes are those of its `records` table, and as there one transaction
holds ten events. Left out in its favour: the second `json.dumps` and the push to Redis that it
makes of each record, compression and upload, cache misses. So it serves nobody at all.
"""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import websockets

EVENTS_A_COMMIT: Final = 10
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
TABLE: Final = """
    CREATE TABLE records (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_uri TEXT CHECK (length(at_uri) <= 300),
        did TEXT CHECK (length(did) <= 100),
        time_us INTEGER,
        message TEXT CHECK (json_valid(message)),
        message_metadata TEXT CHECK (json_valid(message_metadata))
    );
    CREATE INDEX by_at_uri ON records (at_uri);
    CREATE INDEX by_did ON records (did);
    CREATE INDEX by_time_us ON records (time_us);
"""
INSERT: Final = (
    "INSERT INTO records (at_uri, did, time_us, message, message_metadata) VALUES (?, ?, ?, ?, ?)"
)
_Row = tuple[str, str, int, str, str]


class Plain:
    """Hydrates from a dict and stores in SQLite."""

    def __init__(self, path: str, *, synchronous: str, views: str) -> None:
        self._views = json.loads(Path(views).read_bytes())
        self._database = sqlite3.connect(path)
        self._database.executescript(TABLE)
        self._database.execute(f"PRAGMA synchronous = {synchronous}")
        self._rows: list[_Row] = []

    def take(self, message: str | bytes) -> None:
        """Hydrate one event; store ten together."""
        self._rows.append(self._row(json.loads(message)))
        if len(self._rows) == EVENTS_A_COMMIT:
            self.store()

    def store(self) -> None:
        """Write what waits, in one transaction."""
        self._database.executemany(INSERT, self._rows)
        self._database.commit()
        self._rows.clear()

    def count(self) -> int:
        """Return how many events are stored."""
        found: int = self._database.execute("SELECT count(*) FROM records").fetchone()[0]
        return found

    def _row(self, event: dict[str, Any]) -> _Row:
        get, did, commit = self._views.get, event["did"], event["commit"]
        record = commit.get("record") or {}
        reply, embed = record.get("reply") or {}, record.get("embed") or {}
        quoted = embed.get("record") if embed.get("$type") == "app.bsky.embed.record" else None
        metadata = {
            "user": get(did),
            "mentions": {mentioned: get(mentioned) for mentioned in _mentions(record)},
            "parent_post": get((reply.get("parent") or {}).get("uri")),
            "reply_post": get((reply.get("root") or {}).get("uri")),
            "quote_post": get((quoted or {}).get("uri")),
        }
        at_uri = f"at://{did}/{commit['collection']}/{commit['rkey']}"
        hydrated = {
            "at_uri": at_uri,
            "did": did,
            "time_us": event["time_us"],
            "message": event,
            "hydrated_metadata": metadata,
        }
        return (
            hydrated["at_uri"],
            hydrated["did"],
            hydrated["time_us"],
            json.dumps(hydrated["message"]),
            json.dumps(hydrated["hydrated_metadata"]),
        )


def _mentions(record: dict[str, Any]) -> Iterator[str]:
    for facet in record.get("facets") or ():
        for feature in facet.get("features") or ():
            if feature.get("$type") == "app.bsky.richtext.facet#mention":
                yield feature["did"]


async def _run(upstream: str, path: str, synchronous: str, views: str) -> None:
    plain = Plain(path, synchronous=synchronous, views=views)
    async with websockets.connect(upstream, max_size=MAX_MESSAGE_BYTES) as websocket:
        _answer({})
        while line := await asyncio.to_thread(sys.stdin.readline):
            count = json.loads(line)["count"]
            for _ in range(count):
                plain.take(await websocket.recv())
            plain.store()
            _answer({"received": count, "stored": plain.count()})


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(**json.loads(sys.argv[1])))
