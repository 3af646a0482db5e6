"""Who waits for news of which DIDs, and how they are woken."""

import trio

from turbod.eventlog.chunk import Chunk


class Watches:
    """All watches on one log. Those for anything share one place to wait."""

    def __init__(self) -> None:
        self.published = 0
        self.everyone = trio.lowlevel.ParkingLot()
        self.choosy: dict[Watch, None] = {}  # in order, so that runs repeat
        self.open: set[Watch] = set()

    def add(self, dids: frozenset[str] | None) -> "Watch":
        """Return a new watch; it must be closed."""
        watch = Watch(self, dids)
        self.open.add(watch)
        return watch

    def publish(self, chunk: Chunk) -> None:
        """Wake whom a chunk may concern."""
        self.published += 1
        self.everyone.unpark_all()
        dids = chunk.dids
        for watch in self.choosy:
            if not watch.has_news and (dids is None or not dids.isdisjoint(watch.dids)):
                watch.wake()


class Watch:
    """One subscriber's: tells when something was published that may match.

    Attributes:
        dids: whose events are waited for; empty where all are.
        has_news: whether something came since the last wait, for a watch on some DIDs.
    """

    def __init__(self, watches: Watches, dids: frozenset[str] | None) -> None:
        self._watches = watches
        self._seen = watches.published
        self._lot = trio.lowlevel.ParkingLot()
        self._anything = True
        self.has_news = False
        self.dids: frozenset[str] = frozenset()
        self._set(dids)

    async def wait(self) -> None:
        """Return once there is news since the last wait, at once where there is some already."""
        if self._is_news():
            await trio.lowlevel.checkpoint()
        while not self._is_news():
            await (self._watches.everyone if self._anything else self._lot).park()
        self._seen = self._watches.published
        self.has_news = False

    def wake(self) -> None:
        """Note that there is news."""
        self.has_news = True
        self._lot.unpark()

    def change(self, dids: frozenset[str] | None) -> None:
        """Wait for other DIDs from now on; counts as news, since the log was not asked for them."""
        if self._anything:
            self._watches.everyone.unpark_all()  # the others look and wait on
        self._set(dids)
        self.wake()

    def close(self) -> None:
        """Forget this watch. Closing twice is allowed."""
        self._watches.open.discard(self)
        self._watches.choosy.pop(self, None)

    def _is_news(self) -> bool:
        return self.has_news or (self._anything and self._seen != self._watches.published)

    def _set(self, dids: frozenset[str] | None) -> None:
        self._anything = dids is None
        self.dids = dids or frozenset()
        if self._anything:
            self._watches.choosy.pop(self, None)
        else:
            self._watches.choosy[self] = None
