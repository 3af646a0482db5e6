"""How few calls hydration needs where the budget is short, and how soon they go where it is not.

Both begin with an empty cache. The floor is what the distinct items asked for would take in full
calls; items asked for again (a post that the AppView did not have yet, a profile that changed) are
counted apart.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any, Final

from benchmarks.figures import Figure, claim, percentile
from benchmarks.network import ITEMS_A_CALL, key
from benchmarks.options import Options
from benchmarks.processes import Helper, Turbod, until
from turbod.record import read_line

EVENTS_A_SECOND: Final = 100
ACCOUNTS: Final = 20_000
INDEXING_SECONDS: Final = 0.5
LATENCY_SECONDS: Final = 0.04
FLOOR_SHARE: Final = 1.3
PLENTY: Final = (20_000, 10.0)
WINDOW_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 180.0


def measure(options: Options) -> Iterator[Figure]:
    """Run with budget to spare, which tells the floor, then with little more than that."""
    seconds = 300 if options.full else 40
    with _network(options, hook=True) as (network, turbod):
        _live(network, turbod, seconds, PLENTY)
        waits = network.ask("waits")["waits"]
        least = network.ask("calls")["least_calls"]
        yield from _checks(network, turbod, "to spare")
        turbod.stop()
        fills = json.loads(turbod.waits_path.read_bytes())
        yield Figure("to spare: calls", len(fills))
        yield Figure("to spare: longest wait to fill", max(fills), "ms", at_most=250)
        yield Figure("to spare: p99 from event to AppView", percentile(waits, 99), "ms")
        yield Figure("to spare: slowest from event to AppView", max(waits), "ms")
    rate = FLOOR_SHARE * least / seconds
    with _network(options) as (network, turbod):
        took = _live(network, turbod, seconds, (ceil(rate * WINDOW_SECONDS), WINDOW_SECONDS))
        yield Figure("short: calls allowed", rate, "/s")
        yield Figure("short: until all was hydrated", took, "s")
        yield from _economy(network.ask("calls"))
        yield from _checks(network, turbod, "short")


@contextmanager
def _network(options: Options, *, hook: bool = False) -> Iterator[tuple[Helper, Turbod]]:
    with (
        options.folder() as folder,
        Helper("network", accounts=ACCOUNTS, indexing_delay_seconds=INDEXING_SECONDS) as network,
        Turbod(
            folder,
            upstream=network.started["upstream"],
            appview=network.started["appview"],
            profile=options.profile,
            hook=hook,
        ) as turbod,
    ):
        yield network, turbod
        turbod.stop()
        options.show_profile(turbod)


def _live(network: Helper, turbod: Turbod, seconds: float, budget: tuple[int, float]) -> float:
    """Let events happen, and wait until all are hydrated; return how long it all took."""
    begun = time.monotonic()
    network.ask("appview", calls=budget[0], seconds=budget[1], latency_seconds=LATENCY_SECONDS)
    network.ask("rate", per_second=EVENTS_A_SECOND)
    time.sleep(seconds)
    network.ask("rate", per_second=0)
    expected = len(network.ask("logged")["keys"])
    until(
        "hydrated",
        lambda: turbod.status()["log"]["records"] >= expected,
        seconds=DRAIN_SECONDS,
        every=0.2,
    )
    return time.monotonic() - begun


def _economy(calls: dict[str, Any]) -> Iterator[Figure]:
    again = calls["items"] - calls["distinct"]
    alone = calls["calls"] - again / ITEMS_A_CALL
    yield Figure("short: calls", calls["calls"])
    yield Figure("short: the floor", calls["least_calls"])
    yield Figure("short: items asked for again", again)
    yield Figure("short: calls refused (429) or failed", calls["refused"])
    yield Figure("short: calls / floor, all of them", calls["calls"] / calls["least_calls"], "x")
    ratio = alone / calls["least_calls"]
    yield Figure("short: calls / floor, asked again apart", ratio, "x", at_most=1.1)


def _checks(network: Helper, turbod: Turbod, name: str) -> Iterator[Figure]:
    keys = sorted(network.ask("logged")["keys"])
    lines = turbod.lines()
    logged = sorted(key(read_line(line)[1]) for line in lines)
    yield claim(f"{name}: every event in the log, once", holds=keys == logged)
    unresolved = turbod.status()["hydration"]["unresolved"]
    yield Figure(f"{name}: views unresolved", unresolved, at_most=0)
