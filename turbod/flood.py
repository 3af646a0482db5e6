"""Which of many log lines of one kind are written and which are only counted. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

MOST_LINES: Final = 10  # of one kind, before they are only counted
WINDOW_SECONDS: Final = 60.0  # between two summaries of one kind
MAX_KINDS: Final = 200  # that are told apart; all others together are one more

# Two lines of one event and level are of one kind where these are equal: settings and code bound
# how many there are. Files, objects and accounts are told apart by none: a thousand damaged ones
# are a flood too.
_TELLING_APART: Final = ("host", "library", "task")


class Summary(msgspec.Struct, frozen=True):
    """What was not written.

    Attributes:
        level, event, fields: of the last of these lines.
        lines: how many there were.
        seconds: since when.
    """

    level: str
    event: str
    fields: Mapping[str, Any]
    lines: int
    seconds: float


class _Kind(msgspec.Struct):
    began: float
    left: int
    lines: int = 0
    last: tuple[str, str, Mapping[str, Any]] = ("", "", {})


class Flood:
    """Lets ten lines of a kind pass, then counts; each minute there is a summary of what came.

    While they go on to come there is nothing but a line a minute. A minute in which none came ends
    it: the next ten pass again. Times are seconds of any clock that only goes forward.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def passes(self, level: str, event: str, fields: Mapping[str, Any], now: float) -> bool:
        """Tell whether a line is to be written; a summary will tell of it where not."""
        telling = (str(fields.get(name)) for name in _TELLING_APART)
        kind = self._kind((event, level, *telling), now)
        if kind.left > 0:
            kind.left -= 1
            return True
        kind.lines += 1
        kind.last = level, event, fields
        return False

    def due(self, now: float) -> list[Summary]:
        """Return the summaries of the minutes that are over."""
        summaries = []
        for key in list(self._kinds):  # a collector's finaliser may log while we go through them
            kind = self._kinds.get(key)
            if kind is None or now < kind.began + WINDOW_SECONDS:
                continue
            if kind.lines:
                summaries.append(_summary(kind, now))
                kind.began, kind.left, kind.lines = now, 0, 0
            else:
                self._kinds.pop(key, None)
        return summaries

    def rest(self, now: float) -> list[Summary]:
        """Return the summaries of all that was not told, and begin anew: it ends."""
        kinds, self._kinds = self._kinds, {}
        return [_summary(kind, now) for kind in kinds.values() if kind.lines]

    def _kind(self, key: tuple[object, ...], now: float) -> _Kind:
        if key not in self._kinds and len(self._kinds) >= MAX_KINDS:
            key = ()
        return self._kinds.setdefault(key, _Kind(began=now, left=MOST_LINES))


def _summary(kind: _Kind, now: float) -> Summary:
    return Summary(*kind.last, lines=kind.lines, seconds=now - kind.began)
