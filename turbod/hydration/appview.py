"""The AppView's client: what is wanted goes out in full calls within the budget, and comes back."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import msgspec
import structlog
import trio

from turbod import __version__, heartbeat
from turbod.config import HydrationSettings
from turbod.envelope import Malformed
from turbod.histogram import Distribution, Histogram
from turbod.hydration.batches import Batch, Item, Outcome
from turbod.hydration.budget import Budget
from turbod.hydration.call import Reply, Unanswered, get
from turbod.hydration.planner import LONGEST_CALL_SECONDS, Planner
from turbod.hydration.views import Answer, Kind, View, read_answer
from turbod.redaction import redacted

__all__ = ["AppView", "AppViewStatistics", "Kind", "Outcome"]

log = structlog.get_logger()

_PLACES = 100  # for connections: hydration.concurrent_calls at most
_POOL_SECONDS = 2.0  # the limiter lets in no more than the pool has places: it never waits
_KEEP_ALIVE_SECONDS = 4.0  # Node closes at five; who closes first is not surprised by it
_CLOSE_SECONDS = 1.0
_OK, _BAD_REQUEST, _TOO_MANY_REQUESTS = 200, 400, 429
_NO_ANSWER = {3: "redirect", 4: "client_error", 5: "server_error"}  # by hundreds of the status


class AppViewStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and the state of the moment.

    Attributes:
        calls: by (kind, result); the result is `ok`, `refused` (429), `bad_request` (400) or why
            there was no answer.
        items: by (kind, outcome).
        asked_items: places used in all calls; over the calls it is their fill.
        waiting: items whose turn has not come; `pending` are these and those under way or delayed.
        rate: calls a second that the budget allows.
        remaining, reset_seconds: the AppView's own RateLimit headers, where it sends them.
        paused_seconds: until the end of a pause it asked for, 0 where there is none.
        answered_seconds: since the last answer, None before the first.
        call_seconds: how long calls took that ended, whatever came of them, by kind.
    """

    calls: dict[tuple[str, str], int]
    items: dict[tuple[str, str], int]
    asked_items: int
    pending: int
    waiting: int
    flying: int
    rate: float
    remaining: int | None
    reset_seconds: float | None
    paused_seconds: float
    down: bool
    plenty: bool
    retries: int
    bisections: int
    malformed_views: int
    foreign_views: int
    rebuilt_clients: int
    last_error: str
    answered_seconds: float | None
    call_seconds: dict[str, Distribution]


