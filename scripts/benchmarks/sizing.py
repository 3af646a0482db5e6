"""What a network of posts asks of a machine, counted for docs/operations.md: bytes and calls.

Nothing is timed. Records are believable ones, lines and frames turbod's own; views are asked for
again at the ages that the settings have. What the stream outdates earlier is not in it.
"""

from collections.abc import Iterator
from typing import Final

from benchmarks.believable import Believable
from benchmarks.figures import Figure
from benchmarks.network import ITEMS_A_CALL
from benchmarks.options import Options
from turbod import frames
from turbod.config import CacheSettings
from turbod.cursor import HOUR_US
from turbod.hydration.assembly import wanted
from turbod.record import Record

RATE: Final = 40  # posts a second
RATES: Final = (25, RATE, 100)  # with `--full`
RECORDS: Final = 20_000
_SECOND_US: Final = 1_000_000
_HOURS: Final = 2  # the first one fills the cache, the second is counted


def measure(options: Options) -> Iterator[Figure]:
    """Count the bytes of a post on its way, then the views that its rate asks for."""
    yield from _bytes(list(Believable().records(RECORDS)))
    for rate in RATES if options.full else (RATE,):
        yield from _views(rate)


def _bytes(records: list[tuple[int, Record]]) -> Iterator[Figure]:
    lines = [record.line(cursor) for cursor, record in records]
    raw = sum(map(len, lines)) / len(lines)
    yield Figure("an event from one Jetstream host", _mean_message(records), "B")
    yield Figure("its record, to a subscriber", raw, "B")
    for batch in (1, 100):
        messages = [lines[first : first + batch] for first in range(0, RECORDS, batch)]
        packed = sum(len(frames.compressed(frames.array(each))) for each in messages) / RECORDS
        yield Figure(f"with compress=zstd, {batch} in a message", packed, "B")


def _mean_message(records: list[tuple[int, Record]]) -> float:
    return sum(len(record.event.message) for _, record in records) / len(records)


def _views(rate: int) -> Iterator[Figure]:
    """Count what is not in a cache of the default ages, in the second hour."""
    network = Believable(step_us=_SECOND_US // rate)
    ages = {True: CacheSettings().post_seconds, False: CacheSettings().profile_seconds}
    asked_us: dict[str, int] = {}
    uses = misses = 0
    begin = end = 0
    for now_us, record in network.records(_HOURS * 3600 * rate):
        begin, end = begin or now_us, now_us
        is_counted = now_us > begin + HOUR_US
        for key in wanted(record.event):
            age_us = now_us - asked_us.get(key, -HOUR_US * 1000)
            is_missing = age_us > ages[key.startswith("at:")] * _SECOND_US
            if is_missing:
                asked_us[key] = now_us
            uses += is_counted
            misses += is_counted and is_missing
    seconds = (end - begin) / _SECOND_US - 3600
    yield Figure(f"{rate} posts/s: views wanted", uses / seconds, "/s")
    yield Figure(f"{rate} posts/s: of them in the cache", 100 * (1 - misses / uses), "%")
    yield Figure(f"{rate} posts/s: full calls needed", misses / seconds / ITEMS_A_CALL, "/s")
