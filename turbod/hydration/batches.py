"""Everything wanted and not yet answered, and which of it makes the next call. Pure."""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import chain
from typing import Final
from urllib.parse import quote

import msgspec

from turbod.hydration.filling import MAX_ITEMS
from turbod.hydration.views import Kind

MAX_URL_BYTES: Final = 6500  # Node refuses heads above 16 KB, many proxies above 8
HURRIED_SECONDS: Final = 0.05  # before the first retry: often only a connection had gone stale
HALF_SECONDS: Final = 0.1
LONGEST_RETRY_SECONDS: Final = 1.0


class Outcome(Enum):
    """What became of something wanted."""

    FOUND = "found"
    MISSING = "missing"  # the AppView answered, without it
    UNRESOLVED = "unresolved"  # it could not be asked in time


class Item(msgspec.Struct, eq=False):
    """One profile or post wanted."""

    key: str
    kind: Kind
    wanted_at: float
    url_bytes: int
    sent_at: float | None = None  # first; None again after a refusal that was about the rate alone


class Batch(msgspec.Struct, eq=False):
    """The items of one call.

    Attributes:
        failures: how often just these items were asked for without an answer.
        not_before: when to ask again.
        part: of a call that went wrong; it stays apart, or the search would begin again.
    """

    kind: Kind
    items: tuple[Item, ...]
    failures: int = 0
    not_before: float = 0.0
    part: bool = False

    @property
    def wanted_at(self) -> float:
        """When the oldest was wanted."""
        return self.items[0].wanted_at

    def url_query(self) -> str:
        """Return the query of its URL: repeated keys, the only form not marked temporary."""
        name = self.kind.parameter
        return "&".join(f"{name}={quote(item.key, safe=_SAFE)}" for item in self.items)


_SAFE = ":/"  # may stand in a query as they are (RFC 3986, 3.4)


class Queue:
    """Items of one kind that wait to be asked for, oldest first."""

    def __init__(self) -> None:
        self._fresh: deque[Item] = deque()
        self._returned: deque[Item] = deque()  # asked before, through no fault of theirs in vain
        self._url_bytes = 0

    def __len__(self) -> int:
        return len(self._fresh) + len(self._returned)

    @property
    def full(self) -> bool:
        """There is enough for a call that has no empty place."""
        return _is_full(len(self), self._url_bytes)

    @property
    def wanted_at(self) -> float:
        """When the oldest was wanted. Only where there is one."""
        return min(part[0].wanted_at for part in (self._fresh, self._returned) if part)

    def add(self, item: Item) -> None:
        """Let a new item wait behind the others."""
        self._fresh.append(item)
        self._url_bytes += item.url_bytes

    def give_back(self, items: Iterable[Item]) -> None:
        """Let items that were asked before wait before all others."""
        for item in items:
            self._returned.append(item)
            self._url_bytes += item.url_bytes

    def take(self) -> tuple[Item, ...]:
        """Take the items of one call, at least one."""
        taken: list[Item] = []
        size = 0
        while len(taken) < MAX_ITEMS and len(self):
            part = self._returned or self._fresh
            size += part[0].url_bytes
            if taken and size > MAX_URL_BYTES:
                break
            taken.append(part.popleft())
        self._url_bytes -= sum(item.url_bytes for item in taken)
        return tuple(taken)

    def take_wanted_before(self, time: float) -> list[Item]:
        """Take what was wanted before `time`, however much that is."""
        old = [item for item in self._returned if item.wanted_at <= time]
        if old:
            self._returned = deque(item for item in self._returned if item.wanted_at > time)
        while self._fresh and self._fresh[0].wanted_at <= time:
            old.append(self._fresh.popleft())
        self._url_bytes -= sum(item.url_bytes for item in old)
        return old


