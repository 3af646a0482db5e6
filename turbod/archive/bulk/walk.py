"""Walking an archive in order of cursor, as fast as it can be fetched and decompressed.

For whoever wants much of it: the commands and the client library. The server reads for many
clients at once, and has its own way (history.py).
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from functools import partial
from typing import Final, NoReturn

import msgspec
import trio

from turbod.archive.bulk.ahead import Ahead
from turbod.archive.bulk.parts import (
    END,
    RUN_BYTES,
    Asked,
    Part,
    Run,
    Stop,
    parts,
    runs,
    stops,
    unreadable,
)
from turbod.archive.bulk.patience import again
from turbod.archive.bulk.selected import Selecting
from turbod.archive.catalogue import Catalogue
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.index import Frame, Index
from turbod.archive.format.loading import load_index
from turbod.archive.format.names import Name, parse_key
from turbod.archive.stores.store import NotThere, Source, StoreFault
from turbod.eventlog.chunk import Gap
from turbod.filter import EVERYTHING, Filter

PARALLEL: Final = 4
MAX_PARALLEL: Final = 32
ROOM_BYTES: Final = 32 * 1024 * 1024  # for each read at once: a frame under way, and one waiting
LEAST_BYTES: Final = 64 * 1024  # what each run and piece is counted at least


class Piece(msgspec.Struct, frozen=True):
    """The next records of a walk, those of one frame at most.

    Attributes:
        name: the object that they are from.
        instance: who wrote it; empty where that cannot be read.
        last: the position behind it: nothing up to here that was asked for is left out.
        lines: whole lines with their breaks, selected exactly; empty where nothing was.
        gaps: what is missing before `last`, in order, each told once.
        raw_bytes: how many bytes were decompressed for it.
    """

    name: Name
    instance: str
    last: int
    lines: bytes
    records: int
    gaps: list[Gap]
    raw_bytes: int


class Progress(msgspec.Struct, frozen=True):
    """How far a walk has come.

    Attributes:
        cursor: the position.
        passed_bytes: size of what lies behind it, whether it was read or not.
        total_bytes: size of all objects on the way.
        raw_bytes: what was read of their frames, decompressed.
        records: how many were selected.
    """

    cursor: int
    passed_bytes: int
    total_bytes: int
    raw_bytes: int
    records: int


@trio.as_safe_channel
async def walk(
    source: Source,
    *,
    after: int = 0,
    until: int = END,
    filter: Filter = EVERYTHING,  # noqa: A002 - what it is called everywhere
    parallel: int = PARALLEL,
    skip: Callable[[Name], bool] = lambda _: False,
    report: Callable[[Progress], None] = lambda _: None,
) -> AsyncGenerator[Piece, None]:
    """Walk over the records above the cursor `after`, up to `until`, that a filter selects.

    Used as `async with walk(...) as pieces: async for piece in pieces: ...`. Records come in order
    of cursor, each once. Where some are missing or damaged, a piece says so by its gaps. With
    `after` 0 the walk begins with the oldest record there is, and what was before is no gap.

    Args:
        source: where from.
        after: the position to begin behind.
        until: the last cursor that is wanted.
        filter: which records.
        parallel: reads under way at once; for each some 8 MB fetched and 32 MB decompressed.
        skip: objects to pass over as if they held nothing.
        report: told how far it has come, as each piece is taken.

    Raises:
        StoreFault: the source cannot be listed, or an object not be read, tried again and again.
    """
    asked = Asked(after, until)
    way = [stop for stop in stops(await _catalogue(source), asked) if not skip(stop.name)]
    reader = _Reader(source, Selecting(asked, filter), parallel)
    count = _Count(way)
    fault: StoreFault | None = None
    async with trio.open_nursery() as nursery:
        opened = Ahead[_Opened](nursery, room=parallel)
        fetched = Ahead[_Fetched](nursery, room=(parallel + 1) * RUN_BYTES)
        pieces = Ahead[Piece](nursery, room=parallel * ROOM_BYTES)
        nursery.start_soon(reader.open_all, way, opened)
        nursery.start_soon(reader.fetch_all, opened, fetched)
        nursery.start_soon(reader.decode_all, fetched, pieces)
        try:
            async for piece in pieces:
                report(count.with_piece(piece))
                yield piece
        except StoreFault as error:
            fault = error
        nursery.cancel_scope.cancel()
    if fault is not None:
        raise fault


async def _catalogue(source: Source) -> Catalogue:
    catalogue = Catalogue()
    listed = [(parse_key(each.key), each.size) for each in await source.list()]
    catalogue.listed((name, size) for name, size in listed if name is not None)
    return catalogue


class _Opened(msgspec.Struct, frozen=True):
    """An object's index, or why there is none."""

    stop: Stop
    index: Index | None
    why: str = ""


class _Fetched(msgspec.Struct, frozen=True):
    """The bytes of a run, or why there are none."""

    run: Run
    data: bytes
    why: str = ""


