"""The log as the rest of turbod sees it: append, wait, read after a cursor."""

import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.config import LogSettings
from turbod.cursor import HOUR_US
from turbod.eventlog.appender import Appender
from turbod.eventlog.batch import Part
from turbod.eventlog.chunk import Chunk
from turbod.eventlog.hours import Hours, PlainHour
from turbod.eventlog.opening import Opened
from turbod.eventlog.rate import EventRate
from turbod.eventlog.reader import Pruned, Reader
from turbod.eventlog.tail import Tail
from turbod.eventlog.watch import Watch, Watches
from turbod.eventlog.writer import Writer
from turbod.histogram import Distribution
from turbod.record import Record

__all__ = ["EventLog", "LogStatistics", "PlainHour", "Pruned", "Watch"]

END_HOUR_SECONDS: Final = 5.0  # longest wait for what has its cursor, before trying again later
RECENT_BYTES: Final = 8 * 1024 * 1024  # what is read into memory at start
CHUNKS_PER_SAMPLE: Final = 8  # of which one is looked at on its way to subscribers

log = structlog.get_logger()


class LogStatistics(msgspec.Struct, frozen=True):
    """What the log holds and has done since the process started.

    Attributes:
        store_seconds: how long writes with their sync took.
        commit_seconds: from the appending of a record until it was on disk and published.
    """

    head: int
    floor: int
    records: int
    stores: int
    longest_store_us: int
    queued_records: int
    queued_bytes: int
    memory_records: int
    memory_bytes: int
    text_bytes: int
    disk_bytes: int
    hours: int
    gaps: int
    watches: int
    store_seconds: Distribution
    commit_seconds: Distribution


