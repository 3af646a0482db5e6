"""What must stay level, what turbod tells of itself, and how that compares with what we counted."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figures import Figure, claim

from soaking.stage import Stage
from tests.acceptance.process import Turbod
from tests.acceptance.scrape import Scrape, scrape
from turbod.simulation.questions import POSTS, PROFILES

MEGABYTE: Final = 1_000_000
FETCHING: Final = 1.05  # a bound may be passed by one read
READ_BYTES: Final = 4_194_304


@dataclass(frozen=True)
class Level:
    """What turbod takes at a moment of quiet."""

    resident: float
    open_files: int
    tasks: float
    wal: int
    disk: int


async def level(turbod: Turbod) -> Level:
    """Look, at a moment when nobody but the steady readers is connected."""
    seen = await scrape(turbod)
    files = _sizes(turbod.data)
    return Level(
        resident=await turbod.resident_bytes() / MEGABYTE,
        open_files=_open_files(turbod.process.pid) - int(seen("turbod_connections")),
        tasks=seen("turbod_tasks"),
        wal=sum(size for name, size in files if name.endswith("-wal")),
        disk=sum(size for _, size in files),
    )


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _sizes(folder: Path) -> list[tuple[str, int]]:
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it became something else meanwhile
            if path.is_file():
                found.append((path.name, path.stat().st_size))
    return found


def beyond_bounds(seen: Scrape) -> list[str]:
    """Return what is above its bound."""
    words = []
    for unit in ("bytes", "items"):
        room = READ_BYTES if unit == "bytes" else 50
        for labels, limit in seen.of(f"turbod_bound_limit_{unit}"):
            used = seen(f"turbod_bound_used_{unit}", **labels)
            if used > limit * FETCHING + room:
                words.append(f"{labels['what']}: {used:,.0f} of {limit:,.0f} {unit}")
    return words


def level_figures(levels: Sequence[Level]) -> Iterator[Figure]:
    """Compare the second quarter of the hours with the last."""
    quarter = max(1, len(levels) // 4)
    before, after = levels[quarter : 2 * quarter], levels[-quarter:]

    def change(name: str, scale: float = 1) -> float:
        first, last = (median(getattr(each, name) for each in part) for part in (before, after))
        return float(last - first) / scale

    yield Figure("memory at the end", after[-1].resident, "MB", at_most=400)
    yield Figure("  more than in the second quarter", change("resident"), "MB", at_most=16)
    yield Figure("open files but for connections, more", change("open_files"), at_most=3)
    yield Figure("tasks, more", change("tasks"), at_most=3)
    yield Figure("the cache's WAL, more", change("wal", MEGABYTE), "MB", at_most=8)
    yield Figure("the data folder at the end", after[-1].disk / MEGABYTE, "MB")
    yield Figure("  more than in the second quarter", change("disk", MEGABYTE), "MB", at_most=100)


@dataclass(frozen=True)
class Counted:
    """What we count ourselves, and what turbod says at the same moment of quiet."""

    said: Scrape
    kinds: dict[str, int]
    cache_only: int
    delivered: int
    read: int
    answers: int
    hosts: tuple[int, ...]


async def count(stage: Stage, read: int) -> Counted:
    """Count now; `read` is how many records all readers have."""
    ledger, outcomes = stage.ledger, stage.simulation.appview.statistics.outcomes
    return Counted(
        said=await scrape(stage.turbod),
        kinds=dict(ledger.kinds),
        cache_only=ledger.cache_only,
        delivered=ledger.delivered,
        read=read,
        answers=sum(outcomes[path, "200"] for path in (PROFILES, POSTS)),
        hosts=tuple(host.messages_sent for host in stage.simulation.jetstreams),
    )


def log_agrees(before: Counted, after: Counted) -> Iterator[Figure]:
    """Compare what is exact whatever goes wrong."""

    def told(name: str, **labels: str) -> float:
        return after.said(name, **labels) - before.said(name, **labels)

    for kind in ("commit", "identity", "account"):
        agrees = told("turbod_events_total", kind=kind, outcome="logged") == (
            after.kinds.get(kind, 0) - before.kinds.get(kind, 0)
        )
        yield claim(f"/metrics: each {kind} logged", holds=agrees)
    told_only = told("turbod_events_total", outcome="cache_only")
    yield claim("/metrics: each for the cache only", holds=told_only == _only(before, after))
    delivered = after.delivered - before.delivered
    for name in ("log_records", "records", "log_commit_seconds_count"):
        metric = f"turbod_{name}" if name.endswith("count") else f"turbod_{name}_total"
        yield claim(f"/metrics: {metric}", holds=told(metric) == delivered)
    accepted = told("turbod_upstream_events_total", fate="accepted")
    yield claim("/metrics: events accepted from hosts", holds=accepted == delivered)
    yield claim("/metrics: no gap", holds=told("turbod_upstream_gaps_total") == 0)
    yield claim("/metrics: no error of its own", holds=told("turbod_connection_errors_total") == 0)


def calm_agrees(before: Counted, after: Counted, urls: Sequence[str]) -> Iterator[Figure]:
    """Compare what is exact while nothing goes wrong."""

    def told(name: str, **labels: str) -> float:
        return after.said(name, **labels) - before.said(name, **labels)

    read = told("turbod_records_sent_total")
    yield claim("/metrics: records sent", holds=read == after.read - before.read)
    calls = told("turbod_appview_calls_total", result="ok")
    yield claim("/metrics: calls of the AppView", holds=calls == after.answers - before.answers)
    yield claim("/metrics: no view left out", holds=told("turbod_views_unresolved_total") == 0)
    for url, first, last in zip(urls, before.hosts, after.hosts, strict=True):
        received = told("turbod_upstream_events_total", host=url)
        yield claim(f"/metrics: events received from {url}", holds=received == last - first)


def _only(before: Counted, after: Counted) -> int:
    return after.cache_only - before.cache_only
