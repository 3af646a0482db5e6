"""What must stay level, what turbod tells of itself, and how that compares with what we counted."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figures import Figure

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
    """Compare the third quarter of the hours with the last: by then every cache is full."""
    quarter = max(1, len(levels) // 4)
    before, after = levels[-2 * quarter : -quarter], levels[-quarter:]

    def change(name: str, scale: float = 1) -> float:
        first, last = (median(getattr(each, name) for each in part) for part in (before, after))
        return float(last - first) / scale

    yield Figure("memory at the end", after[-1].resident, "MB", at_most=700)
    yield Figure("  more than in the third quarter", change("resident"), "MB", at_most=60)
    yield Figure("open files but for connections, more", change("open_files"), at_most=3)
    yield Figure("tasks, more", change("tasks"), at_most=3)
    yield Figure("the cache's WAL, more", change("wal", MEGABYTE), "MB", at_most=8)
    yield Figure("the data folder at the end", after[-1].disk / MEGABYTE, "MB", at_most=420)
    yield Figure("  more than in the third quarter", change("disk", MEGABYTE), "MB")


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
    told = _Told(before.said, after.said)
    for kind in ("commit", "identity", "account"):
        counted = after.kinds.get(kind, 0) - before.kinds.get(kind, 0)
        yield told.off("turbod_events_total", counted, kind=kind, outcome="logged")
    cache_only = after.cache_only - before.cache_only
    yield told.off("turbod_events_total", cache_only, outcome="cache_only")
    delivered = after.delivered - before.delivered
    yield told.off("turbod_log_records_total", delivered)
    yield told.off("turbod_records_total", delivered)
    yield told.off("turbod_log_commit_seconds_count", delivered)
    yield told.off("turbod_upstream_events_total", delivered, fate="accepted")
    yield told.off("turbod_upstream_gaps_total", 0)
    yield told.off("turbod_connection_errors_total", 0)


def calm_agrees(before: Counted, after: Counted, urls: Sequence[str]) -> Iterator[Figure]:
    """Compare what is exact while nothing goes wrong."""
    told = _Told(before.said, after.said)
    yield told.off("turbod_records_sent_total", after.read - before.read)
    yield told.off("turbod_appview_calls_total", after.answers - before.answers, result="ok")
    yield told.off("turbod_views_unresolved_total", 0)
    for url, first, last in zip(urls, before.hosts, after.hosts, strict=True):
        yield told.off("turbod_upstream_events_total", last - first, host=url)


@dataclass(frozen=True)
class _Told:
    """How a figure of `/metrics` grew from one moment to another, against our own count."""

    before: Scrape
    after: Scrape

    def off(self, name: str, counted: int, **labels: str) -> Figure:
        grown = self.after(name, **labels) - self.before(name, **labels)
        which = f" {' '.join(labels.values())}" if labels else ""
        return Figure(f"{name}{which}: off by, of {counted:,}", abs(grown - counted), at_most=0)
