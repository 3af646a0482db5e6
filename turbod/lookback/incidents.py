"""What went wrong lately, from when to when; what comes back soon is the same again. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec

KEPT: Final = 100
SAME_AGAIN_US: Final = 120_000_000  # what flaps is one incident, not a hundred
MAX_WORDS: Final = 500  # characters


class Incident(msgspec.Struct):
    """One fault.

    Attributes:
        what: which one: two of these are never under way at once.
        words: for people, as they were last.
        began: microseconds since the epoch.
        ended: the same, None while it lasts.
        times: how often it came, where it came again soon.
    """

    what: str
    words: str
    began: int
    ended: int | None = None
    times: int = 1


class Incidents:
    """The last KEPT, in the order in which they began; what lasts is kept before what is over."""

    def __init__(self) -> None:
        self._kept: list[Incident] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._kept)

    def newest_first(self) -> list[Incident]:
        """Return all of them."""
        return list(reversed(self._kept))

    def look(self, faults: Mapping[str, str], *, now_us: int) -> None:
        """Take note of all faults that there are now: those that are not among them have ended."""
        for incident in self._kept:
            if incident.ended is None and incident.what not in faults:
                incident.ended = now_us
        for what, words in faults.items():
            self._note(what, words, now_us).ended = None

    def happened(self, what: str, words: str, *, now_us: int) -> None:
        """Take note of what has no duration."""
        self._note(what, words, now_us).ended = now_us

    def _note(self, what: str, words: str, now_us: int) -> Incident:
        """Return the incident that this belongs to, a new one where none is recent."""
        last = next((each for each in reversed(self._kept) if each.what == what), None)
        if last is None or (last.ended is not None and now_us - last.ended > SAME_AGAIN_US):
            last = Incident(what, "", now_us)
            self._append(last)
        elif last.ended is not None:
            last.times += 1
        last.words = words[:MAX_WORDS]
        return last

    def _append(self, incident: Incident) -> None:
        if len(self._kept) == KEPT:
            over = (at for at, each in enumerate(self._kept) if each.ended is not None)
            del self._kept[next(over, 0)]
        self._kept.append(incident)
