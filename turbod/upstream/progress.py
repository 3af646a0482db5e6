"""Where each host stands, and how much of that is safe on disk. Pure."""

from collections.abc import Callable, Iterable, Sequence

from turbod.upstream.low_water import LowWater
from turbod.upstream.position import Position, Trail


class Progress:
    """The hosts' trails, and of each the newest position that may be saved.

    One candidate a host: it may be saved when all intake numbers given before it was made are done
    with. It covers what the host had sent until then, because each such event was given a number by
    then, or is a copy of one that was, or is not for the log.

    Attributes:
        trails: where each host stands now, to go on from in this process.
        savable: per host, what may be saved.
        record_awaited: a gap was told that is not on disk: it is written with the next record.
    """

    def __init__(self, positions: Sequence[Position | None], *, now_us: Callable[[], int]) -> None:
        self.trails = tuple(Trail(position) for position in positions)
        self.savable = list(positions)
        self._candidates: list[tuple[int, Position] | None] = [None] * len(positions)
        self._low_water = LowWater()
        self._held_until = 0
        self.record_awaited = False
        self._now_us = now_us

    def position(self, host: int) -> Position | None:
        """Return where this host stands now."""
        return self.trails[host].position(self._now_us())

    def subscribe(self, wants: Callable[[str], bool]) -> None:
        """Let every host be told by what it goes on sending."""
        for trail in self.trails:
            trail.subscribe(wants, now_us=self._now_us())

    def done(self, intakes: Iterable[int]) -> None:
        """Take these as on disk, or not for the log."""
        self._low_water.done(intakes)

    def gap_told(self) -> None:
        """Save nothing new until an event for the log, taken from now on, is done with."""
        self.record_awaited = True

    def record_taken(self, intake: int) -> None:
        """Take note of the first event for the log since a gap was told."""
        self.record_awaited = False
        self._held_until = intake

    def promote(self, newest_intake: int) -> None:
        """Let candidates become savable, and make new ones: 30 us, so not for every event."""
        mark = self._low_water.mark
        if self.record_awaited or mark < self._held_until:
            return
        for host in range(len(self.trails)):
            candidate = self._candidates[host]
            if candidate is not None and candidate[0] <= mark:
                self.savable[host] = candidate[1]
                candidate = None
            if candidate is None:
                position = self.position(host)
                if position is not None and newest_intake <= mark:
                    self.savable[host] = position
                elif position is not None:
                    candidate = newest_intake, position
            self._candidates[host] = candidate
