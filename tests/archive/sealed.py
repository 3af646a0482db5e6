"""Archives for the tests of reading in bulk: hours as turbod seals them, laid out in a folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from turbod.archive.format.names import Name
from turbod.archive.sealing import seal
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hours import PlainHour

T0 = 1_795_168_800_000_000  # 2026-11-20T10:00:00Z
HOUR = 3_600_000_000
SECOND = 1_000_000
DIDS = [f"did:plc:{letter * 24}" for letter in "abcdefgh"]
COLLECTIONS = ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow")
SMALL_FRAME = 8 * 1024


def line(cursor: int, *, number: int | None = None, padding: int = 200) -> bytes:
    """Return a record's line with its break; its number decides whose it is and of what kind."""
    number = cursor % 1_000_003 if number is None else number
    did = DIDS[number % len(DIDS)]
    if number % 11 == 0:
        message = {
            "did": did,
            "time_us": cursor,
            "kind": "identity",
            "identity": {"did": did, "handle": "a.test", "seq": number, "time": "2026-11-20"},
        }
        uri = f"at://{did}"
    else:
        message, uri = _commit(did, cursor, number, padding)
    record = {
        "cursor": cursor,
        "at_uri": uri,
        "did": did,
        "time_us": cursor,
        "message": message,
        "hydrated_metadata": {"user": None, "mentions": {}},
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _commit(did: str, cursor: int, number: int, padding: int) -> tuple[dict[str, object], str]:
    collection = COLLECTIONS[number % 3]
    rkey, about = f"3k{number}", DIDS[number // 3 % len(DIDS)]
    records: dict[str, dict[str, object]] = {
        "app.bsky.feed.post": {"text": "é" + "x" * padding},
        "app.bsky.feed.like": {"subject": {"uri": f"at://{about}/app.bsky.feed.post/3x"}},
        "app.bsky.graph.follow": {"subject": about},
    }
    commit = {
        "rev": f"3l{number}",
        "operation": "create",
        "collection": collection,
        "rkey": rkey,
        "record": records[collection],
        "cid": f"bafy{number}",
    }
    message: dict[str, object] = {
        "did": did,
        "time_us": cursor,
        "kind": "commit",
        "commit": commit,
    }
    return message, f"at://{did}/{collection}/{rkey}"


def hour_of_lines(hour: int, count: int, *, padding: int = 200) -> list[bytes]:
    """Return lines spread over an hour; `hour` is its number after T0."""
    step = HOUR // count
    return [
        line(T0 + hour * HOUR + index * step, number=hour * 1000 + index, padding=padding)
        for index in range(count)
    ]


def add_hour(
    archive: Path,
    lines: Sequence[bytes],
    *,
    previous: int,
    gaps: Sequence[Gap] = (),
    frame_bytes: int = SMALL_FRAME,
    instance: str = "here",
) -> Name:
    """Seal lines and put the object where an archive has it; return its name."""
    cursors = [json.loads(each)["cursor"] for each in lines]
    hour = cursors[0] - cursors[0] % HOUR
    plain = archive / ".plain.jsonl"
    archive.mkdir(parents=True, exist_ok=True)
    plain.write_bytes(b"".join(lines))
    name = seal(
        PlainHour(plain, hour, plain.stat().st_size, cursors[0], cursors[-1], list(gaps)),
        folder=archive,
        previous=previous,
        instance=instance,
        upstreams=["jetstream.test"],
        cancelled=lambda: False,
        frame_bytes=frame_bytes,
    )
    plain.unlink()
    assert name is not None
    target = archive / name.key
    target.parent.mkdir(parents=True, exist_ok=True)
    (archive / name.file).rename(target)
    return name


def make_archive(archive: Path, hours: Sequence[int], *, count: int = 120) -> list[bytes]:
    """Fill an archive with these hours after T0; return all its lines."""
    previous, every = 0, []
    for hour in hours:
        lines = hour_of_lines(hour, count)
        add_hour(archive, lines, previous=previous)
        previous = json.loads(lines[-1])["cursor"]
        every += lines
    (archive / "turbod.json").write_text('{"format":1,"instance":"here"}')
    return every
