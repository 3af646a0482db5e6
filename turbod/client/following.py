"""`follow`: records from a cursor on, one after the other, whatever servers and networks do."""

import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self, TypeVar

import msgspec
import trio

from turbod import bearer
from turbod.client.buffer import Buffer
from turbod.client.known import Known
from turbod.client.news import Progress, Status
from turbod.client.reading import Batch, Item, Reader, Server
from turbod.client.record import Record
from turbod.client.stream import BadAddress
from turbod.client.wanted import wanted
from turbod.cursor import LEAST, SECOND_US, parse
from turbod.eventlog.chunk import Gap

T = TypeVar("T")

SLOP_SECONDS: Final = 120.0
GIVE_UP_SECONDS: Final = 3600.0
REPORT_SECONDS: Final = 5.0  # between two reports of progress, and two moments to save
RECORDS_BETWEEN_CHECKPOINTS: Final = 100

# Not structlog, which unless it is told otherwise writes into a program's standard output.
log = logging.getLogger("turbod.client")


def log_gap(gap: Gap) -> None:
    """Write a gap to the log: what `follow` does where it is not told otherwise."""
    log.warning("events between %d and %d may be missing: %s", *msgspec.structs.astuple(gap))


def log_status(status: Status) -> None:
    """Write a server's state to the log: what `follow` does where it is not told otherwise."""
    level = logging.WARNING if status.is_stuck else logging.INFO
    log.log(level, "%s: %s", status.server, status.words)


class Records:
    """Records in the order in which they come, without end; made by `follow`.

    Attributes:
        cursor: what to save, and to give to `follow` the next time. It covers the record that was
            handed out last: save it when that is done with. With several servers it names the
            one that it belongs to. Empty until anything is known.
    """

    def __init__(
        self,
        buffer: Buffer[Item],
        *,
        cursor: str,
        known: Known | None,
        on_gap: Callable[[Gap], None],
        on_progress: Callable[[Progress], None] | None,
        on_status: Callable[[Status], None],
    ) -> None:
        self.cursor = cursor
        self._buffer = buffer
        self._known = known
        self._on_gap = on_gap
        self._on_progress = on_progress
        self._on_status = on_status
        self._batch: Batch | None = None
        self._records: Iterator[Record] = iter(())
        self._head = self._reached = self._count = self._reported_count = 0
        self._reported_at = self._saved_at = trio.current_time()
        self._saved = cursor

    @property
    def should_save(self) -> bool:
        """Whether it is worth saving the cursor now: True once in 5 s, where it has moved."""
        now = trio.current_time()
        if self.cursor == self._saved or now < self._saved_at + REPORT_SECONDS:
            return False
        self._saved, self._saved_at = self.cursor, now
        return True

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    @trio.lowlevel.enable_ki_protection  # Ctrl-C comes at a checkpoint, and breaks nothing in here
    async def __anext__(self) -> Record:
        """Return the next record; a checkpoint at least every 100 records.

        Cancelled, it loses nothing. What the callbacks raise comes out here.

        Raises:
            Refused: a server said no for good.
            Stuck: nothing could come for as long as `follow` was told to wait.
        """
        if self._count % RECORDS_BETWEEN_CHECKPOINTS == 0:
            await trio.lowlevel.checkpoint()
        while (record := self._next()) is None:
            if self._batch is not None:
                self._end_batch(self._batch)
            self._take(await self._buffer.take())
        self._count += 1
        return record

    def _next(self) -> Record | None:
        """Return the next record at hand that was not handed out before."""
        for record in self._records:
            if self._known is None or self._known.add(record.key, record.cursor):
                self._move_to(record.cursor)
                return record
        return None

    def _take(self, item: Item) -> None:
        if isinstance(item, Batch):
            self._batch, self._records = item, iter(item.records)
        elif isinstance(item, Gap):
            _interruptible(self._on_gap, item)
        elif isinstance(item, Status):
            _interruptible(self._on_status, item)
        else:
            self._buffer.put(item)  # for whoever asks again
            raise item

    def _end_batch(self, batch: Batch) -> None:
        self._move_to(batch.last)
        self._head = max(batch.head or self._head, batch.last)
        now = trio.current_time()
        seconds = now - self._reported_at
        if self._on_progress is not None and seconds >= REPORT_SECONDS:
            rate = (self._count - self._reported_count) / seconds
            self._reported_at, self._reported_count = now, self._count
            _interruptible(
                self._on_progress,
                Progress(self.cursor, batch.last, self._head, batch.source, batch.server, rate),
            )
        self._batch = None

    def _move_to(self, cursor: int) -> None:
        assert self._batch is not None, "a position is that of a batch"
        if self._known is None:
            self.cursor = str(cursor)
        elif cursor >= self._reached:  # else it is being caught up with what another server gave
            self._reached = cursor
            self.cursor = f"{cursor}@{self._batch.server}"


