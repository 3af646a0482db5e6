"""Both streams' figures, as they come, and as a report at any moment. Pure."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from turbod.compare.delays import Delays
from turbod.compare.order import Order
from turbod.compare.pairing import MAX_COLLECTIONS, MAX_REMEMBERED, Pair, Pairing, count
from turbod.compare.seen import Seen, of_line, of_message
from turbod.envelope import Malformed

# Hosts stamp an event when they get it, and a turbod has the stamps of several.
SETTLE_SECONDS: Final = 5.0
RATE_SECONDS: Final = 10
LATE_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 10.0
NAMES: Final = ("A", "B")


class Hydration(msgspec.Struct, frozen=True):
    """A turbod's views.

    Attributes:
        views: that its records have.
        unresolved: DIDs and URIs that the AppView could not be asked about.
        poorer: records that have fewer views, or more unresolved, than the other turbod's.
    """

    views: int
    unresolved: int
    poorer: int


class StreamReport(msgspec.Struct, frozen=True):
    """One stream's figures since the beginning.

    Attributes:
        kind: turbod or jetstream.
        silent_seconds: since its last event, while it is connected.
        missed_meanwhile: events that the other brought in that time.
        seconds_behind_median: how much later than the other it brings an event that both have;
            below 0 where it is the first, None where nothing was compared.
        seconds_behind_p99: which 99 in 100 do not exceed.
        first: share of the compared events that it brought first.
        late: share of them that it brought more than 2 s after the other.
        missing: events that only the other has.
        missing_by_collection: the same, most frequent first.
        missing_examples: some of them.
        absent_collections: those of which it has nothing, and the other does.
        brought_after_window: events that were missing for a time.
        duplicates: events that came once more; not those read again after a reconnect.
        cursors_fallen: events whose cursor, of a turbod or a v2 host, is not above the one before.
        revs_fallen: commits that came after a newer one of their account.
        unreadable: messages that are no events.
        gaps: gaps that a turbod told.
        hydration: None for a plain Jetstream.
    """

    name: str
    url: str
    kind: str
    is_connected: bool
    connects: int
    last_error: str | None
    events: int
    events_per_second: float
    bytes_per_second: float
    silent_seconds: float
    missed_meanwhile: int
    seconds_behind_median: float | None
    seconds_behind_p99: float | None
    first: float | None
    late: float
    missing: int
    missing_by_collection: dict[str, int]
    missing_examples: tuple[str, ...]
    absent_collections: tuple[str, ...]
    brought_after_window: int
    duplicates: int
    cursors_fallen: int
    revs_fallen: int
    unreadable: int
    gaps: int
    hydration: Hydration | None


class Report(msgspec.Struct, frozen=True):
    """The comparison as of now.

    Attributes:
        seconds: since both were connected.
        pairs: events that both have.
        pending: events that one has and the other may still bring in time.
        forgotten: events that were too many to be waited for.
    """

    seconds: float
    pairs: int
    pending: int
    forgotten: int
    streams: tuple[StreamReport, StreamReport]


class Side:
    """One stream's counters; `streams` keeps those of the connection."""

    def __init__(self, url: str, kind: str) -> None:
        self.url = url
        self.kind = kind
        self.is_connected = False
        self.connects = self.gaps = 0
        self.last_error: str | None = None
        self.connected_at = self.heard_at = 0.0
        self.events = self.bytes = self.duplicates = self.unreadable = 0
        self.missed_meanwhile = self.views = self.unresolved = self.poorer = 0
        self.order = Order()
        self.delays = Delays()
        self.collections: Counter[str] = Counter()
        self.history: deque[tuple[float, int, int]] = deque(maxlen=RATE_SECONDS + 1)
        self.read: Callable[[bytes], Seen] = of_line if kind == "turbod" else of_message

    def connected(self, now: float) -> None:
        """Take note of a new connection."""
        self.is_connected = True
        self.connects += 1
        self.connected_at = self.heard_at = now
        self.missed_meanwhile = 0

    def disconnected(self, error: str) -> None:
        """Take note of its end."""
        self.is_connected = False
        self.last_error = error


