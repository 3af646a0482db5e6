"""Records of every kind, filters, and hours sealed from them, for the tests of reading history."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from turbod.archive.names import Name
from turbod.archive.sealing import seal
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hour_file import records_name
from turbod.eventlog.hours import PlainHour
from turbod.filter import Filter

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
    commit = {"rev": "3l", "operation": operation, "collection": kind, "rkey": "3k", "cid": "b"}
    if operation != "delete":
        commit["record"] = _record(kind, about) | {"padding": "x" * padding}
    return {"kind": "commit", "commit": commit}


def _record(kind: str, about: str) -> dict[str, Any]:
    post = {"uri": f"at://{about}/{POST}/3x", "cid": "b"}
    return {
        POST: {"text": "é\n", "reply": {"parent": post, "root": post}},
        LIKE: {"subject": post},
        FOLLOW: {"subject": about},
    }.get(kind, {})


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
) -> Name:
    """Seal lines of one hour into `folder`; return the object's name."""
    first, last = cursor_of(lines[0]), cursor_of(lines[-1])
    hour = first - first % HOUR
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / records_name(hour)
    plain.write_bytes(b"".join(each + b"\n" for each in lines))
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
