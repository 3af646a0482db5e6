"""Where a host stands: what to ask it for next, and how to tell that it goes on there.

Pure. `time_us` is always the upstream's.
"""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec.structs import replace

from turbod.cursor import LEAST, SECOND_US
from turbod.event import Event

SLOP_US: Final = 5 * SECOND_US
RECENT_EVENTS: Final = 64
ANCHORS: Final = 4
_SANE_US: Final = 600 * SECOND_US


class Position(msgspec.Struct, frozen=True):
    """How far one host's stream is dealt with; saved as JSON.

    Attributes:
        time_us: everything before it has been received from this host.
        cursor: the v2 host's own number of the first anchor, 0 where there is none. Numbers are
            a host's own: it means nothing to another.
        latest_us: about when the anchors are, by the host's own stamps: an event stamped beyond it
            comes after them. Our clock has no say in it: it may have been set back since.
        anchors: names of the last events received, the same in every process. A host that is
            asked from here on and still has them sends them again, since its cursors are
            inclusive. More than one, because a v2 host removes superseded events in time.
    """

    time_us: int
    cursor: int = 0
    latest_us: int = 0
    anchors: tuple[str, ...] = ()


def name_of(event: Event) -> str:
    """Return a short text that names this event in every process: its collection and a hash."""
    parts: tuple[object, ...]
    if event.kind == "commit":
        parts = (event.did, event.collection, event.rkey, event.rev, event.operation, event.cid)
    else:
        time = event.notice["time"] if event.notice else None
        parts = (event.did, event.kind, time)
    digest = blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()
    return f"{event.collection or event.kind}#{digest}"


def collection_of(name: str) -> str:
    """Return the collection, or the kind, of the event that a name stands for."""
    return name.partition("#")[0]


def cursor_to_ask(position: Position, now_us: int) -> int:
    """Return the `cursor` parameter that brings everything from this position on.

    A time is asked for with a few seconds before it, and never ahead of our clock: a host whose
    clock is ahead has not sent yet what it will stamp meanwhile. It is at least 16 digits, as less
    would be a v2 host's own numbers.
    """
    if position.cursor:
        return position.cursor
    return max(min(position.time_us, now_us) - SLOP_US, LEAST)


class Trail:
    """The newest events of one host, in its order, and the position that they make."""

    def __init__(self, start: Position | None) -> None:
        self._start = start
        self._recent: deque[Event] = deque(maxlen=RECENT_EVENTS)
        self.note = self._recent.append

    def position(self, now_us: int) -> Position | None:
        """Return the position behind the newest event noted, or the one it started with.

        The time is the least of the newest RECENT_EVENTS, not the newest event's: on a v2 host
        times are neither unique nor ordered, and a single event stamped an hour ahead would
        move the position past all that comes in that hour. One stamped long ago is left out, as
        it would only cost a long repeat. So the position can lie too late only where most of 64
        neighbours are stamped ahead; then the clock bounds it. While there are too few to tell
        what is odd, the time stays where it started.
        """
        if not self._recent:
            return self._start
        times = [event.time_us for event in self._recent]
        least = _sane_least(times)
        if self._start is not None and len(times) < RECENT_EVENTS // 2:
            least = min(least, self._start.time_us)
        return _position(min(least, now_us), list(self._recent)[-ANCHORS:])

    def subscribe(self, wants: Callable[[str], bool], *, now_us: int) -> None:
        """Stay here, with anchors that are sent under another subscription too.

        It may bring what was not asked for before, and what comes before the first anchor would
        be taken for a hole.
        """
        position = self.position(now_us)
        if position is None:
            return
        kept = [event for event in self._recent if wants(event.collection)][-ANCHORS:]
        if kept:
            self._start = _position(position.time_us, kept)
        elif self._recent or not all(_is_sent(name, wants) for name in position.anchors):
            self._start = replace(position, anchors=())
        self._recent.clear()


def _is_sent(name: str, wants: Callable[[str], bool]) -> bool:
    of = collection_of(name)
    return "." not in of or wants(of)  # identity and account events are always sent


def _position(time_us: int, newest: Sequence[Event]) -> Position:
    numbers = [event.upstream_cursor for event in newest]
    stamps = sorted(event.time_us for event in newest)
    return Position(
        time_us=time_us,
        cursor=min(numbers) if all(0 < number < LEAST for number in numbers) else 0,
        latest_us=stamps[(len(stamps) - 1) // 2],
        anchors=tuple(name_of(event) for event in newest),
    )


def _sane_least(times: Sequence[int]) -> int:
    ordered = sorted(times)
    middle = ordered[(len(ordered) - 1) // 2]
    return next(time for time in ordered if time >= middle - _SANE_US)
