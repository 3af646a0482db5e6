"""What has been read of objects: indexes and decoded frames, once for all readers, bounded."""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import trio

from turbod import heartbeat
from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.hour_object import TAIL_BYTES, Damaged, read_frame
from turbod.archive.format.index import Frame, Index
from turbod.archive.format.loading import load_index
from turbod.archive.format.names import Name
from turbod.archive.reading.bursts import Bursts
from turbod.archive.reading.cutting import Selected, cut, select
from turbod.archive.reading.nearest import Nearest
from turbod.archive.reading.read_ahead import ReadAhead, ReadAheadStatistics
from turbod.archive.reading.selection import Selection
from turbod.archive.stores.store import NotThere, Source
from turbod.eventlog.chunk import Chunk, Gap

T = TypeVar("T")

INDEX_BYTES: Final = 32 * 1024 * 1024
# One decodes 1 GB/s, which is more than the event loop may send; a second would only take the
# machine from whoever is live: on two cores their p99 falls by a third without it.
DECODERS: Final = 1
SELECTORS: Final = 1
LOOK_SECONDS: Final = 0.001  # of looking for a frame, until others have a turn


class Objects:
    """Every object of a catalogue, from this disk or from the store. `run` must be running.

    `relist` lists the store anew, into the catalogue, and raises StoreFault where it cannot.
    Lines that `instance` sealed are not checked again: it checked them, and their checksums hold.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Source,
        *,
        read_ahead_bytes: int,
        relist: Callable[[], Awaitable[None]],
        instance: Callable[[], str],
    ) -> None:
        self._instance = instance
        self._catalogue = catalogue
        self._source = Nearest(catalogue, store)
        self._relist = relist
        self._listing = trio.Lock()
        self._listed_at = float("-inf")
        self._frames = ReadAhead[tuple[Name, int], list[Chunk]](
            max_bytes=read_ahead_bytes, size_of=_frame_bytes
        )
        self._indexes = ReadAhead[Name, Index](
            max_bytes=INDEX_BYTES, size_of=_index_bytes, hold_seconds=0, after_seconds=0
        )
        self._decoders = trio.CapacityLimiter(DECODERS)
        # Those of which more is read than the TAIL_BYTES that they are counted with meanwhile.
        self._big_indexes = trio.Lock()
        self._selectors = trio.CapacityLimiter(SELECTORS)

    def resize(self, read_ahead_bytes: int) -> None:
        """Have another bound for decoded frames; what is above it goes as others need room."""
        self._frames.max_bytes = read_ahead_bytes

    @property
    def url(self) -> str:
        """Where the store is."""
        return self._source.url

    @property
    def fault(self) -> str | None:
        """What keeps the store from answering, in words, or None."""
        return self._source.fault

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what is asked for, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._frames.run)
            await nursery.start(self._indexes.run)
            task_status.started()

    async def index(self, held: Held) -> Index:
        """Return the index of an object.

        Raises:
            Damaged: it is not what an object of that name has.
            StoreFault: it could not be read.
        """
        return await self._indexes.get(held.name, self._index_of(held), size=TAIL_BYTES)

    async def frame(self, name: Name, index: Index, number: int) -> list[Chunk]:
        """Return a frame's records. Readers share the chunks, so nobody changes them.

        Raises:
            Damaged: it is not what the index says.
            StoreFault: it could not be read.
        """
        size = _fetched_bytes(index.frames[number])
        fetch = self._frame_of(name, index, number)
        return await self._frames.get((name, number), fetch, size=size)

    async def select(
        self, chunks: Sequence[Chunk], after: int, selection: Selection, *, max_bytes: int
    ) -> Selected:
        """Return what is selected of a frame above a cursor, about `max_bytes` of it.

        Raises:
            Damaged: it holds what is no record.
        """
        return await trio.to_thread.run_sync(
            _select, chunks, after, selection, max_bytes, limiter=self._selectors
        )

    def finished(self, name: Name, number: int) -> None:
        """Note that a reader is through with a frame."""
        self._frames.finished((name, number))

    async def next_frame(self, index: Index, after: int, selection: Selection) -> int | None:
        """Return the number of the first frame that may hold something above a cursor.

        Others have a turn between frames: 10,000 DIDs that are all absent take 3 ms for each.
        """
        began = time.perf_counter()
        for number, is_wanted in selection.look(index, after):
            if is_wanted:
                return number
            if time.perf_counter() - began >= LOOK_SECONDS:
                await trio.lowlevel.checkpoint()
                began = time.perf_counter()
        return None

    async def begin(self, held: Held, index: Index, after: int, selection: Selection) -> None:
        """Begin to fetch what a reader wants behind a position in an object, if there is room."""
        number = await self.next_frame(index, after, selection)
        if number is None:
            following = self._catalogue.after(held.name.last)
            if following is None:
                return
            known = self._indexes.peek(following.name)
            if known is None:
                fetch = self._index_of(following)
                self._indexes.begin(following.name, fetch, size=TAIL_BYTES)
                return
            held, index = following, known
            number = await self.next_frame(index, 0, selection)
        if number is not None:
            size = _fetched_bytes(index.frames[number])
            fetch_frame = self._frame_of(held.name, index, number)
            self._frames.begin((held.name, number), fetch_frame, size=size)

    def frame_statistics(self) -> ReadAheadStatistics:
        """Return the figures of the frames."""
        return self._frames.statistics()

    def index_statistics(self) -> ReadAheadStatistics:
        """Return the figures of the indexes."""
        return self._indexes.statistics()

    def _index_of(self, held: Held) -> Callable[[], Awaitable[Index]]:
        load = partial(
            load_index,
            self._source,
            held.name.key,
            held.size,
            held.name,
            threads=self._decoders,
            turn=self._big_indexes,
        )
        return partial(self._twice, held.name, load)

    def _frame_of(
        self, name: Name, index: Index, number: int
    ) -> Callable[[], Awaitable[list[Chunk]]]:
        return partial(self._twice, name, partial(self._load_frame, name, index, number))

    async def _load_frame(self, name: Name, index: Index, number: int) -> list[Chunk]:
        frame = index.frames[number]
        after = index.frames[number - 1].last if number else index.previous or index.first - 1
        gaps = [gap for gap in index.gaps if after < gap.before <= frame.last]
        data = await self._source.read(name.key, offset=frame.offset, size=frame.size)
        is_checked = index.instance == self._instance()
        decode = partial(_decode, data, frame, after=after, gaps=gaps, is_checked=is_checked)
        return await trio.to_thread.run_sync(decode, limiter=self._decoders)

    async def _twice(self, name: Name, load: Callable[[], Awaitable[T]]) -> T:
        """Load, and once more: bytes may be damaged on their way, or on this disk alone."""
        try:
            return await load()
        except Damaged:
            self._source.doubt(name)
        except NotThere:
            await self._list_anew()
        try:
            return await load()
        except NotThere:
            if self._catalogue.find(name) is None:
                raise
            raise Damaged("it is not there, though it was listed") from None  # no path for clients

    async def _list_anew(self) -> None:
        """List the store, once for all who ask until it was."""
        asked_at = trio.current_time()
        async with heartbeat.holding(self._listing):
            if self._listed_at < asked_at:
                await self._relist()
                self._listed_at = trio.current_time()


def _decode(
    data: bytes, frame: Frame, *, after: int, gaps: Sequence[Gap], is_checked: bool
) -> list[Chunk]:
    return cut(
        read_frame(data, frame),
        after=after,
        gaps=gaps,
        is_checked=is_checked,
        pause=Bursts().pause,
    )


def _select(chunks: Sequence[Chunk], after: int, selection: Selection, max_bytes: int) -> Selected:
    return select(chunks, after, selection, max_bytes=max_bytes, pause=Bursts().pause)


def _fetched_bytes(frame: Frame) -> int:
    """Return what a frame may need while it is fetched: its bytes, its lines, the chunks."""
    return frame.size + 2 * frame.raw_bytes


def _frame_bytes(chunks: Sequence[Chunk]) -> int:
    return sum(len(chunk.array) + 40 * len(chunk.ends) + 500 for chunk in chunks)


def _index_bytes(index: Index) -> int:
    frames = sum(500 + len(each.dids.bits) + 80 * len(each.collections) for each in index.frames)
    return frames + 200 * (len(index.gaps) + len(index.collections)) + 1000
