"""Reading history for the server: many readers of objects, each at its own position."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.index import Frame, Index
from turbod.archive.format.names import Name
from turbod.archive.reading.cutting import Item, Selected, whole
from turbod.archive.reading.objects import Objects
from turbod.archive.reading.read_ahead import ReadAheadStatistics
from turbod.archive.reading.selection import Selection
from turbod.archive.stores.store import Source, StoreFault
from turbod.backoff import Backoff
from turbod.cursor import LIMIT
from turbod.eventlog.chunk import Gap, Stretch
from turbod.eventlog.reader import HistoryUnavailable, Pruned
from turbod.filter import Filter

READ_BYTES: Final = 1024 * 1024  # what one call returns, about
OBJECTS_A_CALL: Final = 24
FRAMES_A_CALL: Final = 4
CALL_SECONDS: Final = 1.0  # then a call returns as soon as its position has moved
PATIENCE_SECONDS: Final = 60.0
FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 10.0
SELECTIONS: Final = 8  # each may have 10,000 DIDs
MAX_REPORTED: Final = 1000

log = structlog.get_logger()


class Newer(Protocol):
    """The log, which has what follows the objects, as far as their readers need it."""

    @property
    def floor(self) -> int:
        """The position from which on its files have everything."""

    def in_memory(self, after: int) -> bool:
        """Tell whether its memory has everything above `after`, what objects have included."""

    def first_above(self, after: int) -> int | None:
        """Return the first cursor above `after` that it has, in memory or files, if any."""


class HistoryStatistics(msgspec.Struct, frozen=True):
    """What was read of objects since the start.

    Attributes:
        fault: what keeps the store from answering readers, in words, or None.
        damaged: objects and frames that could not be read, each counted once.
        holes: places where objects are missing, each counted once.
    """

    fault: str | None
    damaged: int
    holes: int
    frames: ReadAheadStatistics
    indexes: ReadAheadStatistics


class History:
    """Every record that lies in an object, by position. `run` must be running.

    `relist` lists the store anew, into the catalogue, and raises StoreFault where it cannot.
    `instance` is who this is, and so whose lines need not be checked again.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Source,
        *,
        read_ahead_bytes: int,
        relist: Callable[[], Awaitable[None]],
        instance: Callable[[], str] = lambda: "",
    ) -> None:
        self.catalogue = catalogue
        self.objects = Objects(
            catalogue,
            store,
            read_ahead_bytes=read_ahead_bytes,
            relist=relist,
            instance=instance,
        )
        self._selections: OrderedDict[Filter, Selection] = OrderedDict()
        self._reported: OrderedDict[tuple[Name, int | None], None] = OrderedDict()
        self._damaged = self._holes = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what readers ask for, until cancelled."""
        await self.objects.run(task_status=task_status)

    def statistics(self) -> HistoryStatistics:
        """Return the figures of this moment."""
        return HistoryStatistics(
            fault=self.objects.fault,
            damaged=self._damaged,
            holes=self._holes,
            frames=self.objects.frame_statistics(),
            indexes=self.objects.index_statistics(),
        )

    async def index(self, held: Held) -> Index:
        """Return the index of an object, one that is kept where there is one.

        Raises:
            Damaged: it is not what an object of that name has.
            StoreFault: it could not be read.
        """
        return await self.objects.index(held)

    async def read(self, after: int, chosen: Filter, *, newer: Newer) -> Stretch:
        """Return what comes next, about READ_BYTES of what is selected, and exactly that.

        Where much is left out, the position moves on though nothing was selected. It does not
        move where no object has anything above it that the log has not itself.

        Args:
            after: the position; 0 for before the oldest.
            chosen: selects.
            newer: what follows the objects.

        Raises:
            Pruned: records above `after` were dropped.
            HistoryUnavailable: the store did not answer for a minute.
        """
        patience = trio.CancelScope()
        reading = _Reading(self, after, self._selection(chosen), newer, patience)
        backoff = Backoff(first_seconds=FIRST_RETRY_SECONDS, longest_seconds=LONGEST_RETRY_SECONDS)
        why = "it did not answer"
        with heartbeat.allowing(PATIENCE_SECONDS), patience:
            while not reading.is_enough:
                try:
                    if not await reading.step():
                        break
                except StoreFault as fault:
                    if reading.has_moved:
                        break
                    why = str(fault)
                    await trio.sleep(backoff.next_seconds())
                else:
                    reading.be_patient()
        if patience.cancelled_caught and not reading.has_moved:
            raise HistoryUnavailable(f"{self.objects.url} for a minute: {why}")
        return Stretch(reading.items, reading.last)

    def count_hole(self, held: Held) -> None:
        """Count what is missing before an object, and say so, once."""
        if self._is_new((held.name, None)):
            self._holes += 1
            log.error("archive_hole", before=held.name.key, todo="put the missing hours back")

    def count_damaged(self, held: Held, frame: Frame | None, why: str) -> None:
        """Count an object, or one of its frames, that cannot be read, and say so, once."""
        if self._is_new((held.name, frame.offset if frame else -1)):
            self._damaged += 1
            log.error("archive_damaged", object=held.name.key, error=why)

    def _is_new(self, what: tuple[Name, int | None]) -> bool:
        """Tell whether something was not reported before, as far as that is remembered."""
        if what in self._reported:
            return False
        self._reported[what] = None
        if len(self._reported) > MAX_REPORTED:
            self._reported.popitem(last=False)
        return True

    def _selection(self, chosen: Filter) -> Selection:
        selection = self._selections.pop(chosen, None) or Selection(chosen)
        self._selections[chosen] = selection
        if len(self._selections) > SELECTIONS:
            self._selections.popitem(last=False)
        return selection


class _Reading:
    """One call: what was found so far, and the next step.

    Attributes:
        items: chunks and gaps, in order.
        last: the position behind them.
    """

    def __init__(
        self,
        history: History,
        after: int,
        selection: Selection,
        newer: Newer,
        patience: trio.CancelScope,
    ) -> None:
        self._history = history
        self._objects = history.objects
        self._catalogue = history.catalogue
        self._selection = selection
        self._newer = newer
        self._patience = patience
        self._after = after
        self._size = self._passed = self._frames = 0
        self._until = trio.current_time() + CALL_SECONDS
        self._entered: Name | None = None
        self.items: list[Item] = []
        self.last = after
        self.be_patient()

    @property
    def has_moved(self) -> bool:
        """Whether there is something to return."""
        return self.last > self._after

    @property
    def is_enough(self) -> bool:
        """Whether it was enough work for one call."""
        return (
            self._size >= READ_BYTES
            or self._passed >= OBJECTS_A_CALL
            or self._frames >= FRAMES_A_CALL
            or (self.has_moved and trio.current_time() >= self._until)
        )

    def be_patient(self) -> None:
        """Wait for another minute: there was an answer."""
        heartbeat.beat()
        self._patience.deadline = trio.current_time() + PATIENCE_SECONDS

    async def step(self) -> bool:
        """Read a frame or pass an object; False where this call has nothing more to find.

        Raises:
            Pruned: records above the position were dropped.
            StoreFault: the store did not answer; nothing has changed.
        """
        catalogue = self._catalogue
        if not self.last and catalogue.is_listed:
            self.last = self._after = catalogue.floor
        held = catalogue.after(self.last)
        if held is None or held.name.last > self._newer.floor:
            return self._wait_for_listing()
        try:
            index = await self._objects.index(held)
        except Damaged as error:
            return self._miss(held, [], [], str(error))
        if held.name != self._entered:  # the first time that it answered, not at each retry
            self._entered = held.name
            self.be_patient()
        if index.previous <= self.last:
            return await self._enter(held, index, [])
        if not catalogue.is_listed:
            return self._wait_for_listing()
        if catalogue.floor > self.last:
            if self.has_moved:
                return False
            raise Pruned(f"{self.last} is no longer retained: {held.name.key} is the oldest")
        self._history.count_hole(held)
        hole = Gap(self.last, index.first, f"{held.name.key}: hours before it are missing")
        return await self._enter(held, index, [hole])

    def _wait_for_listing(self) -> bool:
        """Return False where the store was listed, or there is something to return already."""
        if not self._catalogue.is_listed and not self.has_moved:
            raise StoreFault("it was not listed yet")
        return False

    async def _enter(self, held: Held, index: Index, gaps: list[Gap]) -> bool:
        """Go on in an object, where `gaps` stand before it."""
        name, frames = held.name, index.frames
        number = await self._objects.next_frame(index, self.last, self._selection)
        if number is None:
            self.items += [*gaps, *_gaps(index, after=self.last)]
            self.last = name.last
            self._passed += 1
            await self._objects.begin(held, index, name.last, self._selection)
            return True
        if number:
            gaps = [*gaps, *_gaps(index, after=self.last, until=frames[number - 1].last)]
        try:
            selected = await self._read(held, index, number)
        except Damaged as error:
            return self._miss(held, frames[number:], gaps, str(error))
        self.items += [*gaps, *selected.items]
        self.last = selected.last
        self._size += selected.size
        self._frames += 1
        if self.last >= name.last:
            self.items += _gaps(index, after=name.last)
        return True

    async def _read(self, held: Held, index: Index, number: int) -> Selected:
        name, last = held.name, index.frames[number].last
        await self._objects.begin(held, index, last, self._selection)
        chunks = await self._objects.frame(name, index, number)
        room = READ_BYTES - self._size
        if self._selection.is_everything:
            selected = whole(chunks, self.last, max_bytes=room)
        else:
            selected = await self._objects.select(
                chunks, self.last, self._selection, max_bytes=room
            )
        if selected.last >= last:
            self._objects.finished(name, number)
        return selected

    def _miss(self, held: Held, frames: Sequence[Frame], gaps: list[Gap], why: str) -> bool:
        """Put a gap in the place of the first of these frames, of the whole object without any.

        It ends with the next record that is there. False where memory has what cannot be read.
        """
        if self._newer.in_memory(self.last):
            return False
        self._history.count_damaged(held, frames[0] if frames else None, why)
        behind = self._catalogue.after(held.name.last)
        following = frames[1].first if len(frames) > 1 else behind.name.first if behind else LIMIT
        before = min(following, self._newer.first_above(self.last) or LIMIT)
        if before == LIMIT:
            before = held.name.end
        self.items += [*gaps, Gap(self.last, before, f"{held.name.key}: {why}")]
        self.last = min(frames[0].last if frames else held.name.last, before - 1)
        self._passed += 1
        return True


def _gaps(index: Index, *, after: int, until: int = LIMIT) -> list[Gap]:
    return [gap for gap in index.gaps if after < gap.before <= until]
