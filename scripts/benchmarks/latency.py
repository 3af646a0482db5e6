"""What turbod adds to events that need no call: from the sender's stamp to each subscriber.

The sender's own way to the socket, and the clients' from theirs, are in it.
"""

from collections.abc import Iterator
from typing import Final

from benchmarks.figures import Figure, claim
from benchmarks.load import load
from benchmarks.options import Options

SUBSCRIBERS: Final = 100
EVENTS_A_SECOND: Final = 1000
BEAT_SECONDS: Final = 0.005
POSTS: Final = 3000


def measure(options: Options) -> Iterator[Figure]:
    """Run it."""
    seconds = 60 if options.full else 15
    with load(options, accounts=2000, posts=POSTS) as made:
        made.clients.ask("connect", count=1, keeps=True)
        made.clients.ask("connect", count=SUBSCRIBERS - 1)
        each = round(EVENTS_A_SECOND * BEAT_SECONDS)
        spell = made.pace(seconds=seconds, beat_seconds=BEAT_SECONDS, each=each)
        found = made.clients.ask("latencies", every_record=True)
        counts = made.counts()
        yield Figure("events delivered x subscribers", found["count"])
        yield Figure("p50", found["p50"], "ms", at_most=25)
        yield Figure("p90", found["p90"], "ms")
        yield Figure("p99", found["p99"], "ms", at_most=60)
        yield Figure("slowest", found["max"], "ms")
        yield Figure("turbod's CPU", 100 * spell.share, "% core")
        yield Figure("at worst: the sender's delay", 1000 * spell.late_seconds, "ms")
        yield Figure("at worst: write and sync", 1000 * spell.longest_store_seconds, "ms")
        complete = found["count"] == spell.events * SUBSCRIBERS and counts["rising"]
        yield claim("each got every event once, in order", holds=complete)