class Batches:
    """The one pending set of all calls: each key is in it once, from `want` to `settle`."""

    def __init__(self, *, most_retries: int = 20) -> None:
        self.most_retries = most_retries
        self._pending: dict[str, Item] = {}
        self._queues = {kind: Queue() for kind in Kind}
        self._delayed: list[tuple[float, int, Item]] = []
        self._delayed_count = 0
        self._retries: list[Batch] = []

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """Items that wait for a call, whose turn may have come."""
        return sum(len(queue) for queue in self._queues.values())

    def queue(self, kind: Kind) -> Queue:
        """Return the queue of one kind."""
        return self._queues[kind]

    def want(self, kind: Kind, key: str, *, now: float, delay_seconds: float = 0.0) -> bool:
        """Take a key into the pending set; False where it is in it already."""
        if key in self._pending:
            return False
        url_bytes = len(quote(key, safe=_SAFE)) + len(kind.parameter) + 2
        item = Item(key, kind, now + delay_seconds, url_bytes)
        self._pending[key] = item
        if delay_seconds > 0:
            self._delayed_count += 1
            heapq.heappush(self._delayed, (item.wanted_at, self._delayed_count, item))
        else:
            self._queues[kind].add(item)
        return True

    def ripen(self, now: float) -> int:
        """Move what was wanted later, and is due, to its queue; return how many."""
        count = 0
        while self._delayed and self._delayed[0][0] <= now:
            item = heapq.heappop(self._delayed)[2]
            self._queues[item.kind].add(item)
            count += 1
        return count

    def ripe_at(self) -> float | None:
        """Return when `ripen` has something to do."""
        return self._delayed[0][0] if self._delayed else None

    def retries(self) -> Iterator[Batch]:
        """Yield the batches that are to be asked again as they are."""
        return iter(self._retries)

    def take(self, kind: Kind) -> Batch:
        """Take one call's items from a queue that is not empty."""
        return Batch(kind, self._queues[kind].take())

    def take_retry(self, batch: Batch) -> None:
        """Take a batch that `retries` yielded."""
        self._retries.remove(batch)

    def settle(self, item: Item) -> bool:
        """Take an item out of the pending set; False where it was settled before."""
        return self._pending.pop(item.key, None) is not None

    def give_back(self, batch: Batch) -> None:
        """Let the items of a call that came too early (429) wait again, without a mark."""
        for item in batch.items:
            item.sent_at = None
        if batch.part:
            self._retries.append(batch)
        else:
            self._queues[batch.kind].give_back(batch.items)

    def halve(self, batch: Batch, *, not_before: float, failures: int = 0) -> None:
        """Ask again in two calls, to find the item that spoils the others."""
        middle = len(batch.items) // 2
        for items in (batch.items[:middle], batch.items[middle:]):
            self._retries.append(Batch(batch.kind, items, failures, not_before, part=True))

    def failed(
        self, batch: Batch, *, now: float, deadline_seconds: float, halve: bool
    ) -> tuple[list[Item], bool]:
        """Ask again, first as it is, then in halves; return what is past its deadline.

        Args:
            batch: the items of a call that got no answer.
            now: the time.
            deadline_seconds: how long an item may be asked for in vain.
            halve: whether it may be in halves already.

        Returns:
            The items to give up, and whether the others were halved.
        """
        late = [item for item in batch.items if _is_late(item, now - deadline_seconds)]
        left = tuple(item for item in batch.items if not _is_late(item, now - deadline_seconds))
        failures = batch.failures + 1
        if not left:
            return late, False
        if len(left) > 1 and (halve or failures > 1) and len(self._retries) < self.most_retries:
            rest = msgspec.structs.replace(batch, items=left)
            self.halve(rest, not_before=now + HALF_SECONDS, failures=1)
            return late, True
        wait = min(HURRIED_SECONDS * 3 ** (min(failures, 9) - 1), LONGEST_RETRY_SECONDS)
        self._retries.append(Batch(batch.kind, left, failures, now + wait, part=batch.part))
        return late, False

    def forgive(self) -> None:
        """After an outage: let many small calls be full ones again."""
        if len(self._retries) >= self.most_retries:
            for batch in self._retries:
                self._queues[batch.kind].give_back(batch.items)
            self._retries.clear()

    def take_late(self, *, sent_by: float, wanted_by: float | None) -> list[Item]:
        """Take what was first asked for by `sent_by` in vain, or wanted by `wanted_by` at all."""
        late = [item for batch in self._retries for item in batch.items if _is_late(item, sent_by)]
        if late:
            self._retries = list(_without_late(self._retries, sent_by))
        if wanted_by is not None:
            late += self.take_waiting(wanted_by)
        return late

    def take_waiting(self, wanted_by: float) -> list[Item]:
        """Take what waits for a call and was wanted by then."""
        return list(
            chain.from_iterable(
                queue.take_wanted_before(wanted_by) for queue in self._queues.values()
            )
        )


def _is_full(items: int, url_bytes: int) -> bool:
    return items >= MAX_ITEMS or url_bytes >= MAX_URL_BYTES


def _is_late(item: Item, sent_by: float) -> bool:
    return item.sent_at is not None and item.sent_at <= sent_by


def _without_late(batches: Iterable[Batch], sent_by: float) -> Iterator[Batch]:
    for batch in batches:
        items = tuple(item for item in batch.items if not _is_late(item, sent_by))
        if items:
            yield msgspec.structs.replace(batch, items=items)