@trio.lowlevel.disable_ki_protection
def _interruptible(callback: Callable[[T], None], news: T) -> None:
    """Call what is the program's, which Ctrl-C may interrupt wherever it is."""
    callback(news)


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def follow(
    servers: str | Iterable[str],
    *,
    token: str | None = None,
    cursor: str | int | None = None,
    collections: Sequence[str] = (),
    dids: Sequence[str] = (),
    about: Sequence[str] = (),
    kinds: Sequence[str] = (),
    operations: Sequence[str] = (),
    max_bytes: int = 0,
    shard: tuple[int, int] | None = None,
    slop_seconds: float = SLOP_SECONDS,
    give_up_seconds: float | None = GIVE_UP_SECONDS,
    on_gap: Callable[[Gap], None] = log_gap,
    on_progress: Callable[[Progress], None] | None = None,
    on_status: Callable[[Status], None] = log_status,
) -> AsyncGenerator[Records, None]:
    """Read records from a cursor on: history, in parallel where the archive is public, then live.

    Used as `async with follow("wss://host") as records: async for record in records: ...`.
    Connections are made again as often as it takes. A program that is slow holds the server up;
    4 MiB wait in memory; while an archive is read it takes some 250 MB. The callbacks are called
    while `records` is asked for the next one, in their place among the records.

    Args:
        servers: one URL, or several of servers that have the same events: one is read at a time,
            and where it fails the next takes over.
        token: what the servers ask for, if they do; sent to each of them, and to nobody else.
        cursor: where to begin: what was saved, 0 for the oldest, an age as `-15m`, or an RFC 3339
            time. None or empty: from now on.
        collections: NSIDs, or prefixes ending `.*`; of commits only.
        dids: whose events.
        about: whom events concern; with `dids` either is enough.
        kinds: of commit, identity, account.
        operations: of create, update, delete.
        max_bytes: of a record; 0 for any.
        shard: (i, n) for the i-th of n parts of all DIDs.
        slop_seconds: by how much the servers' cursors of one event may differ. An event that two
            servers got further apart than that may be lost when one fails.
        give_up_seconds: how long to go on while nothing can come, from any server; None for ever.
        on_gap: told where events may be missing. Without it they are logged.
        on_progress: told every few seconds how far we are; a moment to save, in quiet times too.
        on_status: told whenever a server is lost, found again, or gets nothing itself.

    Raises:
        BadAddress: a URL is none of a turbod.
        BadToken: the token can be none.
        InvalidRequest: a filter is malformed.
        BadCursor: the cursor is none.
    """
    places = [Server(url) for url in ([servers] if isinstance(servers, str) else servers)]
    if not places:
        raise BadAddress("no server was given")
    saved = "" if cursor is None else str(cursor)
    text, _, name = saved.partition("@")
    places.sort(key=lambda place: place.name != name)  # begin with the one that it is of
    begin = parse(text, now_us=time.time_ns() // 1000) if text else None
    slop_us = int(slop_seconds * SECOND_US)
    if begin:
        begin = max(begin if name in {"", places[0].name} else begin - slop_us, LEAST)
    buffer = Buffer[Item]()
    reader = Reader(
        places,
        wanted(
            collections=collections,
            dids=dids,
            about=about,
            kinds=kinds,
            operations=operations,
            max_bytes=max_bytes,
            shard=shard,
        ),
        buffer,
        token=None if token is None else bearer.sendable(token, origin="token"),
        cursor=begin,
        slop_us=slop_us,
        give_up_seconds=math.inf if give_up_seconds is None else give_up_seconds,
    )
    records = Records(
        buffer,
        cursor=saved,
        known=Known(2 * slop_us) if len(places) > 1 else None,
        on_gap=on_gap,
        on_progress=on_progress,
        on_status=on_status,
    )
    error: BaseException | None = None  # raised again, out of the nursery's group
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.run)
            try:
                yield records
            except (Exception, SystemExit) as raised:  # noqa: BLE001 - as above
                error = raised
            nursery.cancel_scope.cancel()
    except* KeyboardInterrupt:  # in whichever task it came
        error = KeyboardInterrupt()
    if error is not None:
        raise error
