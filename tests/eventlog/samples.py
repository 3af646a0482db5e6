"""Records, chunks and logs for the tests of the log, and a plain scan to compare with."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from turbod.config import LogSettings
from turbod.event import parse
from turbod.eventlog.chunk import Chunk, Gap
from turbod.eventlog.log import EventLog
from turbod.record import Record, head_of_line

T0 = 1_795_168_800_000_000  # 2026-11-20T10:00:00Z
HOUR = 3_600_000_000
DIDS = [f"did:plc:{letter * 24}" for letter in "abcdefgh"]

Seen = list[tuple[int, bytes]]


def record(number: int, *, time_us: int | None = None, padding: int = 0) -> Record:
    """Return a record that no other number gives."""
    did = DIDS[number % len(DIDS)]
    time_us = T0 + number if time_us is None else time_us
    message = json.dumps(
        {
            "did": did,
            "time_us": time_us,
            "kind": "commit",
            "commit": {
                "rev": f"3l{number}",
                "operation": "create",
                "collection": "app.bsky.feed.post",
                "rkey": f"3k{number}",
                "record": {"text": "é" + "x" * padding},
                "cid": f"bafy{number}",
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    event = parse(message)
    body = b',"at_uri":"%b","did":"%b","time_us":%d,"message":%b,"hydrated_metadata":{}}'
    return Record(event, body % (event.at_uri.encode(), did.encode(), time_us, message), number)


def line(cursor: int) -> bytes:
    """Return a line as it lies on disk, without its break."""
    return record(cursor % 1_000_000).line(cursor)


def chunk(cursors: Sequence[int], *, after: int, gap: Gap | None = None) -> Chunk:
    """Return a chunk as the writer makes it, without its ordinal."""
    lines = [line(cursor) for cursor in cursors]
    heads = [head_of_line(each) for each in lines]
    return Chunk([(line,) for line in lines], after=after, last=cursors[-1], heads=heads, gap=gap)


class Clock:
    """A clock that tests set."""

    def __init__(self, now_us: int = T0 + HOUR * 24) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        """Return the time that was set."""
        return self.now_us


@asynccontextmanager
async def running(
    data: Path,
    *,
    settings: LogSettings | None = None,
    written: list[int] | None = None,
    clock: Clock | None = None,
    after: int = 0,
    ended: int = 0,
) -> AsyncIterator[EventLog]:
    """Run a log in `data`; leaving ends it as a crash would, without a flush."""
    sink: list[int] = [] if written is None else written
    log = EventLog(
        data,
        settings or LogSettings(),
        written=sink.extend,
        now_us=clock or Clock(),
        after=after,
        ended=ended,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        yield log
        nursery.cancel_scope.cancel()


def plain_scan(data: Path) -> Seen:
    """Return every record on disk, by its cursor, read in the plainest way there is."""
    seen: Seen = []
    for path in sorted((data / "live").glob("*T??.jsonl")):
        seen += [(json.loads(text)["cursor"], text) for text in path.read_bytes().splitlines()]
    return seen


def plain_gaps(data: Path) -> list[Gap]:
    """Return every gap on disk."""
    files = sorted((data / "live").glob("*.gaps.jsonl"))
    return [Gap(**json.loads(text)) for path in files for text in path.read_bytes().splitlines()]


def above(chunks: Sequence[Chunk], position: int) -> tuple[Seen, list[Gap]]:
    """Return what a subscriber at `position` takes from chunks that come one after the other."""
    seen: Seen = []
    gaps: list[Gap] = []
    for each in chunks:
        assert each.after <= position < each.last
        if each.gap is not None and position < each.gap.before:
            gaps.append(each.gap)
            assert each.gap.before == each.cursor(0)
        for index in range(len(each)):
            if each.cursor(index) > position:
                seen.append((each.cursor(index), each.line(index)))
        assert json.loads(each.array) == [json.loads(each.line(i)) for i in range(len(each))]
        position = each.last
    return seen, gaps


async def from_memory(log: EventLog, position: int) -> tuple[Seen, list[Gap]]:
    """Read all above `position` from memory."""
    chunks: list[Chunk] = []
    after = position
    while each := log.next_chunk(after):
        chunks.append(each)
        after = each.last
    return above(chunks, position)


async def from_disk(log: EventLog, position: int) -> tuple[Seen, list[Gap]]:
    """Read all above `position` from disk."""
    chunks: list[Chunk] = []
    after = position
    while some := await log.read_chunks(after):
        chunks += some
        after = some[-1].last
    return above(chunks, position)