def new_client(*, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """Return a client that asks an AppView, for `call.get`; the caller closes it."""
    return httpx.AsyncClient(
        headers={
            "User-Agent": f"turbod/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        },
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        transport=transport,
        trust_env=False,
        timeout=httpx.Timeout(None, pool=_POOL_SECONDS),
        limits=httpx.Limits(
            max_connections=_PLACES,
            max_keepalive_connections=_PLACES,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
        ),
    )


class AppView:
    """Asks for profiles and posts, 25 at a time, and calls `answered` once for each wanted key.

    `answered(key, view, outcome, stamp)` is called in the event loop and must not block; it may
    call `want`. `stamp()` is read just before a request goes out and comes back with what it
    brought, so that what was fetched before an invalidation can be told. After `run` was cancelled
    nothing more is answered.

    Args:
        url: the AppView, no path.
        settings: rate, calls at once, deadline.
        answered: takes what came back.
        stamp: the caller's generation counter.
        transport: in place of real connections, for tests.
        budget: in place of one made from the settings, for tests.
        now: seconds that only rise.
        wall: Unix time, for headers that speak in it.
    """

    def __init__(
        self,
        url: str,
        settings: HydrationSettings,
        *,
        answered: Callable[[str, View | None, Outcome, int], None],
        stamp: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None = None,
        budget: Budget | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._url = url.rstrip("/")
        self._answered = answered
        self._stamp = stamp
        self._transport = transport
        self._now = now
        self._wall = wall
        self._planner = Planner(settings, now=now(), budget=budget)
        self._news = trio.Event()
        self._client: httpx.AsyncClient | None = None
        self._retired: list[httpx.AsyncClient] = []
        self._counts = _Counts()

    def want(self, kind: Kind, key: str, *, delay_seconds: float = 0.0) -> None:
        """Ask for a profile (by its DID) or a post (by its AT URI), where that is not under way.

        The key must have valid syntax: one that has not spoils the call of 24 others.
        """
        if self._planner.want(kind, key, now=self._now(), delay_seconds=delay_seconds):
            self._news.set()

    def adapt(self) -> None:
        """Take up settings that have changed."""
        self._planner.adapt()
        self._news.set()

    def pending(self) -> int:
        """Return how many keys are wanted and not yet answered."""
        return len(self._planner.batches)

    def shed(self, *, older_than_seconds: float = 0.0) -> int:
        """Give up what waits for its turn longer than that: UNRESOLVED, now. Return how many."""
        late = self._planner.batches.take_waiting(self._now() - older_than_seconds)
        self._give_up(late)
        return len(late)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make the calls until cancelled."""
        self._client = new_client(transport=self._transport)
        limiter = trio.CapacityLimiter(_PLACES)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                with heartbeat.beating("appview"):
                    while True:
                        self._start_calls(nursery, limiter)
                        await self._wait_for_news()
        finally:
            with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                await self._close_clients()

    def statistics(self) -> AppViewStatistics:
        """Return counts and the state of the moment."""
        now, planner, counts = self._now(), self._planner, self._counts
        limits = planner.budget.limits
        return AppViewStatistics(
            calls=dict(counts.calls),
            items=dict(counts.items),
            asked_items=counts.asked_items,
            pending=len(planner.batches),
            waiting=planner.batches.waiting,
            flying=planner.health.flying,
            rate=planner.budget.rate(now),
            remaining=limits.remaining if limits else None,
            reset_seconds=max(0.0, planner.budget.reset_at - now) if limits else None,
            paused_seconds=max(0.0, planner.budget.paused_until - now),
            down=planner.health.down,
            plenty=planner.is_plenty(now),
            retries=counts.retries,
            bisections=counts.bisections,
            malformed_views=counts.malformed_views,
            foreign_views=counts.foreign_views,
            rebuilt_clients=counts.rebuilt_clients,
            last_error=counts.last_error,
            answered_seconds=None if counts.answered_at is None else now - counts.answered_at,
            call_seconds={
                kind.array: took.distribution() for kind, took in counts.call_seconds.items()
            },
        )

    # Scheduling -----------------------------------------------------------------------------

    def _start_calls(self, nursery: trio.Nursery, limiter: trio.CapacityLimiter) -> None:
        self._give_up(self._planner.late(self._now()))
        while batch := self._planner.next(self._now()):
            nursery.start_soon(self._call, batch, limiter, nursery)

    async def _wait_for_news(self) -> None:
        now = self._now()
        seconds = max(0.0, self._planner.wake_at(now) - now)
        with heartbeat.resting(until=trio.current_time() + seconds):
            await self._news.wait()
        self._news = trio.Event()

    async def _call(
        self, batch: Batch, limiter: trio.CapacityLimiter, nursery: trio.Nursery
    ) -> None:
        client = self._client
        assert client is not None, "run() makes it before any call"
        try:
            # httpcore's pool is spoilt for ever by a call cancelled while it waits for a place
            # (encode/httpcore issue 1093): so none ever waits there.
            async with limiter:
                sent_at, stamp = self._now(), self._stamp()
                seconds = self._planner.call_seconds(batch, sent_at)
                url = f"{self._url}{batch.kind.path}?{batch.url_query()}"
                with heartbeat.beating("appview_call"), heartbeat.allowing(seconds):
                    reply = await get(client, url, seconds=seconds)
        except Unanswered as trouble:
            self._counts.call_seconds[batch.kind].add(self._now() - sent_at)
            if trouble.reason == "pool" and client is self._client:
                nursery.start_soon(self._replace, client)
            self._failed(batch, trouble, stamp)
        except BaseException:  # cancelled, alone or in a group
            self._planner.abandoned(batch)
            raise
        else:
            self._replied(batch, reply, stamp=stamp, sent_at=sent_at)
        finally:
            self._news.set()

    # What came back -------------------------------------------------------------------------

    def _replied(self, batch: Batch, reply: Reply, *, stamp: int, sent_at: float) -> None:
        now, planner = self._now(), self._planner
        self._counts.call_seconds[batch.kind].add(now - sent_at)
        planner.budget.heard(
            now, headers=reply.headers, wall=self._wall(), flying=planner.health.flying - 1
        )
        if reply.status == _OK:
            try:
                answer = read_answer(reply.body, batch.kind)
            except Malformed as malformed:
                self._failed(batch, Unanswered("undecodable", malformed.reason), stamp)
            else:
                self._hear(batch, "ok")
                planner.answered(now)
                self._take_answer(batch, answer, stamp)
        elif reply.status == _BAD_REQUEST:
            self._bad_request(batch, reply, stamp)
        elif reply.status == _TOO_MANY_REQUESTS:
            self._too_many_requests(batch, reply, sent_at)
        else:
            reason = _NO_ANSWER.get(reply.status // 100, "status")
            self._failed(batch, Unanswered(reason, f"status {reply.status}"), stamp)

    def _take_answer(self, batch: Batch, answer: Answer, stamp: int) -> None:
        views: dict[str, View] = {}
        for view in answer.views:
            views.setdefault(view.key, view)
        for item in batch.items:
            found = views.pop(item.key, None)
            self._settle(item, found, Outcome.FOUND if found else Outcome.MISSING, stamp)
        self._counts.foreign_views += len(views)
        self._counts.malformed_views += answer.malformed
        if answer.malformed:
            log.warning("appview_views_malformed", kind=batch.kind.array, views=answer.malformed)

    def _bad_request(self, batch: Batch, reply: Reply, stamp: int) -> None:
        self._hear(batch, "bad_request")
        self._planner.answered(self._now())
        log.warning("appview_bad_request", kind=batch.kind.array, body=_start_of(reply.body))
        if len(batch.items) == 1:
            self._settle(batch.items[0], None, Outcome.MISSING, stamp)
        else:
            self._counts.bisections += 1
            self._planner.batches.halve(batch, not_before=self._now())

    def _too_many_requests(self, batch: Batch, reply: Reply, sent_at: float) -> None:
        self._hear(batch, "refused")
        now, budget = self._now(), self._planner.budget
        budget.refused(now, headers=reply.headers, wall=self._wall(), sent_at=sent_at)
        self._planner.refused(batch, now)
        log.warning("appview_refused", pause_seconds=round(budget.paused_until - now, 1))

    def _failed(self, batch: Batch, trouble: Unanswered, stamp: int) -> None:
        now, planner, was_down = self._now(), self._planner, self._planner.health.down
        self._counts.calls[batch.kind.array, trouble.reason] += 1
        self._counts.asked_items += len(batch.items)
        self._counts.last_error = str(trouble)[:200]
        late, halved = planner.failed(batch, now, hung=trouble.reason == "timeout")
        self._counts.bisections += halved
        self._counts.retries += len(late) < len(batch.items)
        self._give_up(late, stamp)
        if planner.health.down and not was_down:
            self._counts.down_at = now
            log.warning("appview_down", error=str(trouble)[:200])
        elif not was_down:
            log.warning("appview_call_failed", kind=batch.kind.array, error=str(trouble)[:200])

    def _hear(self, batch: Batch, result: str) -> None:
        """Count an answer, before the planner hears of it."""
        now, counts = self._now(), self._counts
        counts.calls[batch.kind.array, result] += 1
        counts.asked_items += len(batch.items)
        counts.answered_at = now
        if self._planner.health.down:
            log.info("appview_back", down_seconds=round(now - counts.down_at, 1))

    def _give_up(self, items: Iterable[Item], stamp: int | None = None) -> None:
        for item in items:
            stamp = self._stamp() if stamp is None else stamp
            self._settle(item, None, Outcome.UNRESOLVED, stamp)

    def _settle(self, item: Item, view: View | None, outcome: Outcome, stamp: int) -> None:
        settled = self._planner.batches.settle(item)
        assert settled, "an item is in one place at a time, so nothing settles it twice"
        self._counts.items[item.kind.array, outcome.value] += 1
        self._answered(item.key, view, outcome, stamp)

    # Connections ----------------------------------------------------------------------------

    async def _replace(self, client: httpx.AsyncClient) -> None:
        """Begin with new connections where the pool is stuck, though it has a place for each."""
        if client is not self._client:
            return
        log.warning("appview_pool_stuck")
        self._counts.rebuilt_clients += 1
        self._retired.append(client)
        self._client = new_client(transport=self._transport)
        await trio.sleep(LONGEST_CALL_SECONDS + 1)  # until no call is on the old ones any more
        self._retired.remove(client)
        await client.aclose()

    async def _close_clients(self) -> None:
        for client in (*self._retired, self._client):
            if client is not None:
                await client.aclose()
        self._retired.clear()


class _Counts:
    """What `statistics` tells that nothing else knows."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.items: Counter[tuple[str, str]] = Counter()
        self.asked_items = 0
        self.retries = self.bisections = 0
        self.malformed_views = self.foreign_views = 0
        self.rebuilt_clients = 0
        self.last_error = ""
        self.answered_at: float | None = None
        self.down_at = 0.0
        self.call_seconds = {kind: Histogram() for kind in Kind}


def _start_of(body: bytes) -> str:
    return redacted(body.decode("utf-8", "replace"))[:200]
