"""Which events were handed out lately, so that another server's copies are told. Pure."""

from typing import Final

from turbod.client.record import Key

MAX_KEPT: Final = 1_000_000  # keys, some 70 bytes each


class Known:
    """Remembers what has a cursor in the last `span_us`, at least; MAX_KEPT of them at most.

    Two sets take turns: when the newer spans that much the older is forgotten.
    """

    def __init__(self, span_us: int) -> None:
        self._span_us = span_us
        self._newer: set[int] = set()
        self._older: set[int] = set()
        self._turned_at = 0

    def add(self, key: Key, cursor: int) -> bool:
        """Take an event as handed out; False where it was already."""
        if cursor > self._turned_at + self._span_us or len(self._newer) >= MAX_KEPT // 2:
            self._older, self._newer = self._newer, set()
            self._turned_at = cursor
        number = hash(key)  # 64 bits: of a million, two are alike once in 40 million times
        if number in self._newer:
            return False
        self._newer.add(number)
        return number not in self._older
