"""Many subscribers of one stream, stuck and slow ones among them; many filters."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from benchmarks.figures import Figure, claim
from benchmarks.load import Load, load
from benchmarks.options import Options

SUBSCRIBERS: Final = 500
MESSAGES_A_SECOND: Final = 20
MESSAGE_BYTES: Final = 50_000
POSTS: Final = 3000
FILTERS: Final = 1000
DIDS: Final = 1000
ACCOUNTS: Final = 20_000
UNIVERSE: Final = 400_000  # of which a filter draws: a network of which one in twenty posts
FILTERED_EVENTS_A_SECOND: Final = 500
FILTERED_BEAT_SECONDS: Final = 0.01


def measure(options: Options) -> Iterator[Figure]:
    """Run all three."""
    seconds = 60 if options.full else 15
    with load(options, accounts=2000, posts=POSTS) as made:
        made.clients.ask("connect", count=1, keeps=True)
        made.clients.ask("connect", count=SUBSCRIBERS - 1)
        yield from _broadcast(made, seconds, f"{SUBSCRIBERS} subscribers")
        made.clients.ask("connect", count=1, pace="stuck")
        made.clients.ask("connect", count=10, pace="slow")
        yield from _broadcast(made, seconds, "and 1 stuck, 10 slow")
        yield Figure("most memory", made.highest_megabytes(), "MB", at_most=400)
    with load(options, accounts=ACCOUNTS, posts=POSTS) as made:
        yield from _filtered(made, seconds)
        yield Figure("most memory", made.highest_megabytes(), "MB", at_most=400)


def _broadcast(made: Load, seconds: float, name: str) -> Iterator[Figure]:
    each = round(MESSAGE_BYTES / made.record_bytes())
    spell = made.pace(seconds=seconds, beat_seconds=1 / MESSAGES_A_SECOND, each=each)
    counts = made.counts()
    found = made.clients.ask("latencies", every_record=False)
    lines = b"".join(line + b"\n" for line in made.turbod.lines()[-spell.events :])
    messages = counts["messages"] / SUBSCRIBERS
    yield Figure(f"{name}: messages a second each", messages / seconds)
    yield Figure(f"{name}: bytes a message", counts["most_bytes"] / messages)
    yield Figure(f"{name}: turbod's CPU", 100 * spell.share, "% core", at_most=35)
    yield Figure(f"{name}: the clients' own CPU", 100 * spell.clients_share, "% core")
    yield Figure(f"{name}: delivery p50", found["p50"], "ms")
    yield Figure(f"{name}: delivery p99", found["p99"], "ms", at_most=60)
    yield Figure(f"{name}: slowest sync", 1000 * spell.longest_store_seconds, "ms")
    alike = counts["rising"] and counts["fewest_messages"] == counts["most_messages"]
    digest = sha256(lines).hexdigest()
    whole = counts["kept"] == [{"records": spell.events, "sha256": digest}]
    yield claim(f"{name}: each got every message, as on disk", holds=alike and whole)


def _filtered(made: Load, seconds: float) -> Iterator[Figure]:
    # From another address, for turbod bounds the connections of each.
    made.clients.ask(
        "connect", count=FILTERS, keeps=True, source="127.0.0.2", dids=DIDS, universe=UNIVERSE
    )
    each = round(FILTERED_EVENTS_A_SECOND * FILTERED_BEAT_SECONDS)
    spell = made.pace(seconds=seconds, beat_seconds=FILTERED_BEAT_SECONDS, each=each)
    found = made.clients.ask("latencies", every_record=True)
    path = made.folder / "sent.jsonl"
    path.write_bytes(b"\n".join(made.turbod.lines()[-spell.events :]))
    checked = made.clients.ask("check_filters", lines=str(path))
    name = f"{FILTERS} filters of {DIDS} DIDs"
    yield Figure(f"{name}: records a second, all", checked["records"] / seconds)
    yield Figure(f"{name}: turbod's CPU", 100 * spell.share, "% core", at_most=35)
    yield Figure(f"{name}: delivery p50", found["p50"], "ms")
    yield Figure(f"{name}: delivery p99", found["p99"], "ms", at_most=60)
    yield Figure(f"{name}: slowest sync", 1000 * spell.longest_store_seconds, "ms")
    yield claim(f"{name}: each got exactly its own", holds=not checked["wrong"])
