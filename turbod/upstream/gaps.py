"""When events are missing for certain: one host's hole, and whether another host covers it. Pure.

The rule. A host that is asked to go on from a position, and still has it, sends the events of the
position (its anchors) again, because cursors are inclusive. So:

1. A host has a *hole* where an event beyond its anchors arrives before any anchor did. Asked by its
   own number, any other event is beyond; asked by time, an event stamped later than the anchors is,
   if it is new, or if it is known but a minute later (a v2 host does not order by time, so an event
   received shortly before the anchors may be stamped after them). Before a hole is believed that
   was found by number, the host is asked by time: its numbering may have begun again. No anchor
   whose collection is still subscribed: no judgement.
2. A host covers time without a break from where it began, or from behind its last hole, to its
   newest event; for good while it is connected and has shown an anchor, since a later break of it
   is judged in its own turn.
3. A host that was never read is asked from an hour before the log's last events, which are its
   anchors then. It has a hole where its very first event is beyond them.
4. A hole is a *gap* where a part of it is covered by no host and belongs to no gap told before.
   While another host may still show that it covers (it is away, or has sent nothing yet), the
   verdict waits, at most VERDICT_SECONDS, and the host with the hole is held so long: the gap is
   told before the first event behind it is taken. If the other host fills it later, its events come
   late, as any event does that one host missed.

What was received before the process started was judged then: a saved position covers all before it.
"""

import math
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

from turbod.cursor import SECOND_US
from turbod.event import Event
from turbod.upstream.position import Position, collection_of, name_of

VERDICT_SECONDS: Final = 30.0
REORDER_US: Final = 60 * SECOND_US
MAX_SPANS: Final = 64

Span = tuple[float, float]


class Seen(Enum):
    """What an event says about the position that was asked for."""

    UNSURE = 0
    REPEATED = 1
    BEYOND = 2


class Resumption:
    """One connect from a position: has the host shown yet that it goes on there?"""

    def __init__(self, position: Position, *, by_number: bool) -> None:
        self.position = position
        self.by_number = by_number
        self._anchors = frozenset(position.anchors)

    def observe(self, event: Event, *, known: bool) -> Seen:
        """Judge one event, each in the order in which the host sent them."""
        if name_of(event) in self._anchors:
            return Seen.REPEATED
        if self.by_number:
            return Seen.BEYOND
        beyond = self.position.latest_us + (REORDER_US if known else 0)
        return Seen.BEYOND if event.time_us > beyond else Seen.UNSURE


def can_judge(position: Position, subscribed: Iterable[str]) -> bool:
    """Tell whether an anchor would be sent again under this subscription."""
    return any(
        "." not in (of := collection_of(name))  # identity and account: always sent
        or any(_sends(pattern, of) for pattern in subscribed)
        for name in position.anchors
    )


def _sends(pattern: str, collection: str) -> bool:
    if pattern.endswith(".*"):
        return collection.startswith(pattern[:-1])
    return collection == pattern


class Coverage:
    """What time the hosts cover together, and so whether a hole is a gap."""

    def __init__(self, hosts: int) -> None:
        self._since: list[float | None] = [None] * hosts
        self._latest: list[float] = [0.0] * hosts
        self._following = [False] * hosts
        self._closed: list[Span] = []

    def begin(self, host: int, latest_us: int) -> None:
        """A saved position: everything up to it was received or judged by an earlier process."""
        self._since[host], self._latest[host] = 0.0, latest_us

    def follow(self, host: int, time_us: int) -> None:
        """The host goes on where it was, or begins at this time."""
        since = self._since[host]
        self._since[host] = time_us if since is None else since
        self._following[host] = True

    def leave(self, host: int, latest_us: int) -> None:
        """The host is no longer connected; this was its newest event."""
        self._latest[host] = max(self._latest[host], latest_us)
        self._following[host] = False

    def hole(self, host: int, after_us: int, before_us: int) -> None:
        """The host has nothing between the two, and goes on at the second."""
        since = self._since[host]
        if since is not None and since < after_us:
            self._close((since, after_us))
        self._since[host] = before_us
        self._latest[host] = before_us
        self._following[host] = True

    def restart(self, host: int, after_us: int, time_us: int) -> None:
        """Nothing can be said of what lies between: the host begins again at the second."""
        self.hole(host, after_us, time_us)

    def is_gap(self, host: int, after_us: int, before_us: int) -> bool | None:
        """Tell whether a hole of this host is a gap; None while another host may yet cover it."""
        left = _subtract([(after_us, before_us)], self._covered(host))
        if not left:
            return False
        others = (i for i in range(len(self._following)) if i != host)
        return True if all(self._following[i] for i in others) else None

    def told(self, after_us: int, before_us: int) -> None:
        """A gap was told: it is not told again."""
        self._close((after_us, before_us))

    def _covered(self, but: int) -> list[Span]:
        spans = list(self._closed)
        for host, since in enumerate(self._since):
            if host != but and since is not None:
                spans.append((since, math.inf if self._following[host] else self._latest[host]))
        return spans

    def _close(self, span: Span) -> None:
        self._closed.append(span)
        if len(self._closed) > MAX_SPANS:
            self._closed = _union(self._closed)[-MAX_SPANS // 2 :]


def _union(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _subtract(spans: list[Span], covered: Iterable[Span]) -> list[Span]:
    for low, high in covered:
        left: list[Span] = []
        for start, end in spans:
            if low <= start and end <= high:
                continue
            if high <= start or end <= low:
                left.append((start, end))
                continue
            if start < low:
                left.append((start, low))
            if high < end:
                left.append((high, end))
        spans = left
    return spans