class EventLog:
    """The only place where events wait for their readers. A reader is a position, not a queue.

    It never deletes an hour by itself: a finished one stays until it is released, which says that
    its records are served from elsewhere. Until `run` has repaired it, it looks empty and nothing
    may be appended or read from disk.

    Attributes:
        data: turbod's data folder; the log lies in its folder `live`.
        written: is told the intake numbers of records as soon as they are on disk and published.
        ended: no cursor below it is given: the end of the newest hour that lies elsewhere. It may
            be set until `run`.
        recent: the newest chunks up to `after`, for those who resume; may be set until `run`.
    """

    def __init__(
        self,
        data: Path,
        settings: LogSettings,
        *,
        written: Callable[[Sequence[int]], None],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        after: int = 0,
        ended: int = 0,
    ) -> None:
        self._folder = data / "live"
        self.after = after
        self.ended = ended
        self.recent: Sequence[Chunk] = ()
        self._settings = settings
        self._written = written
        self._now_us = now_us
        self._watches = Watches()
        self._finished = trio.lowlevel.ParkingLot()
        self._tail = Tail(memory_bytes=settings.memory_bytes)
        self._reader: Reader
        self._writer: Writer
        self._rate: EventRate
        self._records = 0
        self._chunks = 0

    @property
    def after(self) -> int:
        """The newest cursor that lies elsewhere: all in `live` is above, all to come will be.

        It may be set until `run`; the log has nothing up to it, from then on.
        """
        return self._after

    @after.setter
    def after(self, cursor: int) -> None:
        self._after = cursor
        self._hours = Hours(self._folder, lost=cursor)

    @property
    def head(self) -> int:
        """The newest cursor that was given and is on disk; `after` for an empty log."""
        return self._tail.head

    @property
    def floor(self) -> int:
        """Everything above it is in the log, which may be empty. See `retains`."""
        return self._hours.floor

    @property
    def lost(self) -> int:
        """The last record that is no longer in the log, 0 where all that ever was is."""
        return self._hours.lost

    @property
    def fault(self) -> str | None:
        """What keeps the log from writing, in words; None where nothing does."""
        return self._writer.fault

    @property
    def has_room(self) -> bool:
        """Whether more should be appended now."""
        return self._writer.has_room

    @property
    def events_per_minute(self) -> float:
        """Smoothed over a minute."""
        return self._rate.per_minute(now_seconds=trio.current_time())

    async def room(self) -> None:
        """Wait until more may be appended."""
        await self._writer.room()

    def append(self, record: Record) -> None:
        """Queue a record to be written, synced and published, in this order and soon."""
        self._writer.append(record)

    def mark_gap(self, message: str) -> None:
        """Note that events may be missing before the next record that is appended."""
        self._writer.mark_gap(message)

    async def flush(self) -> None:
        """Wait until all that was appended is on disk and published: for ever on a full disk."""
        await self._writer.flush()

    def adapt(self) -> None:
        """Take up settings that have changed."""
        self._tail.resize(self._settings.memory_bytes)

    def retains(self, after: int) -> bool:
        """Tell whether nothing above `after` was released: the question before reading on.

        Not the same as `after >= floor`: whoever waited at 0 while the log was empty is below the
        floor as soon as there is a record, and has lost nothing.
        """
        return after >= self._hours.lost

    def in_memory(self, after: int) -> bool:
        """Tell whether every record above `after` is in memory, released or not."""
        return after >= self._tail.start

    def next_chunk(self, after: int) -> Chunk | None:
        """Return the first chunk that reaches above `after`, or None where `after` is the head.

        Only for positions that are in memory. The chunk may begin at or below `after`.
        """
        return self._tail.next_chunk(after)

    async def read_chunks(self, after: int) -> list[Chunk]:
        """Read the next chunks above `after` from disk, about 1 MiB; none only at the head.

        Where nothing can be read up to what is in memory, that comes, behind a gap.

        Raises:
            Pruned: records above `after` went with their hours.
        """
        head = self.head
        chunks = await self._reader.chunks(after)
        if not chunks and after < head and not self.in_memory(after):
            chunks = [self._tail.oldest_after(after, "what the disk held here cannot be read")]
        return chunks

    async def read_identities(self, *, after: int, until: int) -> "array[int]":
        """Return the identities of the events above `after`, up to the cursor `until`.

        Raises:
            Pruned: records above `after` went with their hours.
        """
        return await self._reader.identities(after=after, until=until)

    def events_behind(self, after: int) -> int | None:
        """Return how many records are above `after`, None where they are not all in memory."""
        return self._tail.count_after(after) if self.in_memory(after) else None

    def watch(self, dids: frozenset[str] | None) -> Watch:
        """Return a watch on these DIDs' events, on all where None. Close it when done."""
        return self._watches.add(dids)

    def finished_hours(self) -> list[PlainHour]:
        """Return the hours to which no record can be added any more, oldest first."""
        newest = self._hours.newest
        finished = [*self._hours.older_than(newest), *([newest] if self._is_over(newest) else [])]
        return [self._hours.plain(hour) for hour in finished]

    def plain_hours(self) -> list[PlainHour]:
        """Return all hours that lie in files here, the newest last."""
        newest = self._hours.newest
        hours = [*self._hours.older_than(newest), *([newest] if newest else [])]
        return [self._hours.plain(hour) for hour in hours]

    async def wait_finished(self) -> None:
        """Wait until there is a finished hour."""
        await trio.lowlevel.checkpoint()
        while not self._has_finished():
            with heartbeat.resting():
                await self._finished.park()

    async def end_hour(self) -> bool:
        """End the newest hour if the clock is behind it: whatever comes gets a later cursor.

        False where there is no such hour; and where records that have their cursor could not be
        written for END_HOUR_SECONDS: the hour is finished once they are.
        """
        await trio.lowlevel.checkpoint()
        hour = self._hours.newest
        if not hour or self._is_over(hour) or self._now_us() < hour + HOUR_US:
            return False
        self._writer.end_hours(hour + HOUR_US)
        with trio.move_on_after(END_HOUR_SECONDS):
            await self._writer.settle()
        self._finished.unpark_all()
        return self._is_over(hour)

    async def release(self, hour: int) -> None:
        """Forget the oldest hour, which is finished, and delete its files.

        What of it is in memory is served from there as before.
        """
        assert hour < self._hours.newest or self._is_over(hour), "a growing hour is not released"
        self._hours.release(hour)
        await self._writer.delete(hour)

    def statistics(self) -> LogStatistics:
        """Return the figures of this moment."""
        store_seconds = self._writer.store_seconds.distribution()
        return LogStatistics(
            head=self.head,
            floor=self.floor,
            records=self._records,
            stores=store_seconds.count,
            longest_store_us=self._writer.longest_store_us,
            queued_records=self._writer.queued_records,
            queued_bytes=self._writer.queued_bytes,
            memory_records=self._tail.records,
            memory_bytes=self._tail.bytes,
            text_bytes=self._tail.texts.bytes,
            disk_bytes=self._hours.total_bytes,
            hours=len(self._hours),
            gaps=self._hours.gap_count,
            watches=len(self._watches.open),
            store_seconds=store_seconds,
            commit_seconds=self._writer.commit_seconds.distribution(),
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Repair, say so, then write until cancelled.

        Raises:
            OSError: where the disk fails in another way than by being full.
        """
        appender = await self._open()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._writer.run)
                task_status.started()
        finally:
            appender.close()

    async def _open(self) -> Appender:
        recent_bytes = min(RECENT_BYTES, self._settings.memory_bytes // 2)
        opened = await trio.to_thread.run_sync(
            lambda: Opened(self._folder, recent_bytes=recent_bytes, after=self.after)
        )
        self._hours = opened.hours
        self._reader = Reader(self._hours)
        self._tail = self._remembering(opened.recent)
        while chunks := await self._reader.chunks(self._tail.head):
            self._tail.load(chunks)
        assert self._tail.head == opened.last, "the log's end was read whole"
        self._rate = EventRate(now_seconds=trio.current_time())
        appender = Appender(self._folder)
        self._writer = Writer(
            appender,
            last=opened.last,
            sealed_end=self.ended,
            ordinal=self._tail.published,
            gap_message=opened.gap_message,
            size_of=self._hours.size,
            publish=self._publish,
            now_us=self._now_us,
        )
        log.info("log_open", head=opened.last, floor=self.floor, hours=len(self._hours))
        return appender

    def _remembering(self, position: int) -> Tail:
        """Return memory that begins at a position; earlier where it takes all that the log has."""
        recent, self.recent = self.recent, ()
        if not recent or position > self.floor:
            return Tail(memory_bytes=self._settings.memory_bytes, start=position)
        tail = Tail(memory_bytes=self._settings.memory_bytes, start=recent[0].after)
        tail.load(recent)
        return tail

    def _publish(self, part: Part, size: int) -> None:
        """Let readers have what is on disk now; no reader sees half of it, for nothing waits."""
        for gap in part.gaps:
            self._hours.add_gap(gap)
        self._hours.grew(part.hour, size=size, first=part.first, last=part.last)
        now_seconds = trio.current_time()
        for chunk in part.chunks:
            self._chunks += 1
            if not self._chunks % CHUNKS_PER_SAMPLE:
                chunk.published_at = now_seconds
            self._tail.publish(chunk)
            self._watches.publish(chunk)
        self._records += len(part.intakes)
        self._rate.add(len(part.intakes), now_seconds=now_seconds)
        if self._has_finished():
            self._finished.unpark_all()
        self._written(part.intakes)

    def _is_over(self, newest: int) -> bool:
        """Tell whether the newest hour, if there is one, was ended and all of it is on disk."""
        is_ended = 0 < newest <= self._writer.sealed_end - HOUR_US
        return is_ended and not self._writer.is_storing(newest)

    def _has_finished(self) -> bool:
        return len(self._hours) > 1 or self._is_over(self._hours.newest)
