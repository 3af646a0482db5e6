"""Which call goes next, and when: what is wanted, the budget, filling and health together. Pure."""

import math
from collections.abc import Iterator
from typing import Final

import msgspec

from turbod.config import HydrationSettings
from turbod.hydration.batches import Batch, Batches, Item
from turbod.hydration.budget import Budget
from turbod.hydration.filling import FILL_SECONDS, MAX_ITEMS, Filling
from turbod.hydration.health import DOWN_AFTER, PROBE_SECONDS, Health
from turbod.hydration.views import Kind

CALL_SHARE: Final = 0.6  # of the deadline, so that a call that hangs leaves time for another
LONGEST_CALL_SECONDS: Final = 15.0
SHORTEST_CALL_SECONDS: Final = 0.5
_RETRIES_PER_CALL = 2  # batches kept as they are, over the calls that may be under way
_LONGEST_SLEEP_SECONDS = 1.0
_TROUBLED_SLEEP_SECONDS = 0.1


class _Choice(msgspec.Struct):
    """A call that could be made: since when its oldest item waits, and when it may go."""

    wanted_at: float
    due_at: float
    kind: Kind
    retry: Batch | None = None


class Planner:
    """Owns every item from `want` until the shell settles it.

    The shell asks `next` for calls, tells how each ended, and settles what `late` and the ends
    of calls give back.
    """

    def __init__(
        self, settings: HydrationSettings, *, now: float, budget: Budget | None = None
    ) -> None:
        self._settings = settings
        self.budget = budget or Budget(settings.calls_per_second, now=now)
        self.batches = Batches()
        self.filling = Filling()
        self.health = Health()
        self.adapt()

    def adapt(self) -> None:
        """Take up settings that have changed."""
        settings = self._settings
        self.budget.calls_per_second = settings.calls_per_second
        self.batches.most_retries = _RETRIES_PER_CALL * settings.concurrent_calls
        self.health.down_after = min(DOWN_AFTER, settings.concurrent_calls)
        self.health.probe_seconds = min(PROBE_SECONDS, settings.deadline_seconds / 2)

    def want(self, kind: Kind, key: str, *, now: float, delay_seconds: float = 0.0) -> bool:
        """Take a key in; tell whether that may change what goes next, or when."""
        if not self.batches.want(kind, key, now=now, delay_seconds=delay_seconds):
            return False
        self.filling.wanted(now)
        queue = self.batches.queue(kind)
        return delay_seconds > 0 or len(queue) == 1 or queue.full

    def is_plenty(self, now: float) -> bool:
        """Tell whether there is budget for calls that are not full."""
        return self.filling.is_plenty(now, rate=self.budget.rate(now))

    def next(self, now: float) -> Batch | None:
        """Take the call that may go now, the one with the oldest item; None where none may."""
        self.batches.ripen(now)
        if self.health.flying >= self._most_calls or self._open_at(now) > now:
            return None
        choices = [choice for choice in self._choices(now) if choice.due_at <= now]
        if not choices:
            return None
        batch = self._take(min(choices, key=_wanted_at), now)
        self.budget.spend(now)
        self.health.sent(now)
        for item in batch.items:
            item.sent_at = now if item.sent_at is None else item.sent_at
        return batch

    def wake_at(self, now: float) -> float:
        """Return when to ask `next` and `late` again, where nothing else happens before."""
        if not len(self.batches):
            return math.inf
        troubled = self.health.failures or any(self.batches.retries())
        latest = now + (_TROUBLED_SLEEP_SECONDS if troubled else _LONGEST_SLEEP_SECONDS)
        ripe_at = self.batches.ripe_at()
        if ripe_at is not None:
            latest = min(latest, ripe_at)
        if self.health.flying >= self._most_calls:
            return latest
        due_at = min((choice.due_at for choice in self._choices(now)), default=math.inf)
        return min(latest, max(due_at, self._open_at(now)))

    def call_seconds(self, batch: Batch, now: float) -> float:
        """Return how long this call may take in all."""
        longest = min(self._deadline * CALL_SHARE, LONGEST_CALL_SECONDS)
        if self.health.down:
            # The probes under way must not use up all calls, or the next comes late.
            longest = min(longest, self.health.probe_seconds * (self._most_calls - 1))
        first_sent = min(now if item.sent_at is None else item.sent_at for item in batch.items)
        left = first_sent + self._deadline - now
        shortest = min(SHORTEST_CALL_SECONDS, self._deadline)
        return max(shortest, min(longest, left))

    def answered(self, now: float) -> None:
        """Count a call that the AppView answered, well or with a 400."""
        was_down = self.health.down
        self.health.answered(now)
        self.budget.succeeded()
        if was_down:
            self.batches.forgive()

    def refused(self, batch: Batch, now: float) -> None:
        """Take back the items of a call that came too early (429); `budget` knows of it already."""
        self.health.answered(now)
        self.batches.give_back(batch)

    def failed(self, batch: Batch, now: float, *, hung: bool) -> tuple[list[Item], bool]:
        """Count a call without an answer; return what to give up, and whether it was halved."""
        self.health.failed()
        return self.batches.failed(batch, now=now, deadline_seconds=self._deadline, halve=hung)

    def abandoned(self, batch: Batch) -> None:
        """Take back the items of a call that we ended ourselves."""
        self.health.abandoned()
        self.batches.give_back(batch)

    def late(self, now: float) -> list[Item]:
        """Take what is past its deadline: asked for in vain, or not to be asked for at all.

        While the AppView answers, and only the budget is short, nothing is late.
        """
        wanted_by = None
        down_since = self.health.down_since
        if down_since is not None and self._deadline <= now - max(
            down_since, self.budget.paused_until
        ):
            wanted_by = now - self._deadline
        return self.batches.take_late(sent_by=now - self._deadline, wanted_by=wanted_by)

    @property
    def _deadline(self) -> float:
        return self._settings.deadline_seconds

    @property
    def _most_calls(self) -> int:
        return self._settings.concurrent_calls

    def _open_at(self, now: float) -> float:
        return max(self.budget.next_at(now), self.health.next_at())

    def _choices(self, now: float) -> Iterator[_Choice]:
        for retry in self.batches.retries():
            yield _Choice(retry.wanted_at, retry.not_before, retry.kind, retry)
        plenty: bool | None = None
        for kind in Kind:
            queue = self.batches.queue(kind)
            if not len(queue):
                continue
            if plenty is None:
                plenty = self.is_plenty(now)
            yield _Choice(queue.wanted_at, self._due_at(kind, now, plenty=plenty), kind)

    def _due_at(self, kind: Kind, now: float, *, plenty: bool) -> float:
        queue = self.batches.queue(kind)
        if queue.full:
            return -math.inf
        if self.health.failures:
            return queue.wanted_at + FILL_SECONDS  # only a call tells whether it is back
        return queue.wanted_at + self.filling.patience_seconds(
            min(len(queue), MAX_ITEMS), now=now, plenty=plenty
        )

    def _take(self, choice: _Choice, now: float) -> Batch:
        if choice.retry is not None:
            self.batches.take_retry(choice.retry)
            return choice.retry
        full = self.batches.queue(choice.kind).full
        batch = self.batches.take(choice.kind)
        self.filling.went(len(batch.items), full=full, plenty=self.is_plenty(now))
        return batch


def _wanted_at(choice: _Choice) -> float:
    return choice.wanted_at
