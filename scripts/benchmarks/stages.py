"""What an event costs stage by stage, in this process: pure code, no sockets, no disk, no trio.

The sum is what the daemon's own code takes; throughput's figure has the event loop, the kernel
and the disk beside it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Figure
from benchmarks.options import Options
from benchmarks.world import POSTS_ONLY, again
from turbod.config import CacheSettings, HydrationSettings
from turbod.database import Database
from turbod.event import POST, Event, parse
from turbod.eventlog.batch import next_batch
from turbod.hydration.cache import Cache
from turbod.hydration.hydrator import Hydrator
from turbod.hydration.views import Kind, read_view
from turbod.record import Record
from turbod.simulation.frame_stream import frame
from turbod.simulation.index import Index
from turbod.simulation.jetstream_host import clock_us
from turbod.simulation.network import Network
from turbod.simulation.views import post_view, profile_view
from turbod.upstream.frames import FrameReader
from turbod.upstream.identities import Identities
from turbod.upstream.merge import Merge
from turbod.upstream.subscription import Subscription

ACCOUNTS: Final = 2000
POSTS: Final = 3000
ROUNDS: Final = 5
READ_BYTES: Final = 65536


def measure(options: Options) -> Iterator[Figure]:
    """Run each stage over the same events; the best of some rounds counts."""
    with options.folder() as folder:
        index, messages = _messages()
        wire = b"".join(map(frame, messages))
        events = [parse(message) for message in messages]
        stages = {
            "frames": lambda: _read(wire),
            "parse": lambda: [parse(message) for message in messages],
            "merge": lambda: _merge(events),
            "hydrate": _hydration(index, events, folder),
        }
        costs = {name: _best(stage) for name, stage in stages.items()}
        records = _hydrated(index, events, folder)
        costs["log"] = _best(lambda: next_batches(records))
        count = len(messages)
        for name, seconds in costs.items():
            yield Figure(name, seconds / count * 1e6, "us/event")
        yield Figure("together", sum(costs.values()) / count * 1e6, "us/event")


def next_batches(records: list[Record]) -> int:
    """Give cursors, cut chunks, and build what is written."""
    queue: deque[Record | str] = deque(records)
    last = ordinal = size = 0
    while queue:
        parts, last = next_batch(queue, last=last, ordinal=ordinal, now_us=clock_us())
        size += sum(len(part.data) for part in parts)
    return size


def _nothing(*_: object) -> None:
    """Take what is not measured here."""


def _best(stage: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        stage()
        times.append(time.perf_counter() - begun)
    return min(times)


def _messages() -> tuple[Index, list[bytes]]:
    now_us = clock_us()
    network = Network(accounts=ACCOUNTS, mix=POSTS_ONLY, now_us=now_us)
    index = Index()
    for account in network.people.accounts:
        index.introduce(account)
    happenings = [network.next_event(now_us + place) for place in range(POSTS)]
    for happening in happenings:
        index.hear(happening)
    posts = [happening for happening in happenings if happening.collection == POST]
    return index, [made.message() for made in again(posts, first=0, count=POSTS)]


def _read(wire: bytes) -> int:
    reader = FrameReader()
    pieces = range(0, len(wire), READ_BYTES)
    return sum(len(reader.feed(wire[start : start + READ_BYTES])) for start in pieces)


def _merge(events: list[Event]) -> None:
    merge = Merge(
        subscription=Subscription((POST,)),
        identities=Identities(limit=2 * POSTS),
        take=_nothing,
        now_us=clock_us,
    )
    for event in events:
        merge.accept(event)


def _hydrator(index: Index, events: list[Event], folder: Path) -> tuple[Hydrator, list[Record]]:
    database = Database(folder / f"{time.monotonic_ns()}.sqlite", max_bytes=10**9)
    cache = Cache(CacheSettings(), database, now_us=clock_us)
    for event in events:
        _know(cache, index, event)
    records: list[Record] = []
    hydrator = Hydrator(
        HydrationSettings(),
        appview_url="http://127.0.0.1:1",
        cache=cache,
        append=records.append,
        dropped=_nothing,
        now_us=clock_us,
    )
    return hydrator, records


def _know(cache: Cache, index: Index, event: Event) -> None:
    references = event.references
    for did in (event.did, *references.mentions):
        _put(cache, did, profile_view(index, did), Kind.PROFILE)
    for uri in (references.parent, references.root, references.quote):
        if uri is not None:
            _put(cache, uri, post_view(index, uri), Kind.POST)


def _put(cache: Cache, key: str, view: bytes | None, kind: Kind) -> None:
    if view is None:
        cache.put_missing(key, stamp=cache.generation)
    else:
        read = read_view(view, kind)
        cache.put(key, read.data, read.inside, stamp=cache.generation)


def _hydration(index: Index, events: list[Event], folder: Path) -> Callable[[], None]:
    hydrator, records = _hydrator(index, events, folder)

    def stage() -> None:
        records.clear()
        for intake, event in enumerate(events):
            hydrator.take(event, intake, True)
        assert len(records) == len(events), "all views are known"

    return stage


def _hydrated(index: Index, events: list[Event], folder: Path) -> list[Record]:
    hydrator, records = _hydrator(index, events, folder)
    for intake, event in enumerate(events):
        hydrator.take(event, intake, True)
    return records
