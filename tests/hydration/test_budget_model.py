"""Budget, filling and batches together against a simulated AppView, in simulated time."""

import heapq
import math
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from turbod.config import HydrationSettings
from turbod.hydration.batches import Batch
from turbod.hydration.planner import Planner
from turbod.hydration.views import Kind

HOUR = 3600.0
WALL = 1_800_000_000.0

Want = tuple[float, Kind, str]


class Limiter:
    """A server's fixed window, which begins with the first call in it, and its headers."""

    def __init__(self, limit: int, window_seconds: int, *, headers: bool) -> None:
        self.limit = limit
        self.window_seconds = window_seconds
        self.headers = headers
        self.ends_at = -1.0
        self.used = 0

    def call(self, now: float) -> tuple[bool, dict[str, str]]:
        """Count a call; tell whether it is accepted, and the headers."""
        if now >= self.ends_at:
            self.ends_at, self.used = now + self.window_seconds, 0
        self.used += 1
        said = {
            "ratelimit-limit": str(self.limit),
            "ratelimit-remaining": str(max(0, self.limit - self.used)),
            "ratelimit-reset": str(math.floor(WALL + self.ends_at)),
            "ratelimit-policy": f"{self.limit};w={self.window_seconds}",
        }
        accepted = self.used <= self.limit
        if not accepted:
            said["retry-after"] = str(math.ceil(self.ends_at - now))
        return accepted, said if self.headers else {}


class Run:
    """One planner through one stretch of traffic."""

    def __init__(
        self, wants: Iterator[Want], *, calls_per_second: float, limiter: Limiter | None = None
    ) -> None:
        settings = HydrationSettings(calls_per_second=calls_per_second)
        self.planner = Planner(settings, now=0.0)
        self.limiter = limiter
        self.calls = self.refused = 0
        self.distinct: Counter[Kind] = Counter()
        self.longest_wait = 0.0
        self.longest_fill = 0.0
        self.gave_up = 0
        self._wants = wants
        self._flying: list[tuple[float, int, Batch, float]] = []
        self.now = 0.0

    @property
    def floor(self) -> int:
        """The fewest calls that could do it."""
        return sum(math.ceil(count / 25) for count in self.distinct.values())

    def run(self) -> "Run":
        """Go through all of it."""
        upcoming = next(self._wants, None)
        while upcoming or self._flying or len(self.planner.batches):
            self._send()
            wake_at = self.planner.wake_at(self.now)
            ends_at = self._flying[0][0] if self._flying else math.inf
            self.now = max(self.now, min(upcoming[0] if upcoming else math.inf, wake_at, ends_at))
            while upcoming and upcoming[0] <= self.now:
                _, kind, key = upcoming
                self.distinct[kind] += 1
                self.planner.want(kind, key, now=self.now)
                upcoming = next(self._wants, None)
            while self._flying and self._flying[0][0] <= self.now:
                self._land(*heapq.heappop(self._flying)[2:])
        return self

    def _send(self) -> None:
        self.gave_up += len(self.planner.late(self.now))
        while batch := self.planner.next(self.now):
            self.calls += 1
            waited = self.now - min(item.wanted_at for item in batch.items)
            self.longest_wait = max(self.longest_wait, waited)
            heapq.heappush(self._flying, (self.now + 0.08, self.calls, batch, self.now))

    def _land(self, batch: Batch, sent_at: float) -> None:
        accepted, headers = self.limiter.call(self.now) if self.limiter else (True, {})
        budget = self.planner.budget
        flying = self.planner.health.flying - 1
        budget.heard(self.now, headers=headers, wall=WALL + self.now, flying=flying)
        if accepted:
            self.planner.answered(self.now)
            for item in batch.items:
                assert self.planner.batches.settle(item)
        else:
            self.refused += 1
            budget.refused(self.now, headers=headers, wall=WALL + self.now, sent_at=sent_at)
            self.planner.refused(batch, self.now)


