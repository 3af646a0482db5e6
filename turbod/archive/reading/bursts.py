"""Python in threads, a little at a time: so long the event loop waits for the interpreter."""

import time
from typing import Final

BURST_SECONDS: Final = 0.0005
PAUSE_SECONDS: Final = 0.0005


class Bursts:
    """Lets the event loop have the interpreter after each burst of Python."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Sleep where a burst is over."""
        if time.perf_counter() - self._since >= BURST_SECONDS:
            time.sleep(PAUSE_SECONDS)
            self._since = time.perf_counter()