class _Reader:
    """Reads indexes and frames, `parallel` at once. A fault is passed on, in its place."""

    def __init__(self, source: Source, selecting: Selecting, parallel: int) -> None:
        self._source = source
        self._selecting = selecting
        self._reads = trio.CapacityLimiter(parallel)
        self._threads = trio.CapacityLimiter(parallel)

    async def open_all(self, way: Sequence[Stop], opened: Ahead[_Opened]) -> None:
        """Begin to read every object's index."""
        for stop in way:
            await opened.begin(partial(self._open, stop), cost=1)
        opened.end()

    async def fetch_all(self, opened: Ahead[_Opened], fetched: Ahead[_Fetched]) -> None:
        """Begin to read every frame that is wanted."""
        try:
            async for each in opened:
                for run in runs(self._parts(each)):
                    await fetched.begin(partial(self._fetch, run), cost=max(run.size, LEAST_BYTES))
        except StoreFault as fault:
            await fetched.begin(partial(_fail, fault), cost=0)
        fetched.end()

    async def decode_all(self, fetched: Ahead[_Fetched], pieces: Ahead[Piece]) -> None:
        """Begin to decompress what was read."""
        try:
            async for each in fetched:
                for part in each.run.parts:
                    cost = max(part.frame.raw_bytes if part.frame else 0, LEAST_BYTES)
                    await pieces.begin(partial(self._piece, part, each), cost=cost)
        except StoreFault as fault:
            await pieces.begin(partial(_fail, fault), cost=0)
        pieces.end()

    def _parts(self, opened: _Opened) -> Iterator[Part]:
        asked = self._selecting.asked
        if opened.index is None:
            return unreadable(opened.stop, asked, opened.why)
        return parts(opened.stop, opened.index, asked, wants=self._selecting.wants)

    async def _open(self, stop: Stop) -> _Opened:
        held = stop.held
        load = partial(load_index, self._source, held.name.key, held.size, held.name)
        try:
            async with self._reads:
                return _Opened(stop, await again(load))
        except NotThere:
            return _Opened(stop, None, "it is gone")
        except Damaged as error:
            return _Opened(stop, None, str(error))

    async def _fetch(self, run: Run) -> _Fetched:
        try:
            return _Fetched(run, await self._read(run))
        except NotThere:
            return _Fetched(run, b"", "it is gone")

    async def _piece(self, part: Part, fetched: _Fetched) -> Piece:
        frame = part.frame
        if frame is None:
            return _made(part, part.gaps)
        why = fetched.why
        if not why:
            try:
                return await self._decoded(part, frame, fetched)
            except (Damaged, NotThere) as error:
                why = str(error)
        assert part.instead is not None, "a frame has a gap to stand in its place"
        gap = msgspec.structs.replace(part.instead, message=f"{part.name.key}: {why}")
        return _made(part, [*part.gaps, gap])

    async def _decoded(self, part: Part, frame: Frame, fetched: _Fetched) -> Piece:
        begin = frame.offset - fetched.run.offset
        data = fetched.data[begin : begin + frame.size]
        try:
            return await self._selected(part, frame, data)
        except Damaged:  # perhaps on its way
            return await self._selected(part, frame, await self._read(Run([part])))

    async def _selected(self, part: Part, frame: Frame, data: bytes) -> Piece:
        lines, records = await trio.to_thread.run_sync(
            self._selecting.lines, data, frame, limiter=self._threads
        )
        return _made(part, part.gaps, lines=lines, records=records)

    async def _read(self, run: Run) -> bytes:
        if not run.size:
            return b""
        read = partial(self._source.read, run.name.key, offset=run.offset, size=run.size)
        async with self._reads:
            return await again(read)


async def _fail(fault: StoreFault) -> NoReturn:
    raise fault


def _made(part: Part, gaps: list[Gap], *, lines: bytes = b"", records: int = 0) -> Piece:
    return Piece(
        name=part.name,
        instance=part.instance,
        last=part.last,
        lines=lines,
        records=records,
        gaps=gaps,
        raw_bytes=part.frame.raw_bytes if part.frame else 0,
    )


class _Count:
    """Adds up what a walk has taken."""

    def __init__(self, way: Sequence[Stop]) -> None:
        self._way = deque(way)
        self._passed = 0
        self._now = Progress(0, 0, sum(stop.held.size for stop in way), 0, 0)

    def with_piece(self, piece: Piece) -> Progress:
        """Return how far it has come with one piece more."""
        while self._way and self._way[0].name.last <= piece.last:
            self._passed += self._way.popleft().held.size
        now = self._now
        self._now = Progress(
            cursor=piece.last,
            passed_bytes=self._passed + self._part_of(piece),
            total_bytes=now.total_bytes,
            raw_bytes=now.raw_bytes + piece.raw_bytes,
            records=now.records + piece.records,
        )
        return self._now

    def _part_of(self, piece: Piece) -> int:
        """Guess by the cursor how much of its object lies behind a piece."""
        name = piece.name
        if not self._way or self._way[0].name != name or piece.last < name.first:
            return 0
        return self._way[0].held.size * (piece.last - name.first) // (name.last - name.first + 1)