def traffic(
    *, profiles: float, posts: float, seconds: float, seed: int = 1, shape: str = "even"
) -> Iterator[Want]:
    """Items wanted at random; `profiles` and `posts` a second on the average."""
    random = Random(seed)
    now, number = 0.0, 0
    while True:
        strength = {
            "even": 1.0,
            "cold start": 0.5 + 4.0 * math.exp(-now / (seconds / 8)),
            "bursts": 4.0 if now % 40 < 10 else 0.01,
            "clumps": 1.0,
        }[shape]
        clump = 40 if shape == "clumps" else 1
        now += random.expovariate((profiles + posts) * strength / clump)
        if now > seconds:
            return
        for _ in range(clump):
            number += 1
            kind = Kind.PROFILE if random.random() * (profiles + posts) < profiles else Kind.POST
            yield now, kind, f"{kind.name}{number}"


def floor_rate(wants: Iterator[Want], seconds: float) -> float:
    counts = Counter(kind for _, kind, _ in wants)
    return sum(math.ceil(count / 25) for count in counts.values()) / seconds


@pytest.mark.parametrize(
    ("posts", "shape", "headers", "longest_wait_seconds"),
    [
        (6.0, "even", True, 30),
        (1.0, "even", False, 60),
        (0.1, "even", True, 125),
        (1.0, "bursts", True, 300),
        (0.1, "bursts", False, 300),
        (1.0, "clumps", True, 60),
        (0.1, "clumps", False, 125),
        (1.0, "cold start", True, 750),  # what the cold start wants takes the budget that long
    ],
)
def test_at_a_third_above_the_floor_an_hour_costs_a_tenth_at_most(
    posts: float, shape: str, longest_wait_seconds: float, *, headers: bool
) -> None:
    """And nothing is refused, given up, or starves."""

    def hour() -> Iterator[Want]:
        return traffic(profiles=6.0, posts=posts, seconds=HOUR, shape=shape)

    rate = 1.3 * floor_rate(hour(), HOUR)
    limiter = Limiter(math.ceil(rate * 300), 300, headers=headers)
    run = Run(hour(), calls_per_second=10 if headers else rate, limiter=limiter).run()
    assert run.calls <= 1.1 * run.floor
    assert run.refused == 0
    assert run.gave_up == 0
    assert run.longest_wait < longest_wait_seconds


@pytest.mark.parametrize("seconds", [60, 300])
@pytest.mark.parametrize(("profiles", "posts"), [(50, 50), (12, 12), (100, 10)])
@pytest.mark.parametrize("window_seconds", [10, 300])
def test_a_short_run_costs_a_tenth_more_at_most_too(
    profiles: float, posts: float, seconds: float, window_seconds: int
) -> None:
    def run_of() -> Iterator[Want]:
        return traffic(profiles=profiles, posts=posts, seconds=seconds)

    rate = 1.3 * floor_rate(run_of(), seconds)
    limiter = Limiter(math.ceil(rate * window_seconds), window_seconds, headers=True)
    run = Run(run_of(), calls_per_second=10, limiter=limiter).run()
    assert run.calls <= 1.1 * run.floor
    assert run.refused == run.gave_up == 0


@pytest.mark.parametrize(
    ("profiles", "posts", "rate"), [(5, 5, 10), (20, 20, 10), (1, 0.1, 10), (30, 30, 50)]
)
def test_with_budget_to_spare_no_call_waits_over_a_quarter_second(
    profiles: float, posts: float, rate: float
) -> None:
    wants = traffic(profiles=profiles, posts=posts, seconds=120)
    run = Run(wants, calls_per_second=rate).run()
    assert run.longest_wait <= 0.25


def flood() -> Iterator[Want]:
    for number in range(20_000):
        kind = Kind.POST if number % 3 else Kind.PROFILE
        yield 0.0, kind, f"{kind.name}{number}"


def test_a_flood_takes_the_time_the_budget_needs_in_full_calls() -> None:
    run = Run(flood(), calls_per_second=10, limiter=Limiter(3000, 300, headers=True)).run()
    assert run.calls == run.floor
    assert run.refused == 0
    assert run.now < run.floor / 10 * 1.05


def test_a_server_slower_than_the_setting_is_found_out_by_its_refusals() -> None:
    limiter = Limiter(500, 300, headers=False)  # a sixth of what the setting says
    run = Run(flood(), calls_per_second=10, limiter=limiter).run()
    assert run.gave_up == 0
    assert run.refused < 0.05 * run.calls
    assert run.now < run.floor / (500 / 300) * 1.3
