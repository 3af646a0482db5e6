"""History over WebSocket: how fast one reader is served, and what live subscribers notice of many.

One reader of a day of believable objects, beside `zstdcat` of the same files in the same turns.
Then twelve readers while events go by, and an hour that is sealed and uploaded meanwhile.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.bucket import bucket
from benchmarks.day import HOURS, RARE, Day, lines_of_hour, make_day
from benchmarks.figures import Figure, claim
from benchmarks.load import Load, load
from benchmarks.options import Options
from benchmarks.processes import Helper, Turbod
from turbod.cursor import HOUR_US
from turbod.event import POST
from turbod.eventlog.hour_file import records_name

ROUNDS: Final = 3
READERS: Final = 12
SUBSCRIBERS: Final = 100
BEAT_SECONDS: Final = 0.02  # an event at each: 50 a second
POSTS: Final = 1000
PLAIN_BYTES: Final = 600_000_000
UPLOAD_SECONDS: Final = 120.0
_PIPE_BYTES: Final = 1024 * 1024


def measure(options: Options) -> Iterator[Figure]:
    """Run all three."""
    with options.folder() as folder:
        day = believable_day(folder / "day", options)
        yield Figure("objects", day.size / 1e6, "MB")
        yield Figure("their lines", day.raw_bytes / 1e6, "MB")
        yield Figure("DIDs that wrote some", day.dids)
        yield Figure("records of the median DID", day.median_records)
        yield from _one_reader(options, day)
        yield from _many_readers(options, day)
    with options.folder() as folder:
        yield from _sealing(options, folder)


def believable_day(folder: Path, options: Options) -> Day:
    """Make the day before this hour, and leave an hour between."""
    records_an_hour, accounts = (60_000, 230_000) if options.full else (10_000, 170_000)
    begin_us = this_hour() - (HOURS + 1) * HOUR_US
    return make_day(folder, begin_us=begin_us, records_an_hour=records_an_hour, accounts=accounts)


def this_hour() -> int:
    """Return the first microsecond of the hour that it is."""
    now_us = time.time_ns() // 1000
    return now_us - now_us % HOUR_US


def zstdcat_seconds(day: Day) -> float:
    """Return how long `zstdcat` takes to give the day's lines to who only reads."""
    buffer = memoryview(bytearray(_PIPE_BYTES))
    begun, size = time.monotonic(), 0
    command = ["zstdcat", *map(str, day.paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:  # noqa: S603 - our own files
        assert process.stdout is not None
        while count := process.stdout.readinto(buffer):  # type: ignore[attr-defined]
            size += count
    assert size == day.raw_bytes, "zstdcat gave other lines than were written"
    return time.monotonic() - begun


class _OneReader:
    """Rounds of one reader, each of its queries in each round."""

    def __init__(self, day: Day, turbod: Turbod, readers: Helper) -> None:
        self._day = day
        self._turbod = turbod
        self._readers = readers
        self._queries = {
            "all": "cursor=0",
            "zstd": "cursor=0&compress=zstd",
            "did": f"cursor=0&wantedDids={day.median_did}",
            "rare": f"cursor=0&wantedCollections={RARE}",
        }
        self._zstdcat: list[float] = []
        self._seconds: dict[str, list[float]] = {name: [] for name in self._queries}
        self._shares: list[float] = []
        self._found: list[dict[str, Any]] = []

    def round(self) -> None:
        """Run each once."""
        self._zstdcat.append(zstdcat_seconds(self._day))
        for name, query in self._queries.items():
            held = self._held_seconds()
            found = self._readers.ask("read", query=query)
            self._found.append(found)
            self._seconds[name].append(found["seconds"])
            self._shares.append((self._held_seconds() - held) / found["seconds"])

    def figures(self) -> Iterator[Figure]:
        """Return medians of the rounds."""
        day = self._day
        seconds = {name: median(found) for name, found in self._seconds.items()}
        megabytes, zstdcat = day.raw_bytes / 1e6, median(self._zstdcat)
        yield Figure("zstdcat to a pipe that only reads", megabytes / zstdcat, "MB/s")
        yield Figure("one reader of all, lines", megabytes / seconds["all"], "MB/s", 400)
        yield Figure("as a part of zstdcat", zstdcat / seconds["all"], "x", 0.35)
        yield Figure("one reader of all, compress=zstd", megabytes / seconds["zstd"], "MB/s")
        yield Figure("event loop held by history, at most", max(self._shares), "", None, 0.5)
        yield Figure("the median DID until live", 1000 * seconds["did"], "ms")
        yield Figure("as a part of all", seconds["did"] / seconds["all"], "x", None, 0.1)
        yield Figure("a collection of 1 % until live", 1000 * seconds["rare"], "ms")
        yield Figure("as a part of all", seconds["rare"] / seconds["all"], "x")
        whole = all(found["raw_bytes"] == day.raw_bytes for found in self._of("all", "zstd"))
        yield claim("every byte of the lines", holds=whole)
        at_end = all(found["cursor"] == day.last for found in self._found)
        yield claim("live behind the last record", holds=at_end)
        gaps = sum(found["gaps"] for found in self._found)
        yield claim("no gap", holds=not gaps)
        some = all(0 < found["raw_bytes"] < day.raw_bytes / 20 for found in self._of("did", "rare"))
        yield claim("filters select a part", holds=some)

    def _of(self, *names: str) -> Iterator[dict[str, Any]]:
        order = list(self._queries)
        return (each for at, each in enumerate(self._found) if order[at % len(order)] in names)

    def _held_seconds(self) -> float:
        return float(self._turbod.status()["server"]["history_seconds"])


def _one_reader(options: Options, day: Day) -> Iterator[Figure]:
    with (
        options.folder() as folder,
        Helper("world", hosts=1, accounts=50, posts=100) as world,
        Turbod(
            folder,
            upstream=world.started["upstreams"][0],
            appview=world.started["appview"],
            settings={"archive": day.folder, "collections": (POST, RARE)},
            profile=options.profile,
        ) as turbod,
        Helper("history_readers", port=turbod.port) as readers,
    ):
        one = _OneReader(day, turbod, readers)
        for _ in range(ROUNDS):
            one.round()
        yield from one.figures()
        turbod.stop()
        options.show_profile(turbod)


def _many_readers(options: Options, day: Day) -> Iterator[Figure]:
    """Let twelve read, each from another hour on, beside live events."""
    seconds = 60 if options.full else 12
    settings = {"archive": day.folder, "server-max-history-readers": READERS}
    with (
        load(options, accounts=2000, posts=POSTS, settings=settings) as made,
        Helper("history_readers", port=made.turbod.port) as readers,
    ):
        _subscribe(made)
        yield from _live(made, "no reader of history", seconds)
        begins = [day.names[number * HOURS // READERS].first for number in range(READERS)]
        queries = [f"cursor={cursor - 1}" for cursor in begins]
        held = made.turbod.status()["server"]["history_seconds"]
        readers.tell("go_round", queries=queries, seconds=seconds + 2)
        begun = time.monotonic()
        name = f"{READERS} readers"
        yield from _live(made, name, seconds, at_most=60)
        found = readers.answer()
        passed = time.monotonic() - begun
        held = made.turbod.status()["server"]["history_seconds"] - held
        yield Figure(f"{name}: lines, all together", found["raw_bytes"] / 1e6 / passed, "MB/s")
        yield Figure(f"{name}: event loop held", held / passed, "", None, 0.5)


def _sealing(options: Options, folder: Path) -> Iterator[Figure]:
    """Let a big hour be sealed and uploaded beside live events."""
    seconds = 90 if options.full else 45
    live = folder / "data" / "live"
    live.mkdir(parents=True)
    hour = this_hour() - HOUR_US
    with (live / records_name(hour)).open("wb") as file:
        file.writelines(lines_of_hour(hour, size=PLAIN_BYTES))
    # A bucket has a disk of its own: on ours its writes would hold up the log's syncs.
    with TemporaryDirectory(dir="/dev/shm") as memory, bucket(Path(memory)) as place:
        settings = {"data": folder / "data", "archive": place.url, "s3-endpoint": place.endpoint}
        with load(options, accounts=2000, posts=POSTS, settings=settings) as made:
            _subscribe(made)
            yield from _live(made, "while 600 MB are sealed and uploaded", seconds, at_most=60)
            archive = made.turbod.status()["archive"]
            yield Figure("sealing took", archive["sealer"]["last_seconds"], "s")
            is_stored = archive["archiver"]["uploaded"] == 1
            yield claim("sealed and uploaded meanwhile", holds=is_stored)


def _subscribe(made: Load) -> None:
    made.clients.ask("connect", count=1, keeps=True)
    made.clients.ask("connect", count=SUBSCRIBERS - 1)


def _live(
    made: Load, name: str, seconds: float, *, at_most: float | None = None
) -> Iterator[Figure]:
    """Let events go by; say how late subscribers had them."""
    spell = made.pace(seconds=seconds, beat_seconds=BEAT_SECONDS, each=1)
    found = made.clients.ask("latencies", every_record=True)
    yield Figure(f"{name}: p50", found["p50"], "ms")
    yield Figure(f"{name}: p99", found["p99"], "ms", at_most=at_most)
    yield Figure(f"{name}: slowest", found["max"], "ms")
    yield Figure(f"{name}: turbod's CPU", 100 * spell.share, "% core")
    yield Figure(f"{name}: the subscribers' own CPU", 100 * spell.clients_share, "% core")
    yield Figure(f"{name}: at worst: the sender's delay", 1000 * spell.late_seconds, "ms")
    store = 1000 * spell.longest_store_seconds
    yield Figure(f"{name}: at worst since the start: write and sync", store, "ms")
    is_whole = found["count"] == spell.events * SUBSCRIBERS and made.counts()["rising"]
    yield claim(f"{name}: each got every event once, in order", holds=is_whole)
