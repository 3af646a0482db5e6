"""The low-water mark: up to which intake number everything is done. Pure."""

from collections.abc import Iterable


class LowWater:
    """Intake numbers are given 1, 2, 3, ... and done with in any order.

    Memory is bounded by how far numbers are done with ahead of the oldest that is not, which the
    bytes that may be under way bound. Telling it a number twice changes nothing.

    Attributes:
        mark: this number and all below it are done.
    """

    def __init__(self) -> None:
        self.mark = 0
        self._ahead: set[int] = set()

    def done(self, intakes: Iterable[int]) -> None:
        """Take these numbers as done; each number costs one step in all."""
        ahead = self._ahead
        mark = self.mark
        for intake in intakes:
            if intake == mark + 1:
                mark = intake
            elif intake > mark:
                ahead.add(intake)
        while ahead and mark + 1 in ahead:
            mark += 1
            ahead.remove(mark)
        self.mark = mark
