"""Which events both streams have, and which only one: found by their identities. Pure."""

import math
from collections import Counter, deque
from typing import Final

import msgspec

from turbod.compare.seen import Seen
from turbod.cursor import SECOND_US
from turbod.event import MAX_TIME_US

# The half of them, at least, that were met last; some 70 MB where all of them differ.
MAX_REMEMBERED: Final = 200_000
MAX_EXAMPLES: Final = 5
MAX_COLLECTIONS: Final = 200
ELSEWHERE: Final = "other collections"


class Waiting(msgspec.Struct, gc=False):
    """The first copy of an event.

    Attributes:
        is_expected: the other stream is to have it as well.
        is_missed: it was said to be missing there.
    """

    side: int
    arrived: float
    seen: Seen | None
    is_expected: bool
    is_missed: bool = False


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A second copy met the first.

    Attributes:
        first: the copy that came first; it came at `arrived`.
    """

    first: Seen
    arrived: float


class Missed:
    """What one stream has not brought.

    Attributes:
        count: events.
        by_collection: of which collections.
        examples: the latest of them, by identity, as URIs.
        late: how many more were counted so and came after all.
    """

    def __init__(self) -> None:
        self.count = 0
        self.late = 0
        self.by_collection: Counter[str] = Counter()
        self.examples: dict[int, str] = {}

    def add(self, seen: Seen) -> None:
        """Count an event that did not come in time."""
        self.count += 1
        count(self.by_collection, seen.collection)
        self.examples[seen.identity] = seen.uri
        if len(self.examples) > MAX_EXAMPLES:
            del self.examples[next(iter(self.examples))]

    def take_back(self, seen: Seen) -> None:
        """Count it as late: it came."""
        self.count -= 1
        self.late += 1
        known = seen.collection in self.by_collection
        self.by_collection[seen.collection if known else ELSEWHERE] -= 1
        self.examples.pop(seen.identity, None)


class Pairing:
    """Two streams' events, each met by its other copy or not.

    What one stream brings is expected of the other from `settle_seconds` after the first pair on,
    by our clock and by that stream's own stamps: whatever stands so far behind a common event in
    one stream stands behind it in the other too. So no two clocks are ever compared, and what a
    turbod held back for its views, and the other had sent before we asked it, is no loss. It is
    missing when the other has not brought it `window_seconds` later, late where it comes then.

    Attributes:
        missed: by side, what it has not brought.
        pairs: events that both have.
        pending: events that the other stream may still bring in time.
        forgotten: events that were too many to wait for; never said to be missing.
        expected_from: since when events are expected of both; infinite before the first pair.
    """

    def __init__(
        self, *, window_seconds: float, settle_seconds: float, limit: int = MAX_REMEMBERED
    ) -> None:
        self.missed = (Missed(), Missed())
        self.pairs = self.pending = self.forgotten = 0
        self.expected_from = math.inf
        self._window = window_seconds
        self._settle = settle_seconds
        self._half = max(1, limit // 2)
        self._newer: dict[int, Waiting] = {}
        self._older: dict[int, Waiting] = {}
        self._unjudged: deque[Waiting] = deque()
        self._stamped_from = [MAX_TIME_US, MAX_TIME_US]
        self._is_closed = False

    def add(self, side: int, seen: Seen, now: float) -> Pair | bool:
        """Take an event of a stream; times never fall.

        Returns:
            The pair that it completes; else whether it is the first copy of all.
        """
        self.judge(now)
        identity = seen.identity
        waiting = self._newer.get(identity) or self._older.get(identity)
        if waiting is None:
            is_behind = now >= self.expected_from and seen.time_us >= self._stamped_from[side]
            self._remember(Waiting(side, now, seen, is_behind))
            return True
        if waiting.seen is None or waiting.side == side:
            return False
        if not self.pairs:
            self._begin((waiting.seen, seen) if side else (seen, waiting.seen), now)
        return self._meet(waiting, waiting.seen)

    def close(self) -> None:
        """Expect no new events from now on: only what is pending may still come."""
        self._is_closed = True

    def judge(self, now: float) -> None:
        """Say which events are missing by now."""
        unjudged, edge = self._unjudged, now - self._window
        while unjudged and (unjudged[0].arrived <= edge or len(unjudged) > self._half):
            waiting = unjudged.popleft()
            if waiting.seen is None or not waiting.is_expected:
                continue
            self.pending -= 1
            if waiting.arrived <= edge:
                waiting.is_missed = True
                self.missed[1 - waiting.side].add(waiting.seen)
            else:
                waiting.is_expected = False
                self.forgotten += 1

    def _remember(self, waiting: Waiting) -> None:
        if self._is_closed:
            return
        assert waiting.seen is not None, "it waits for its other copy"
        if len(self._newer) >= self._half:
            self._older, self._newer = self._newer, {}
        self._newer[waiting.seen.identity] = waiting
        self._unjudged.append(waiting)
        self.pending += waiting.is_expected

    def _begin(self, copies: tuple[Seen, Seen], now: float) -> None:
        self.expected_from = now + self._settle
        settle_us = int(self._settle * SECOND_US)
        self._stamped_from = [copy.time_us + settle_us for copy in copies]

    def _meet(self, waiting: Waiting, first: Seen) -> Pair:
        waiting.seen = None
        self.pairs += 1
        if waiting.is_missed:
            self.missed[1 - waiting.side].take_back(first)
        elif waiting.is_expected:
            self.pending -= 1
        return Pair(first, waiting.arrived)


def count(counter: Counter[str], name: str) -> None:
    """Count a name, of which there are few, whoever makes them up."""
    known = name in counter or len(counter) < MAX_COLLECTIONS
    counter[name if known else ELSEWHERE] += 1
