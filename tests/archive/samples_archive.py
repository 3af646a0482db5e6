"""Records of every kind, filters, and hours sealed from them, for the tests of reading history."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from hypothesis import strategies as st

from turbod.archive.catalogue import Catalogue
from turbod.archive.format.names import Name, parse_file, parse_key
from turbod.archive.reading.history import History
from turbod.archive.sealing import seal
from turbod.archive.stores.folder import FolderStore
from turbod.archive.stores.store import Source
from turbod.cursor import LIMIT
from turbod.eventlog.chunk import Chunk, Gap
from turbod.eventlog.hour_file import records_name
from turbod.eventlog.hours import PlainHour
from turbod.filter import EVERYTHING, Filter
from turbod.record import head_of_line

T0 = 1_795_168_800_000_000  # 2026-11-20T10:00:00Z
HOUR = 3_600_000_000
DIDS = [f"did:plc:{letter * 24}" for letter in "abcdefgh"] + ["did:web:example.com"]
POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
OTHER = "com.example.thing"
COLLECTIONS = [POST, LIKE, FOLLOW, OTHER]


def line(
    cursor: int,
    *,
    did: str = DIDS[0],
    kind: str = POST,
    operation: str = "create",
    about: str = DIDS[1],
    padding: int = 0,
    is_escaped: bool = False,
) -> bytes:
    """Return a record's line; `kind` is a collection, `identity` or `account`."""
    message = {"did": did, "time_us": cursor, **_payload(kind, did, operation, about, padding)}
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    if is_escaped:
        text = text.replace(b'"did:', b'"\\u0064id:').replace(b'"at://', b'"at:\\/\\/')
    uri = f"at://{did}/{kind}/3k{cursor}" if "." in kind else f"at://{did}"
    head = b'{"cursor":%d,"at_uri":"%b","did":"%b","time_us":%d'
    tail = b',"message":%b,"hydrated_metadata":{"user":null}}'
    return head % (cursor, uri.encode(), did.encode(), cursor) + tail % text


def _payload(kind: str, did: str, operation: str, about: str, padding: int) -> dict[str, Any]:
    if kind == "identity":
        return {"kind": kind, kind: {"did": did, "seq": 1, "time": "2026-11-20T10:00:00Z"}}
    if kind == "account":
        return {"kind": kind, kind: {"did": did, "active": True, "time": "2026-11-20T10:00:00Z"}}
    commit: dict[str, Any] = {
        "rev": "3l",
        "operation": operation,
        "collection": kind,
        "rkey": "3k",
        "cid": "b",
    }
    if operation != "delete":
        commit["record"] = _record(kind, about) | {"padding": "x" * padding}
    return {"kind": "commit", "commit": commit}


def _record(kind: str, about: str) -> dict[str, Any]:
    post = {"uri": f"at://{about}/{POST}/3x", "cid": "b"}
    records: dict[str, dict[str, Any]] = {
        POST: {"text": "é\n", "reply": {"parent": post, "root": post}},
        LIKE: {"subject": post},
        FOLLOW: {"subject": about},
    }
    return records.get(kind, {})


