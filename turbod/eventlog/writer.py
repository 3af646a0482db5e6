"""The only appender and the only giver of cursors: collects, writes, syncs, then publishes."""

from collections import deque
from collections.abc import Callable
from typing import Final

import structlog
import trio

from turbod import heartbeat
from turbod.backoff import Backoff
from turbod.eventlog.appender import Appender, DiskFull, delete_hour
from turbod.eventlog.batch import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Part, next_batch
from turbod.eventlog.hour_file import MAX_GAP_MESSAGE
from turbod.histogram import Histogram
from turbod.record import Record

# A record may wait 20 ms for company; the thread's start and the timer's grain are in it.
COMPANY_SECONDS: Final = 0.015
MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
RECORD_OVERHEAD_BYTES: Final = 2048  # an event and its decoded record, beside the body
LONGEST_RETRY_SECONDS: Final = 5.0

log = structlog.get_logger()


class Writer:
    """Writes what is appended, in order.

    Attributes:
        fault: what keeps it from writing, in words, or None.
        queued_bytes: what was appended and is not published yet.
        sealed_end: no cursor below it is given any more.
        longest_store_us: the longest write and sync since the process started.
        store_seconds: how long each took that succeeded.
        commit_seconds: from appending a record to publishing it, taken for each as of the oldest
            record of its batch.
    """

    def __init__(
        self,
        appender: Appender,
        *,
        last: int,
        sealed_end: int,
        ordinal: int,
        gap_message: str | None,
        size_of: Callable[[int], int],
        publish: Callable[[Part, int], None],
        now_us: Callable[[], int],
    ) -> None:
        self.fault: str | None = None
        self.queued_bytes = 0
        self.longest_store_us = 0
        self.store_seconds = Histogram()
        self.commit_seconds = Histogram()
        self._appender = appender
        self._last = last
        self.sealed_end = sealed_end
        self._ordinal = ordinal
        self._gap_message = gap_message
        self._size_of = size_of
        self._publish = publish
        self._now_us = now_us
        self._queue: deque[Record | str] = deque()
        self._waiting_bytes = 0  # of what no batch has taken yet
        self._appended = self._taken = self._published = 0
        self._parts: deque[Part] = deque()  # have their cursors, and are being stored
        self._since = 0.0
        self._marks: deque[tuple[int, float]] = deque([(0, 0.0)])  # how many were appended by when
        self._oldest_since = 0.0  # of the records in the parts
        self._some, self._enough = trio.Event(), trio.Event()
        self._progress = trio.lowlevel.ParkingLot()
        self._limiter = trio.CapacityLimiter(1)
        self._backoff = Backoff(first_seconds=0.05, longest_seconds=LONGEST_RETRY_SECONDS)

    @property
    def has_room(self) -> bool:
        """Whether more should be appended now."""
        return self.queued_bytes < MAX_QUEUED_BYTES

    @property
    def queued_records(self) -> int:
        """How many records were appended and are not published yet."""
        return self._appended - self._published

    def append(self, record: Record) -> None:
        """Queue a record; it is on disk and published soon."""
        queue = self._queue
        if not queue:
            self._since = trio.current_time()
            self._some.set()
        if self._gap_message is not None:
            queue.append(self._gap_message)
            self._gap_message = None
        queue.append(record)
        self._appended += 1
        size = len(record.body)
        self._waiting_bytes += size
        self.queued_bytes += size + RECORD_OVERHEAD_BYTES
        if len(queue) >= MAX_BATCH_RECORDS or self._waiting_bytes >= MAX_BATCH_BYTES:
            self._enough.set()

    def mark_gap(self, message: str) -> None:
        """Note that events may be missing before the next record that is appended."""
        known = self._gap_message
        if known is None:
            self._gap_message = message[:MAX_GAP_MESSAGE]
        elif message not in known:
            self._gap_message = f"{known}; {message}"[:MAX_GAP_MESSAGE]

    async def room(self) -> None:
        """Wait until more may be appended."""
        await trio.lowlevel.checkpoint()
        while not self.has_room:
            with heartbeat.resting():
                await self._progress.park()

    async def flush(self) -> None:
        """Wait until all that was appended is on disk and published."""
        await trio.lowlevel.checkpoint()
        target = self._appended
        while self._published < target:
            self._enough.set()
            await self._progress.park()

    def end_hours(self, end: int) -> None:
        """Give no cursor below `end` any more."""
        self.sealed_end = max(self.sealed_end, end)

    def is_storing(self, hour: int) -> bool:
        """Tell whether records that lie in an hour have their cursors and are not published yet."""
        return any(part.hour == hour for part in self._parts)

    async def settle(self) -> None:
        """Wait until all that has its cursor is published: for ever on a full disk."""
        await trio.lowlevel.checkpoint()
        target = self._taken
        while self._published < target:
            await self._progress.park()

    async def delete(self, hour: int) -> None:
        """Delete an hour's files, beside what is being written."""
        await trio.to_thread.run_sync(self._appender.leave, hour, limiter=self._limiter)
        await trio.to_thread.run_sync(delete_hour, self._appender.folder, hour)

    async def run(self) -> None:
        """Write until cancelled. A write under way is finished, and published, before that."""
        with heartbeat.beating("log"):
            while True:
                await self._company()
                self._parts.extend(self._take())
                while self._parts:
                    await self._store(self._parts[0])

    async def _company(self) -> None:
        """Return when records wait and are enough, or have waited long enough."""
        while not self._queue:
            self._some = trio.Event()
            with heartbeat.resting():
                await self._some.wait()
        with trio.move_on_at(self._since + COMPANY_SECONDS):
            await self._enough.wait()

    def _take(self) -> list[Part]:
        self._mark()
        parts, self._last = next_batch(
            self._queue,
            last=self._last,
            ordinal=self._ordinal,
            now_us=self._now_us(),
            sealed_end=self.sealed_end,
        )
        self._enough = trio.Event()
        self._waiting_bytes -= sum(part.bodies for part in parts)
        count = sum(len(part.intakes) for part in parts)
        self._ordinal += count
        self._taken += count
        return parts

    def _mark(self) -> None:
        """Note since when the oldest record of the batch waits, which may be one of a backlog."""
        self._marks.append((self._appended, trio.current_time()))
        while self._marks[1][0] <= self._taken:
            self._marks.popleft()
        self._oldest_since = max(self._since, self._marks[0][1])

    async def _store(self, part: Part) -> None:
        size = self._size_of(part.hour)
        while True:
            started = trio.current_time()
            heartbeat.beat()
            try:
                # Not abandoned when cancelled: a thread that began is waited for.
                size = await trio.to_thread.run_sync(
                    self._appender.store, part, size, limiter=self._limiter
                )
            except DiskFull as full:
                self._note_fault(str(full))
                await heartbeat.sleep(self._backoff.next_seconds())
            else:
                break
        self._note_success(part, trio.current_time() - started)
        self._publish(part, size)
        self._progress.unpark_all()

    def _note_fault(self, fault: str) -> None:
        if self.fault is None:
            log.error("log_not_writing", error=fault, todo="make room; it goes on by itself")
        self.fault = fault

    def _note_success(self, part: Part, seconds: float) -> None:
        if self.fault is not None:
            log.info("log_writing_again", was=self.fault)
            self.fault = None
            self._backoff.reset()
        assert self._parts.popleft() is part, "one part after the other"
        self.store_seconds.add(seconds)
        self.longest_store_us = max(self.longest_store_us, round(seconds * 1_000_000))
        count = len(part.intakes)
        self.commit_seconds.add(trio.current_time() - self._oldest_since, count)
        self._published += count
        self.queued_bytes -= part.bodies + count * RECORD_OVERHEAD_BYTES
