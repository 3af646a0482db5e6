"""Which events are known already: recent ones in memory, older ones from the log. Pure.

Nothing here is decided by time stamps alone: a copy that is remembered is recognised whatever it
and its first copy were stamped. Time only decides when the log must be asked as well.
"""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from turbod.cursor import SECOND_US

SPAN_US: Final = 600 * SECOND_US
# Two copies of one event are stamped by two hosts. Seconds apart, where both keep up; a host that
# is late by more than this and stamps when it sends is met by what is in memory, not by the log.
SKEW_US: Final = 900 * SECOND_US
# An event needs those that SKEW_US on either side touch; two hosts may replay apart.
LEAST_SPANS: Final = 2 * (2 * SKEW_US // SPAN_US + 1)
MAX_SPANS: Final = 128  # empty ones as well: each is looked into for every old event
_LEAST_SLOTS: Final = 1024


class Table:
    """A set of 64-bit integers in one flat array, for at most `capacity` of them.

    Open addressing, linear probing, never more than half full: 16 to 32 bytes an entry where a
    Python set takes 60 to 100. 0.3 us a question at a million entries.
    """

    __slots__ = ("_mask", "_slots", "capacity", "count")

    def __init__(self, capacity: int) -> None:
        size = max(_LEAST_SLOTS, 1 << (2 * capacity - 1).bit_length())
        self._slots = array("q", bytes(8 * size))
        self._mask = size - 1
        self.capacity = capacity
        self.count = 0

    def has(self, identity: int) -> bool:
        """Tell whether it was added. No `__contains__`: Python calls that by a detour."""
        slots, mask = self._slots, self._mask
        at = identity & mask
        while found := slots[at]:
            if found == identity:
                return True
            at = (at + 1) & mask
        return False

    def add(self, identity: int) -> bool:
        """Add it; False where it was there. Zero, the empty slot, must have been mapped away."""
        slots, mask = self._slots, self._mask
        at = identity & mask
        while found := slots[at]:
            if found == identity:
                return False
            at = (at + 1) & mask
        assert self.count < self.capacity, "a full table is put aside before it is added to"
        slots[at] = identity
        self.count += 1
        return True


class Identities:
    """What was seen, bounded: the newest `limit / 2` to `limit` events, and spans of the log.

    Two tables take turns: when the newer is full the older is forgotten. What is forgotten is in
    the log; `edge_us` tells from which time on memory is complete, and spans of the log are lent
    (`lend`) where an event older than that is met. A span is SPAN_US of cursors.

    The span asked for is found by the event's own time, give or take SKEW_US, because the logged
    copy's cursor is about its time: a copy that was logged much later than its time was logged
    while this process ran or shortly before it started, and that is in memory.

    Attributes:
        edge_us: events stamped later than this need no look into the log.
    """

    def __init__(self, *, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._limit = limit
        self._newer = Table(self._half)
        self._older = Table(self._half)
        self._older_until = 0
        self._newest = 0
        self._complete_above = 0
        self.edge_us = -1
        self._spans: OrderedDict[int, tuple[int, array[int]]] = OrderedDict()
        self._lent = 0

    def __len__(self) -> int:
        """Return how many identities are in memory."""
        return self._newer.count + self._older.count + self._lent

    def complete_above(self, cursor: int) -> None:
        """Say that everything logged above this cursor has been remembered."""
        self._complete_above = cursor
        self.edge_us = cursor + SKEW_US if cursor else -1

    def known(self, identity: int, time_us: int) -> bool:
        """Tell whether this event was seen. Call `missing_spans` first where it is old."""
        identity = identity or 1
        if self._newer.has(identity) or self._older.has(identity):
            return True
        return time_us <= self.edge_us and self._is_lent(identity)

    def remember(self, identity: int, *, time_us: int, logged_until: int) -> bool:
        """Take an event as seen; False where it is known already. As for `known`, lend first.

        Args:
            identity: the event's.
            time_us: the event's own stamp.
            logged_until: about the greatest cursor that it may be logged under by now.
        """
        identity, newer = identity or 1, self._newer
        if self._older.has(identity) or (time_us <= self.edge_us and self._is_lent(identity)):
            return False
        if newer.count >= newer.capacity:
            if newer.has(identity):
                return False
            self._turn()
            newer = self._newer
        if not newer.add(identity):
            return False
        if logged_until > self._newest:  # noqa: PLR1730 - every event's, and max takes four times
            self._newest = logged_until
        return True

    def missing_spans(self, time_us: int, *, floor: int, head: int) -> list[tuple[int, int]]:
        """Return the spans of the log, as (after, until), that must be lent for an event this old.

        Args:
            time_us: the event's own stamp.
            floor: below and at it the log keeps nothing.
            head: the newest cursor in the log.
        """
        if time_us > self.edge_us:
            return []
        until = min(time_us + SKEW_US, self._complete_above, head)
        first = max(time_us - SKEW_US, floor) // SPAN_US
        missing = []
        for span in range(first, until // SPAN_US + 1):
            needed = min((span + 1) * SPAN_US, self._complete_above, head)
            held = self._spans.get(span)
            if held is not None and held[0] >= needed:
                self._spans.move_to_end(span)
            elif needed > max(span * SPAN_US, floor):
                missing.append((max(span * SPAN_US, floor), min((span + 1) * SPAN_US, head)))
        return missing

    def lend(self, after: int, until: int, identities: Iterable[int]) -> None:
        """Take what the log holds in a span that `missing_spans` named; the longest unused goes.

        What the newest LEAST_SPANS hold may pass the limit: else one event's would put one another
        out, and its copy in the log would not be found.
        """
        span = after // SPAN_US
        held = self._spans.pop(span, None)
        if held is not None:
            self._lent -= len(held[1])
        ordered = array("q", sorted(identities))
        self._spans[span] = (until, ordered)
        self._lent += len(ordered)
        while len(self._spans) > (LEAST_SPANS if self._lent > self._limit else MAX_SPANS):
            _, (_, dropped) = self._spans.popitem(last=False)
            self._lent -= len(dropped)

    def _is_lent(self, identity: int) -> bool:
        for _, ordered in self._spans.values():
            at = bisect_left(ordered, identity)
            if at < len(ordered) and ordered[at] == identity:
                return True
        return False

    def _turn(self) -> None:
        if self._older.count:
            self.complete_above(max(self._older_until, self._complete_above))
        self._older, self._older_until = self._newer, self._newest
        self._newer = Table(self._half)
