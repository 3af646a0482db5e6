"""Memory at default settings: under the fan-out load, then over many events."""

from collections.abc import Iterator
from statistics import median
from typing import Final

from benchmarks.fan_out import MESSAGE_BYTES, MESSAGES_A_SECOND, SUBSCRIBERS
from benchmarks.figures import Figure, claim
from benchmarks.load import MEGABYTE, load
from benchmarks.options import Options

POSTS: Final = 30_000  # their views and their authors' fill the cache in memory
ACCOUNTS: Final = 20_000
EVENTS_A_SECOND: Final = 2500
BEAT_SECONDS: Final = 0.02
SUBSCRIBERS_LEFT: Final = 20  # while many events go by
FAN_OUT_SECONDS: Final = 20.0


def measure(options: Options) -> Iterator[Figure]:
    """Run it."""
    events = 1_000_000 if options.full else 200_000
    with load(options, accounts=ACCOUNTS, posts=POSTS) as made:
        yield Figure("after start and a full cache", made.highest_megabytes(), "MB")
        made.clients.ask("connect", count=SUBSCRIBERS)
        each = round(MESSAGE_BYTES / made.record_bytes())
        spell = made.pace(seconds=FAN_OUT_SECONDS, beat_seconds=1 / MESSAGES_A_SECOND, each=each)
        yield Figure("under the fan-out load", max(spell.resident) / MEGABYTE, "MB", at_most=400)
        made.clients.ask("close", leave=SUBSCRIBERS_LEFT)
        each = round(EVENTS_A_SECOND * BEAT_SECONDS)
        seconds = events / EVENTS_A_SECOND
        spell = made.pace(seconds=seconds, beat_seconds=BEAT_SECONDS, each=each)
        quarter = len(spell.resident) // 4
        before, after = spell.resident[quarter : 2 * quarter], spell.resident[-quarter:]
        yield Figure(f"over {spell.events:,} events more", after[-1] / MEGABYTE, "MB", at_most=400)
        growth = (median(after) - median(before)) / MEGABYTE
        yield Figure("growth from the second to the last quarter of these", growth, "MB", at_most=8)
        yield Figure("most memory ever", made.highest_megabytes(), "MB", at_most=400)
        counts = made.counts()
        alike = counts["fewest_messages"] == counts["most_messages"] > 0 and counts["rising"]
        open_still = counts["open"] == SUBSCRIBERS_LEFT
        yield claim("each subscriber got every message", holds=alike and open_still)
        status = made.turbod.status()
        yield Figure("the log on disk", status["log"]["disk_bytes"] / MEGABYTE, "MB")
        yield Figure("the cache on disk", status["cache"]["disk_bytes"] / MEGABYTE, "MB")
        told = status["log"]["disk_bytes"] == made.turbod.log_bytes()
        yield claim("the log is as large as status says", holds=told)