class Comparison:
    """Two streams, each event of theirs in the order in which it arrived here."""

    def __init__(
        self,
        sides: Sequence[Side],
        *,
        window_seconds: float,
        settle_seconds: float,
        limit: int = MAX_REMEMBERED,
    ) -> None:
        self.sides = tuple(sides)
        self.window_seconds = window_seconds
        self.settle_seconds = settle_seconds
        self.pairing = Pairing(
            window_seconds=window_seconds, settle_seconds=settle_seconds, limit=limit
        )
        self._began_at: float | None = None
        self._closed_at: float | None = None

    def take(
        self, which: int, messages: Iterable[bytes], now: float, *, repeats_until_us: int = 0
    ) -> Seen | None:
        """Take what one stream brought, and return the last event of it.

        Args:
            which: 0 or 1.
            messages: events or records, as bytes.
            now: when they came; never falls.
            repeats_until_us: events stamped up to here may have come before, from this stream.
        """
        side, seen = self.sides[which], None
        for message in messages:
            side.bytes += len(message)
            try:
                seen = side.read(message)
            except Malformed:
                side.unreadable += 1
                continue
            self._add(which, seen, now, may_repeat=seen.time_us <= repeats_until_us)
        return seen

    def tick(self, now: float) -> None:
        """Be called once a second."""
        self.pairing.judge(now)
        if self._closed_at is None:
            for side in self.sides:
                side.history.append((now, side.events, side.bytes))

    def close(self, now: float) -> None:
        """Take no new events from now on, but wait for the other copies of those that came."""
        self._closed_at = now
        self.pairing.close()

    def begin(self, now: float) -> None:
        """Say that both streams are connected for the first time."""
        self._began_at = now

    def ends_at(self, seconds: float) -> float:
        """Return when so many seconds of events will have been compared.

        Where nothing is common to both, that is waited for as long as for a single event, and
        long enough to tell who is silent.
        """
        assert self._began_at is not None, "both are connected"
        if self.pairing.pairs:
            return self.pairing.expected_from + seconds
        patience = max(seconds, self.window_seconds, SILENT_SECONDS)
        return self._began_at + self.settle_seconds + patience

    def report(self, now: float) -> Report:
        """Return the figures as of now."""
        pairing = self.pairing
        return Report(
            seconds=0.0 if self._began_at is None else round(now - self._began_at, 1),
            pairs=pairing.pairs,
            pending=pairing.pending,
            forgotten=pairing.forgotten,
            streams=(self._stream(0, now), self._stream(1, now)),
        )

    def _add(self, which: int, seen: Seen, now: float, *, may_repeat: bool) -> None:
        found = self.pairing.add(which, seen, now)
        side, other = self.sides[which], self.sides[1 - which]
        side.heard_at, side.missed_meanwhile = now, 0
        if found is False:
            side.duplicates += not may_repeat
            return
        if self._closed_at is not None and found is True:
            return
        side.events += 1
        other.missed_meanwhile += 1
        side.views += seen.views
        side.unresolved += seen.unresolved
        side.order.add(seen)
        count(side.collections, seen.collection)
        if isinstance(found, Pair):
            self._compare(which, seen, found, now)

    def _compare(self, which: int, seen: Seen, pair: Pair, now: float) -> None:
        side, other = self.sides[which], self.sides[1 - which]
        # What was sent while we were not connected says nothing of how fast the stream is.
        if pair.arrived >= max(side.connected_at, other.connected_at):
            side.delays.add(now - pair.arrived)
            other.delays.add(pair.arrived - now)
        first = pair.first
        if side.kind == other.kind == "turbod":
            mine, its = seen.views - seen.unresolved, first.views - first.unresolved
            side.poorer += mine < its
            other.poorer += its < mine

    def _stream(self, which: int, now: float) -> StreamReport:
        side = self.sides[which]
        missed, delays = self.pairing.missed[which], side.delays
        began, events, size = side.history[0] if side.history else (now, 0, 0)
        seconds = max((self._closed_at or now) - began, 1.0)
        collections = {name: many for name, many in missed.by_collection.most_common() if many > 0}
        is_turbod = side.kind == "turbod"
        return StreamReport(
            name=NAMES[which],
            url=side.url,
            kind=side.kind,
            is_connected=side.is_connected,
            connects=side.connects,
            last_error=side.last_error,
            events=side.events,
            events_per_second=round((side.events - events) / seconds, 1),
            bytes_per_second=round((side.bytes - size) / seconds),
            silent_seconds=round(now - side.heard_at, 1) if side.is_connected else 0.0,
            missed_meanwhile=side.missed_meanwhile,
            seconds_behind_median=_rounded(delays.quantile(0.5)),
            seconds_behind_p99=_rounded(delays.quantile(0.99)),
            first=round(delays.first / delays.count, 4) if delays.count else None,
            late=delays.above(LATE_SECONDS) / delays.count if delays.count else 0.0,
            missing=missed.count,
            missing_by_collection=collections,
            missing_examples=tuple(missed.examples.values()),
            absent_collections=_absent(side.collections, collections),
            brought_after_window=missed.late,
            duplicates=side.duplicates,
            cursors_fallen=side.order.cursors_fallen,
            revs_fallen=side.order.revs_fallen,
            unreadable=side.unreadable,
            gaps=side.gaps,
            hydration=Hydration(side.views, side.unresolved, side.poorer) if is_turbod else None,
        )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _absent(has: Counter[str], misses: dict[str, int]) -> tuple[str, ...]:
    if len(has) > MAX_COLLECTIONS:  # what it has is not known by name any more
        return ()
    return tuple(name for name in misses if name not in has)
