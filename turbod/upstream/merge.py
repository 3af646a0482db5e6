"""Several hosts' events into one stream: which are new, and in which order. Pure.

Live, events are taken as they arrive. While two hosts or more replay, they are taken by `time_us`,
so that the log's cursors, which are about the time of the event, stay so. Order within one host is
always its own. An event is dropped only because it is known, never because of its time.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from turbod.cursor import AHEAD_OF_CLOCK_US
from turbod.event import Event
from turbod.upstream.identities import Identities
from turbod.upstream.subscription import Subscription

# As many as one read of 64 KiB brings of the smallest events: bounds what waits for the other host.
MAX_WAITING_EVENTS: Final = 256
# So many repeats in a row and a host is no longer waited for: it brings nothing new.
MAX_REPEATS: Final = 500

Take = Callable[[Event, int, bool], None]


class Verdict(IntEnum):
    """What became of an event. Integers, since an Enum's hash is a call for every event."""

    ACCEPTED = 0
    FEEDS_CACHE = 1
    DUPLICATE = 2
    UNWANTED = 3


# By these names, as each look into an Enum's class takes as long as a call.
_ACCEPTED, _FEEDS_CACHE, _DUPLICATE, _UNWANTED = Verdict


class Merge:
    """Gives each new event its intake number and hands it on.

    Attributes:
        subscription: what is for the log, and what is wanted at all.
        intake: the newest intake number given; the first is 1.
        logged: how many of the events handed on were for the log.
    """

    def __init__(
        self,
        *,
        subscription: Subscription,
        identities: Identities,
        take: Take,
        now_us: Callable[[], int],
    ) -> None:
        self.subscription = subscription
        self._identities = identities
        self._take = take
        self._now_us = now_us
        self._latest_us = 0  # what nothing can be logged under yet, some time ago
        self.intake = 0
        self.logged = 0

    def accept(self, event: Event) -> Verdict:
        """Hand the event on where it is new."""
        time_us, logged = event.time_us, self.subscription.logged(event.collection)
        if logged is None:
            return _UNWANTED
        until = time_us
        if time_us > self._latest_us:  # every few seconds: to ask the clock each time costs more
            self._latest_us = self._now_us() + AHEAD_OF_CLOCK_US
            until = min(time_us, self._latest_us)
        if not self._identities.remember(event.identity, time_us=time_us, logged_until=until):
            return _DUPLICATE
        self.intake += 1
        self._take(event, self.intake, logged)
        if logged:
            self.logged += 1
            return _ACCEPTED
        return _FEEDS_CACHE


class TimeOrder:
    """Bounded buffers, one a host, emptied by the least time of their heads.

    A host is waited for while it replays, brings something new (MAX_REPEATS), and was not excused:
    the shell excuses one that delivered nothing for a second, until it delivers again. Fewer than
    two such hosts: nobody is waited for, and the shell need not come by here at all.

    Attributes:
        active: whether two hosts or more are waited for.
        waiting: how many events are in the buffers.
    """

    def __init__(self, hosts: int) -> None:
        self._buffers: list[deque[tuple[Event, bool]]] = [deque() for _ in range(hosts)]
        self._replaying = [False] * hosts
        self._excused = [False] * hosts
        self._repeats = [0] * hosts
        self.active = False
        self.waiting = 0

    def replay(self, host: int) -> None:
        """The host begins to replay."""
        self._replaying[host] = True
        self._excused[host] = False
        self._repeats[host] = 0
        self._look()

    def live(self, host: int) -> None:
        """The host has nothing older left to send."""
        self._replaying[host] = False
        self._look()

    def leave(self, host: int) -> None:
        """The host is gone: what it has in its buffer it will send again."""
        self.waiting -= len(self._buffers[host])
        self._buffers[host].clear()
        self.live(host)

    def excuse(self, host: int) -> None:
        """Do not wait for this host until it delivers again."""
        if not self._buffers[host]:
            self._excused[host] = True
            self._look()

    def push(self, host: int, event: Event, *, moves_on: bool) -> None:
        """Put the host's next event at the end of its buffer.

        Args:
            host: whose event it is.
            event: as received.
            moves_on: handed back by `pop`: whether the host's position moves with it.
        """
        self._buffers[host].append((event, moves_on))
        self.waiting += 1
        if self._excused[host]:
            self._excused[host] = False
            self._look()

    def is_full(self, host: int) -> bool:
        """Tell whether the host has to be held."""
        return len(self._buffers[host]) >= MAX_WAITING_EVENTS

    def pop(self) -> tuple[int, Event, bool] | None:
        """Return the next event's host, it, and `moves_on`; None where a host must be heard."""
        if not self.waiting:
            return None
        least = -1
        for host, buffer in enumerate(self._buffers):
            if not buffer:
                if self.active and self._is_waited_for(host):
                    return None
            elif least < 0 or buffer[0][0].time_us < self._buffers[least][0][0].time_us:
                least = host
        self.waiting -= 1
        return (least, *self._buffers[least].popleft())

    def told(self, host: int, verdict: Verdict) -> None:
        """Say what became of the event that `pop` gave."""
        if verdict is not Verdict.DUPLICATE:
            if self._repeats[host]:
                self._repeats[host] = 0
                self._look()
        else:
            self._repeats[host] += 1
            if self._repeats[host] == MAX_REPEATS:
                self._look()

    def _is_waited_for(self, host: int) -> bool:
        return (
            self._replaying[host] and not self._excused[host] and self._repeats[host] < MAX_REPEATS
        )

    def _look(self) -> None:
        hosts = range(len(self._buffers))
        self.active = sum(self._is_waited_for(host) for host in hosts) > 1
