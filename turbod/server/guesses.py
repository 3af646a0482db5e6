"""How many wrong tokens came from which address in a minute. Pure."""

from collections import OrderedDict
from typing import Final

import msgspec

WINDOW_SECONDS: Final = 60.0
MAX_ADDRESSES: Final = 10_000  # some 2 MB; then the oldest are forgotten


class _Window(msgspec.Struct):
    """A minute of one address, from its first wrong token on."""

    ends_at: float
    count: int


class Guesses:
    """Counts wrong tokens, by address.

    Attributes:
        total: since the start.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[str, _Window] = OrderedDict()  # by when they end
        self.total = 0

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._windows)

    def add(self, address: str, *, now: float) -> int:
        """Count one more; return how many there were from there in its minute, this included."""
        self.total += 1
        while self._windows and next(iter(self._windows.values())).ends_at <= now:
            self._windows.popitem(last=False)
        window = self._windows.get(address)
        if window is None:
            window = self._windows[address] = _Window(now + WINDOW_SECONDS, 0)
            if len(self._windows) > MAX_ADDRESSES:
                self._windows.popitem(last=False)
        window.count += 1
        return window.count

    def seconds_left(self, address: str, *, now: float) -> float:
        """Return how long an address's minute still lasts."""
        window = self._windows.get(address)
        return 0.0 if window is None else window.ends_at - now