def plain_lines(hour: int, count: int, *, padding: int = 0) -> list[bytes]:
    """Return `count` lines of all kinds spread over the hour of this number after T0."""
    kinds = [*COLLECTIONS, "identity", "account"]
    return [
        line(
            T0 + hour * HOUR + index * (HOUR // count),
            did=DIDS[(hour + index) % len(DIDS)],
            kind=kinds[index % len(kinds)],
            about=DIDS[(hour + index // 7) % len(DIDS)],
            padding=padding,
        )
        for index in range(count)
    ]


def cursor_of(text: bytes) -> int:
    """Return a line's cursor, read in the plainest way."""
    cursor = json.loads(text)["cursor"]
    assert isinstance(cursor, int)
    return cursor


def seal_lines(
    folder: Path,
    lines: Sequence[bytes],
    *,
    previous: int,
    gaps: Sequence[Gap] = (),
    frame_bytes: int = 4096,
    torn: bytes = b"",
) -> Name:
    """Seal lines of one hour, and what is none behind them, into `folder`; return the name."""
    first, last = cursor_of(lines[0]), cursor_of(lines[-1])
    hour = first - first % HOUR
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / records_name(hour)
    plain.write_bytes(b"".join(each + b"\n" for each in lines) + torn)
    name = seal(
        PlainHour(plain, hour, plain.stat().st_size, first, last, list(gaps)),
        folder=folder,
        previous=previous,
        instance="test",
        upstreams=[],
        cancelled=lambda: False,
        frame_bytes=frame_bytes,
    )
    plain.unlink()
    assert name == Name(first, last)
    return name


dids = st.sampled_from(DIDS)
kinds = st.sampled_from([*COLLECTIONS, "identity", "account"])
operations = st.sampled_from(["create", "update", "delete"])


def some(values: st.SearchStrategy[str]) -> st.SearchStrategy[frozenset[str]]:
    """Nothing as often as something."""
    return st.one_of(st.just(frozenset()), st.frozensets(values, max_size=3))


filters = st.builds(
    Filter,
    collections=some(st.sampled_from(COLLECTIONS)),
    prefixes=st.sampled_from([(), ("app.bsky.graph.",), ("app.bsky.", "com.")]),
    dids=some(dids),
    about=st.one_of(some(dids), st.just(frozenset(f"did:web:x{i}" for i in range(9)) | {DIDS[2]})),
    kinds=some(st.sampled_from(["commit", "identity", "account"])),
    operations=some(operations),
    max_size_bytes=st.sampled_from([0, 0, 0, 450]),
    shard=st.sampled_from([None, None, (0, 2), (2, 3)]),
)


class NoLog:
    """A log that has nothing, behind the objects."""

    def __init__(self, floor: int = LIMIT) -> None:
        self.floor = floor
        self.memory: list[int] = []

    def in_memory(self, after: int) -> bool:
        """Tell whether memory begins at or before `after`."""
        return bool(self.memory) and after >= self.memory[0] - 1

    def first_above(self, after: int) -> int | None:
        """Return the first cursor in memory above `after`."""
        return min((cursor for cursor in self.memory if cursor > after), default=None)


class Archive:
    """Objects in a folder, the folder `verified` beside it, and the catalogue of both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = FolderStore(root / "store")
        self.catalogue = Catalogue()
        self.relisted = 0

    def add(
        self,
        lines: Sequence[bytes],
        *,
        previous: int,
        gaps: Sequence[Gap] = (),
        frame_bytes: int = 4096,
        torn: bytes = b"",
    ) -> Name:
        """Seal the lines of one hour into the store."""
        name = seal_lines(
            self.root, lines, previous=previous, gaps=gaps, frame_bytes=frame_bytes, torn=torn
        )
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name.file).rename(self.path(name))
        return name

    def add_hours(self, hours: Sequence[int], count: int, *, padding: int = 0) -> list[bytes]:
        """Fill these hours after T0; return all lines."""
        every: list[bytes] = []
        for hour in hours:
            lines = plain_lines(hour, count, padding=padding)
            self.add(lines, previous=cursor_of(every[-1]) if every else 0)
            every += lines
        return every

    def path(self, name: Name) -> Path:
        """Return the stored object's file."""
        return self.root / "store" / name.key

    def names(self) -> list[Name]:
        """Return what is in the store."""
        found = [parse_file(path.name) for path in (self.root / "store").rglob("*.zst")]
        return sorted(name for name in found if name is not None)

    def keep(self, name: Name) -> Path:
        """Copy an object to `verified`, as it is after an upload."""
        path = self.root / "verified" / name.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.path(name).read_bytes())
        self.catalogue.add_local(name, path.stat().st_size, path)
        return path

    async def relist(self) -> None:
        """Take the store's listing into the catalogue."""
        self.relisted += 1
        listed = [(parse_key(each.key), each.size) for each in await self.store.list()]
        self.catalogue.listed((name, size) for name, size in listed if name is not None)

    @asynccontextmanager
    async def opened(
        self, *, store: Source | None = None, read_ahead_bytes: int = 64 * 1024 * 1024
    ) -> AsyncIterator[History]:
        """Read it, through another store if one is given."""
        history = History(
            self.catalogue,
            store or self.store,
            read_ahead_bytes=read_ahead_bytes,
            relist=self.relist,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(history.run)
            yield history
            nursery.cancel_scope.cancel()


def lines_above(items: Sequence[Chunk | Gap], position: int) -> list[bytes]:
    """Return the lines that a reader at `position` takes from these items."""
    return [
        item.line(index)
        for item in items
        if isinstance(item, Chunk)
        for index in range(item.count_until(position), len(item))
    ]


def gaps_above(items: Sequence[Chunk | Gap], position: int) -> list[Gap]:
    """Return the gaps that a reader at `position` is told."""
    found = [item.gap if isinstance(item, Chunk) else item for item in items]
    return [gap for gap in found if gap is not None and gap.before > position]


def matching(lines: Sequence[bytes], chosen: Filter, *, above: int = 0) -> list[bytes]:
    """Return what a plain scan selects."""
    return [
        each
        for each in lines
        if cursor_of(each) > above and chosen.matches(head_of_line(each), len(each))
    ]


async def read_all(
    history: History, after: int, chosen: Filter = EVERYTHING, newer: NoLog | None = None
) -> tuple[list[bytes], list[Gap], int]:
    """Read to the end of the objects; return lines, gaps, and the position behind them."""
    lines: list[bytes] = []
    gaps: list[Gap] = []
    while True:
        stretch = await history.read(after, chosen, newer=newer or NoLog())
        if stretch.last <= after:
            return lines, gaps, after
        lines += lines_above(stretch.items, after)
        gaps += gaps_above(stretch.items, after)
        after = stretch.last
