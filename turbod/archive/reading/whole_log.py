"""The log as far back as it goes: objects, then the log's files, then memory, without a seam."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence

import structlog
import trio

from turbod.archive.reading.history import PATIENCE_SECONDS, History
from turbod.eventlog.chunk import Chunk, Gap, Stretch
from turbod.eventlog.log import EventLog, Watch
from turbod.eventlog.reader import HistoryUnavailable, Pruned, append_identities
from turbod.filter import EVERYTHING, Filter

log = structlog.get_logger()


class WholeLog:
    """What the server and the upstream read of the log; only the writer has another view of it."""

    def __init__(self, event_log: EventLog, history: History) -> None:
        self._log = event_log
        self._history = history
        self._catalogue = history.catalogue
        self._newer = _Newer(event_log, in_memory=self.in_memory)
        self._told_lost = 0
        self._gave_up_at = float("-inf")

    @property
    def head(self) -> int:
        """The newest cursor that was given and is on disk; 0 for an empty log."""
        return self._log.head

    @property
    def floor(self) -> int:
        """Everything above it is retained; 0 as long as the store may have what nobody knows of."""
        if not self._catalogue.is_listed and (len(self._catalogue) or self._log.lost):
            return 0
        return min(self._catalogue.floor, self._log.floor) if self._catalogue else self._log.floor

    @property
    def events_per_minute(self) -> float:
        """Smoothed over a minute."""
        return self._log.events_per_minute

    def in_memory(self, after: int) -> bool:
        """Tell whether every record above `after` is in memory."""
        if not self._log.in_memory(after):
            return False
        if after >= self._log.floor:
            return True
        # A log that was begun while the store could not be asked remembers all of itself, and
        # nothing of the objects before it.
        held, first = self._catalogue.after(after), _first_in_memory(self._log, after)
        return held is None or (first is not None and first <= held.name.last)

    def next_chunk(self, after: int) -> Chunk | None:
        """Return the first chunk that reaches above `after`, or None where `after` is the head.

        Only for positions that are in memory. The chunk may begin at or below `after`.
        """
        return self._log.next_chunk(after)

    def is_archived(self, after: int) -> bool:
        """Tell whether what follows `after` lies in an object, be it in memory too or not."""
        return self._is_in_object(after) or not self._log.retains(after)

    async def read(self, after: int, chosen: Filter) -> Stretch:
        """Return what comes next from objects or from the log's files, about 1 MiB of it.

        It holds every record that the filter takes, and may hold others. It moves on unless all
        that follows is in memory.

        Raises:
            Pruned: records above `after` are no longer retained.
            HistoryUnavailable: where they lie did not answer for a minute.
        """
        while True:
            position = after or self.floor
            if position < self.floor:
                raise Pruned(f"{after} is no longer retained: the oldest is after {self.floor}")
            if self._is_in_object(position) or not self._is_all_known(position):
                stretch = await self._history.read(position, chosen, newer=self._newer)
                if stretch.last > position or self.in_memory(position):
                    return stretch
            elif self._log.retains(position):
                try:
                    chunks = await self._log.read_chunks(position)
                except Pruned:
                    continue  # the hour was released meanwhile: there is an object now
                return Stretch([*chunks], chunks[-1].last if chunks else position)
            else:
                await trio.lowlevel.checkpoint()
                return self._pass_lost(position)

    async def read_identities(self, *, after: int, until: int) -> "array[int]":
        """Return the identities of the events above `after`, up to the cursor `until`.

        While the store does not answer, those in it are left out after a minute: an event that old
        may be logged twice then, but what is new is not held up.

        Raises:
            Pruned: records above `after` are no longer retained.
        """
        identities = array("q")
        while after < until:
            try:
                chunks, last = await self._next(after)
            except HistoryUnavailable as error:
                log.warning("identities_not_read", after=after, until=until, error=str(error))
                self._gave_up_at = trio.current_time()
                break
            if last <= after:
                break
            await trio.to_thread.run_sync(_append_above, chunks, after, until, identities)
            after = last
        return identities

    def events_behind(self, after: int) -> int | None:
        """Return how many records are above `after`, None where they are not all in memory."""
        return self._log.events_behind(after) if self.in_memory(after) else None

    def watch(self, dids: frozenset[str] | None) -> Watch:
        """Return a watch on these DIDs' events, on all where None. Close it when done."""
        return self._log.watch(dids)

    def _is_in_object(self, after: int) -> bool:
        """Tell whether what follows is in an object, of which the log's files have nothing."""
        held = self._catalogue.after(after)
        return held is not None and held.name.last <= self._log.floor

    def _is_all_known(self, after: int) -> bool:
        """Tell whether there can be no object behind this position that nobody knows of yet."""
        return self._log.retains(after) or self._catalogue.is_listed

    def _pass_lost(self, after: int) -> Stretch:
        """Go on with what the log has, where no object has what it let go."""
        following = self._newer.first_above(after) or self._log.lost + 1
        if following - 1 <= after:
            return Stretch([], after)
        if self._told_lost != self._log.lost:
            self._told_lost = self._log.lost
            log.error("archive_hole", after=after, before=following)
        gap = Gap(after, following, "the hours before it are missing from the archive")
        return Stretch([gap], following - 1)

    async def _next(self, after: int) -> tuple[Sequence[Chunk], int]:
        """Return the next chunks from wherever they are, and the position behind them."""
        if self.in_memory(after):
            await trio.lowlevel.checkpoint()
            chunk = self.next_chunk(after)
            return ([chunk], chunk.last) if chunk is not None else ([], after)
        is_away = trio.current_time() < self._gave_up_at + PATIENCE_SECONDS
        if is_away and self.is_archived(after):
            raise HistoryUnavailable("it did not answer a moment ago")
        stretch = await self.read(after, EVERYTHING)
        return [item for item in stretch.items if isinstance(item, Chunk)], stretch.last


class _Newer:
    """The log, as the readers of objects see it."""

    def __init__(self, event_log: EventLog, *, in_memory: Callable[[int], bool]) -> None:
        self._log = event_log
        self._in_memory = in_memory

    @property
    def floor(self) -> int:
        """The position from which on its files have everything."""
        return self._log.floor

    def in_memory(self, after: int) -> bool:
        """Tell whether its memory has everything above `after`, what objects have included."""
        return self._in_memory(after)

    def first_above(self, after: int) -> int | None:
        """Return the first cursor above `after` that it has, in memory or files, if any."""
        head, floor = self._log.head, self._log.floor
        if head <= after:
            return None
        known = [max(after, floor) + 1] if floor < head else []
        start = after + bisect_left(range(after, head), True, key=self._log.in_memory)
        if start < head and (first := _first_in_memory(self._log, start)) is not None:
            known.append(first)
        return min(known, default=None)


def _first_in_memory(event_log: EventLog, after: int) -> int | None:
    """Return the first cursor above a position that is in the log's memory, None at the head."""
    chunk = event_log.next_chunk(after)
    return None if chunk is None else chunk.cursor(chunk.count_until(after))


def _append_above(
    chunks: Sequence[Chunk], after: int, until: int, identities: "array[int]"
) -> None:
    """Append the identities of those above `after`, as append_identities does."""
    for chunk in chunks:
        count = chunk.count_until(after)
        if count:
            lines = [(chunk.line(index),) for index in range(count, len(chunk))]
            rest = [Chunk(lines, after=after, last=chunk.last)] if lines else []
        else:
            rest = [chunk]
        append_identities(rest, until, identities)
