"""What the simulated AppView answers and how often it fails. Pure."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from turbod.simulation.index import Index
from turbod.simulation.questions import POSTS, PROFILES
from turbod.simulation.views import post_view, profile_view

_CALLS_KEPT = 100_000
_LATENCY_SPREAD = 0.3  # sigma of the logarithm
_OK = "200"
_LIKE_THE_REAL_ONES: Mapping[str, float] = {
    "500": 1,
    "502": 1,
    "503": 0.5,
    "drop": 1,
    "truncated": 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that arrived."""

    path: str
    items: tuple[str, ...]
    time_us: int
    outcome: str  # "200", another status, or the name of the failure


@dataclass(slots=True, kw_only=True)
class AppViewStatistics:
    """What was asked, in all; `calls` has the newest hundred thousand."""

    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=_CALLS_KEPT))
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (path, outcome)
    items: Counter[str] = field(default_factory=Counter)  # by path
    distinct: dict[str, set[str]] = field(default_factory=lambda: {PROFILES: set(), POSTS: set()})
    open_connections: int = 0


class AppView:
    """Answers from an index, or from given bytes.

    Attributes:
        answers: DID or URI to the view's bytes, or to None for absent; goes before the index.
        only_answers: what is not in `answers` is absent, whatever the index says.
        latency_seconds: median of the wait before each answer; the answer is made before it.
        failures: name of a failure to its share of all calls. Names: an HTTP status (`500`, `503`,
            `429`, ...), `502` (an HTML body), `drop`, `truncated`, `silent`, `drip`, `empty`,
            `not_json`, `wrong_shape`.
        fail_next: failures of the very next calls, before any other; "" lets one pass.
        budget: (calls, window in seconds), as a fixed window, or None.
        budget_headers: whether RateLimit-* (and Retry-After with a 429) are sent with a budget.
        control: takes the query of `/control`, to switch faults; a ValueError is a 400.
        deduplicate_posts: answer a URI that was asked twice only once.
    """

    def __init__(self, index: Index, *, now_us: Callable[[], int], seed: int = 1) -> None:
        self.answers: dict[str, bytes | None] = {}
        self.only_answers = False
        self.latency_seconds = 0.0
        self.failures: dict[str, float] = {}
        self.fail_next: deque[str] = deque()
        self.budget: tuple[int, float] | None = None
        self.budget_headers = True
        self.deduplicate_posts = False
        self.control: Callable[[str], None] | None = None
        self.statistics = AppViewStatistics()
        self._index = index
        self._now_us = now_us
        self._random = Random(seed)  # noqa: S311 - the same seed gives the same failures
        self._window = 0.0
        self._used = 0

    def fail(self, share: float) -> None:
        """Let this share of the calls fail, in the ways that are usual."""
        whole = sum(_LIKE_THE_REAL_ONES.values())
        self.failures = {name: share * part / whole for name, part in _LIKE_THE_REAL_ONES.items()}

    def view(self, path: str, item: str) -> bytes | None:
        """Return what is answered for one item now, None for nothing."""
        if item in self.answers or self.only_answers:
            return self.answers.get(item)
        self._index.catch_up(self._now_us())
        if path == POSTS:
            return post_view(self._index, item)
        did = item if item.startswith("did:") else self._index.did_of(item)
        return None if did is None else profile_view(self._index, did)

    def body(self, path: str, items: list[str]) -> bytes:
        """Return the whole answer to one call, as of now."""
        if path == POSTS and self.deduplicate_posts:
            items = list(dict.fromkeys(items))
        views = [view for item in items if (view := self.view(path, item)) is not None]
        name = b"posts" if path == POSTS else b"profiles"
        return b'{"%b":[%b]}' % (name, b",".join(views))

    def outcome(self) -> str:
        """Draw how the next call ends: "200", or the name of a failure."""
        if self.fail_next:
            return self.fail_next.popleft() or _OK
        if not self._within_budget():
            return "429"
        draw = self._random.random()
        for name, share in self.failures.items():
            if draw < share:
                return name
            draw -= share
        return _OK

    def latency(self) -> float:
        """Draw how long the next call takes."""
        return self.latency_seconds * self._random.lognormvariate(0, _LATENCY_SPREAD)

    def note(self, path: str, items: list[str], outcome: str) -> None:
        """Count a call."""
        statistics = self.statistics
        call = Call(path=path, items=tuple(items), time_us=self._now_us(), outcome=outcome)
        statistics.calls.append(call)
        statistics.outcomes[path, outcome] += 1
        statistics.items[path] += len(items)
        statistics.distinct.setdefault(path, set()).update(items)

    def budget_fields(self, status: int) -> list[tuple[str, str]]:
        """Return the RateLimit headers of the official servers, or none."""
        if self.budget is None or not self.budget_headers:
            return []
        calls, seconds = self.budget
        reset = self._window + seconds
        fields = [
            ("RateLimit-Limit", str(calls)),
            ("RateLimit-Remaining", str(max(calls - self._used, 0))),
            ("RateLimit-Reset", str(math.ceil(reset))),
            ("RateLimit-Policy", f"{calls};w={math.ceil(seconds)}"),
        ]
        if status == 429:  # noqa: PLR2004 - Too Many Requests
            wait = max(reset - self._now_us() / 1_000_000, 0)
            fields.append(("Retry-After", str(math.ceil(wait))))
        return fields

    def _within_budget(self) -> bool:
        if self.budget is None:
            return True
        calls, seconds = self.budget
        now = self._now_us() / 1_000_000
        if now >= self._window + seconds:
            self._window, self._used = now - now % seconds, 0
        self._used += 1
        return self._used <= calls
