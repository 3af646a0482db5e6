"""Events in, hydrated records out: at once where all views are known, in order per DID always."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.config import HydrationSettings
from turbod.event import KINDS, POST, Event, uri_did
from turbod.histogram import Distribution, Histogram
from turbod.hydration.appview import AppView, Kind, Outcome
from turbod.hydration.assembly import Views, assemble, wanted
from turbod.hydration.cache import Cache, Entry
from turbod.hydration.freshness import NOTHING, Effect, Fate, effect, subject
from turbod.hydration.lag import Lag
from turbod.hydration.recent import RecentPosts
from turbod.hydration.views import View
from turbod.record import MAX_RECORD_BYTES, Record

MAX_WAITING_EVENTS: Final = 20_000
_JOB_BYTES: Final = 3000  # what a waiting event takes beside its message
BEHIND_SECONDS: Final = 10.0  # more than an AppView that does not answer makes an event wait
_ASK_AGAIN_SECONDS: Final = 1.0
_FROM_STREAM_SECONDS: Final = 5.0
_FRESH_MISSING_SECONDS: Final = 30.0

log = structlog.get_logger()


class HydratorStatistics(msgspec.Struct, frozen=True):
    """What was done since the start, and what waits.

    Attributes:
        taken: events.
        hydrated: of these, passed on as records; `at_once` are those that needed no answer.
        events: all that are done with, by what became of them, then by kind.
        answers: keys that were asked for, by what came of it: `appview`, `missing`, `stream` (built
            from the event itself) or `unresolved`.
        unresolved: views that records lack.
        from_stream: views in records that were built from events.
        hydration_seconds: from taking an event to passing on its record.
    """

    taken: int
    hydrated: int
    at_once: int
    excluded: int
    too_long: int
    unresolved: int
    from_stream: int
    events: dict[str, dict[str, int]]
    answers: dict[str, int]
    waiting_events: int
    waiting_bytes: int
    oldest_waiting_seconds: float
    recent_posts: int
    recent_posts_bytes: int
    hydration_seconds: Distribution


class _Job:
    """One event that waits for views, and those it has."""

    __slots__ = ("event", "generation", "intake", "missing", "since", "views")

    def __init__(
        self, event: Event, intake: int, views: Views, missing: set[str], *, generation: int
    ) -> None:
        self.event = event
        self.generation = generation  # what was known when it came
        self.intake = intake
        self.views = views
        self.missing = missing
        self.since = time.monotonic()


class Hydrator:
    """Takes events and gives records to `append`, or their intake numbers to `dropped`.

    Attributes:
        is_behind: an event has waited for its views for long; seen within a second.
    """

    def __init__(
        self,
        settings: HydrationSettings,
        *,
        appview_url: str,
        cache: Cache,
        append: Callable[[Record], None],
        dropped: Callable[[Sequence[int]], None],
        now_us: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._append = append
        self._dropped = dropped
        self._now_us = now_us
        self.appview = AppView(
            appview_url,
            settings,
            answered=self._answered,
            stamp=lambda: cache.generation,
        )
        self._queues: dict[str, deque[_Job]] = {}
        self._waiting: dict[str, list[_Job]] = {}
        self._asked_again: set[str] = set()
        self._builds: dict[str, list[str]] = {}
        self._recent = RecentPosts(now_us=now_us)
        self._lag = Lag(settings.max_lag_seconds)
        self._last_time_us = 0
        self._bytes = self._events = 0
        self._taken = self._at_once = 0
        self._logged, self._cache_only, self._excluded, self._too_long = (
            dict.fromkeys(sorted(KINDS), 0) for _ in range(4)
        )
        self._answers: Counter[str] = Counter()
        self._waits = Histogram()
        self._unresolved = self._from_stream = 0
        self._progress = trio.lowlevel.ParkingLot()
        self.is_behind = False

    def take(self, event: Event, intake: int, logged: bool) -> None:  # noqa: FBT001 - the hot path
        """Hydrate an event and pass it on, now or when its views are there."""
        self._taken += 1
        self._last_time_us = event.time_us
        self.observe(event)
        if not logged or event.did in self._cache.excluded:
            fate = self._excluded if logged else self._cache_only
            fate[event.kind] += 1
            self._dropped((intake,))
            return
        views, missing = self._look_up(event)
        if not missing and event.did not in self._queues:
            self._at_once += 1
            self._emit(event, intake, views)
        else:
            self._wait(_Job(event, intake, views, set(missing), generation=self._cache.generation))

    @property
    def has_room(self) -> bool:
        """Whether the events waiting for views are within their bounds."""
        return self._bytes < self._settings.max_pending_bytes and self._events < MAX_WAITING_EVENTS

    async def room(self) -> None:
        """Wait until a good part of the room is free again, so that intake does not stutter."""
        while not self._has_much_room():
            with heartbeat.resting():
                await self._progress.park()

    def adapt(self) -> None:
        """Take up settings that have changed."""
        self._lag.allowed_seconds = self._settings.max_lag_seconds
        self.appview.adapt()
        if self._has_much_room():
            self._progress.unpark_all()

    def outdate_all(self) -> None:
        """Use nothing that was fetched before now: the stream missed events."""
        self._cache.outdate_all()

    async def drain(self) -> None:
        """Wait until nothing waits for views any more."""
        while self._events:
            with heartbeat.resting():
                await self._progress.park()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask the AppView, and watch the lag, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.appview.run)
            task_status.started()
            with heartbeat.beating("hydrator"):
                await self._look_regularly()

    async def _look_regularly(self) -> None:
        while True:
            await heartbeat.sleep(1)
            self._recent.expire()
            self._watch_lag()
            self.is_behind = self._oldest_waiting_seconds() > BEHIND_SECONDS

    def _oldest_waiting_seconds(self) -> float:
        now = time.monotonic()
        return now - min((jobs[0].since for jobs in self._queues.values()), default=now)

    def statistics(self) -> HydratorStatistics:
        """Return a snapshot."""
        return HydratorStatistics(
            taken=self._taken,
            hydrated=sum(self._logged.values()),
            at_once=self._at_once,
            excluded=sum(self._excluded.values()),
            too_long=sum(self._too_long.values()),
            unresolved=self._unresolved,
            from_stream=self._from_stream,
            events={
                "logged": dict(self._logged),
                "cache_only": dict(self._cache_only),
                "excluded": dict(self._excluded),
                "too_long": dict(self._too_long),
            },
            answers=dict(self._answers),
            waiting_events=self._events,
            waiting_bytes=self._bytes,
            oldest_waiting_seconds=self._oldest_waiting_seconds(),
            recent_posts=len(self._recent),
            recent_posts_bytes=self._recent.bytes,
            hydration_seconds=self._waits.distribution().with_instant(self._at_once),
        )

    def observe(self, event: Event) -> None:
        """Let the event change what is known, before anything is hydrated after it."""
        if event.collection == POST and event.has_record:
            self._recent.add(event.at_uri, event.message)
            if event.operation == "create":  # what `effect` says of most events, without asking
                self._cache.bring_back(event.at_uri, event.rev)
                return
        change = effect(event)
        if change is NOTHING or (event.kind == "identity" and self._names_known_handle(event)):
            return
        self._apply(event, change)

    def _apply(self, event: Event, change: Effect) -> None:
        cache = self._cache
        if change.fate is Fate.BACK:
            cache.bring_back(*subject(event))
        elif change.fate is Fate.GONE:
            ref, version = subject(event)
            self._recent.remove(ref)
            cache.take_away(ref, version)
        for ref in change.outdated:
            cache.outdate(ref)

    def _names_known_handle(self, event: Event) -> bool:
        """Tell whether an identity event repeats the handle that the cached profile shows."""
        handle = event.notice.get("handle") if event.notice is not None else None
        entry = self._cache.get(event.did) if handle is not None else None
        return entry is not None and entry.data is not None and handle == _handle(entry.data)

    def _look_up(self, event: Event) -> tuple[Views, list[str]]:
        """Return the views that an event needs, and which of them are missing."""
        views, missing = self._cache.look_up(wanted(event))
        if missing:
            for key in missing:
                views[key] = self._known_to_be_hidden(key)
            missing = [key for key in missing if views[key] is None]
        return views, missing

    def _known_to_be_hidden(self, key: str) -> Entry | None:
        """Return null as the answer for what is hidden, so that it is never asked for."""
        if self._is_hidden(key):
            return self._cache.put_missing(key, stamp=self._cache.generation)
        return None

    def _is_hidden(self, key: str) -> bool:
        if key.startswith("at:"):
            return self._cache.hidden((key, uri_did(key)))
        return self._cache.hidden((key,))

    def _wait(self, job: _Job) -> None:
        self._queues.setdefault(job.event.did, deque()).append(job)
        self._events += 1
        self._bytes += len(job.event.message) + _JOB_BYTES
        for key in job.missing:
            self._ask(key).append(job)

    def _ask(self, key: str) -> list[_Job]:
        """Return those that wait for a key, after asking for it if nobody did."""
        jobs = self._waiting.get(key)
        if jobs is None:
            jobs = self._waiting[key] = []
            self.appview.want(_kind(key), key)
        return jobs

    def _answered(self, key: str, view: View | None, outcome: Outcome, stamp: int) -> None:
        """Take one answer of the AppView's, exactly one for each key that was wanted."""
        if outcome is Outcome.UNRESOLVED:
            self._resolve(key, None)
        elif self._is_hidden(key):
            self._resolve(key, self._cache.put_missing(key, stamp=stamp))
        elif view is not None:
            entry = self._cache.put(key, view.data, view.inside, stamp=stamp)
            later = self._take_later(key, stamp) if self._cache.outdated(entry) else []
            self._resolve(key, entry)
            for job in later:
                self._ask(key).append(job)
        elif self._recent.is_fresh(key):
            self._missing_but_fresh(key, stamp)
        else:
            self._resolve(key, self._cache.put_missing(key, stamp=stamp))

    def _take_later(self, key: str, stamp: int) -> list[_Job]:
        """Take out those that came after what they wait for was asked: it changed meanwhile."""
        jobs = self._waiting[key]
        self._waiting[key] = [job for job in jobs if job.generation <= stamp]
        return [job for job in jobs if job.generation > stamp]

    def _missing_but_fresh(self, key: str, stamp: int) -> None:
        """Build a post from the stream where it was seen there, else ask once more."""
        if self._recent.has(key):
            self._build(key)
        elif key not in self._asked_again:
            self._asked_again.add(key)
            self.appview.want(Kind.POST, key, delay_seconds=_ASK_AGAIN_SECONDS)
        else:
            seconds = _FRESH_MISSING_SECONDS
            self._resolve(key, self._cache.put_missing(key, stamp=stamp, seconds=seconds))

    def _build(self, key: str) -> None:
        author = uri_did(key)
        profile = self._cache.get(author) or self._known_to_be_hidden(author)
        if profile is None:
            self._builds.setdefault(author, []).append(key)
            self._ask(author)
        else:
            self._built(key, profile)

    def _built(self, key: str, author: Entry | None) -> None:
        data = None
        if author is not None and author.data is not None and not self._is_hidden(key):
            data = self._recent.build(key, author.data)
        if data is None:
            stamp, seconds = self._cache.generation, _FRESH_MISSING_SECONDS
            self._resolve(key, self._cache.put_missing(key, stamp=stamp, seconds=seconds))
        else:
            seconds = _FROM_STREAM_SECONDS
            author_did = uri_did(key)
            entry = self._cache.put_from_stream(key, data, author_did, seconds=seconds)
            self._resolve(key, entry)

    def _resolve(self, key: str, entry: Entry | None) -> None:
        """Give an answer, or None for unresolved, to all that wait for it."""
        self._asked_again.discard(key)
        self._answers[_origin(entry)] += 1
        for job in self._waiting.pop(key, ()):
            job.missing.discard(key)
            job.views[key] = entry
            if not job.missing:
                self._advance(job.event.did)
        for uri in self._builds.pop(key, ()):
            self._built(uri, entry)

    def _advance(self, did: str) -> None:
        """Pass on what is complete at the head of a DID's queue."""
        jobs = self._queues.get(did)
        while jobs and not jobs[0].missing:
            job = jobs.popleft()
            self._waits.add(time.monotonic() - job.since)
            self._events -= 1
            self._bytes -= len(job.event.message) + _JOB_BYTES
            self._hide_gone(job.views)
            self._emit(job.event, job.intake, job.views)
        if jobs is not None and not jobs:
            del self._queues[did]
        if self._has_much_room():
            self._progress.unpark_all()

    def _hide_gone(self, views: Views) -> None:
        """Take out what was deleted, deactivated or excluded while the event waited."""
        cache = self._cache
        for key, entry in views.items():
            if entry is not None and entry.data is not None and cache.hidden(entry.inside):
                views[key] = cache.put_missing(key, stamp=entry.stamp)

    def _emit(self, event: Event, intake: int, views: Views) -> None:
        body, unresolved, from_stream = assemble(event, views, self._cache.get)
        if len(body) > MAX_RECORD_BYTES:
            log.warning("record_too_long", at_uri=event.at_uri, bytes=len(body))
            self._too_long[event.kind] += 1
            self._dropped((intake,))
            return
        self._logged[event.kind] += 1
        self._unresolved += unresolved
        self._from_stream += from_stream
        self._append(Record(event, body, intake))

    def _has_much_room(self) -> bool:
        half = self._settings.max_pending_bytes // 2
        return self._bytes <= half and self._events <= MAX_WAITING_EVENTS // 2

    def _watch_lag(self) -> None:
        """Give up on hydrating what is too late, where only the budget is short."""
        if not self._last_time_us:
            return
        lag_seconds = max(self._now_us() - self._last_time_us, 0) / 1_000_000
        too_long = self._lag.too_long(
            lag_seconds, now_seconds=time.monotonic(), is_held=not self._has_much_room()
        )
        if too_long and self._events:
            log.warning("hydration_given_up", lag_seconds=round(lag_seconds), events=self._events)
            self.appview.shed()


class _Profile(msgspec.Struct):
    handle: str | None = None


_decode_profile = msgspec.json.Decoder(_Profile).decode


def _handle(profile: bytes) -> str | None:
    try:
        return _decode_profile(profile).handle
    except ValueError:  # the view is valid JSON, but its handle is no string
        return None


def _origin(entry: Entry | None) -> str:
    if entry is None:
        return "unresolved"
    if entry.from_stream:
        return "stream"
    return "missing" if entry.data is None else "appview"


def _kind(key: str) -> Kind:
    return Kind.POST if key.startswith("at:") else Kind.PROFILE
