"""Away for an hour, and back: everything hydrated, in the time that the AppView's budget needs.

The hour is a scaled one by default. The network's clock is set back while turbod sees its first
events, then set right, and the time between has happened meanwhile.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from benchmarks.figures import Figure, claim
from benchmarks.load import MEGABYTE
from benchmarks.network import key
from benchmarks.options import Options
from benchmarks.processes import Helper, Turbod, highest_resident_bytes, resident_bytes, until
from turbod.record import read_line

EVENTS_A_SECOND: Final = 50
ACCOUNTS: Final = 20_000
BUDGET: Final = (3000, 300.0)  # as a PDS gives them: ten a second
LATENCY_SECONDS: Final = 0.04
BEFORE_SECONDS: Final = 5.0
AWAY_SECONDS: Final = 300.0
HOUR_SECONDS: Final = 3600.0
CAUGHT_UP_SECONDS: Final = 3.0
LIVE_SECONDS: Final = 10.0
_SAMPLE_SECONDS: Final = 0.5


@dataclass(slots=True)
class Journey:
    """What was seen on the way back."""

    states: list[tuple[float, str, float]] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    seconds: float = 0.0


def measure(options: Options) -> Iterator[Figure]:
    """Run it."""
    away = HOUR_SECONDS if options.full else AWAY_SECONDS
    with (
        options.folder() as folder,
        Helper("network", accounts=ACCOUNTS, indexing_delay_seconds=0.5) as network,
    ):
        network.ask("set_back", seconds=away)
        with Turbod(
            folder,
            upstream=network.started["upstream"],
            appview=network.started["appview"],
            profile=options.profile,
        ) as turbod:
            _leave(network, turbod)
            network.ask("set_back", seconds=0)
            missed = network.ask("live_through", seconds=away, rate=EVENTS_A_SECOND)["events"]
            before = network.ask("calls")
            network.ask(
                "appview", calls=BUDGET[0], seconds=BUDGET[1], latency_seconds=LATENCY_SECONDS
            )
            network.ask("rate", per_second=EVENTS_A_SECOND)
            turbod.start()
            with Helper("clients", port=turbod.port) as clients:
                clients.ask("connect", count=1, keeps=True)
                journey = _come_back(turbod, away)
                after = network.ask("calls")
                time.sleep(LIVE_SECONDS)
                clients.ask("connect", count=1, keeps=True)  # its first #cursor says how it is now
                told = clients.ask("told")["told"]
            network.ask("rate", per_second=0)
            yield Figure("events missed", missed)
            yield from _figures(options, turbod, journey, before, after)
            yield from _checks(network, turbod, journey, told)
            turbod.stop()
            options.show_profile(turbod)


def _leave(network: Helper, turbod: Turbod) -> None:
    """See the first events, and go."""
    network.ask("rate", per_second=EVENTS_A_SECOND)
    time.sleep(BEFORE_SECONDS)
    network.ask("rate", per_second=0)
    expected = len(network.ask("logged")["keys"])
    until("seen", lambda: turbod.status()["log"]["records"] >= expected, seconds=60)
    turbod.stop()


def _come_back(turbod: Turbod, away: float) -> Journey:
    """Watch it until it has caught up."""
    journey, begun = Journey(), time.monotonic()
    while True:
        time.sleep(_SAMPLE_SECONDS)
        status = turbod.status()
        journey.seconds = time.monotonic() - begun
        # Records are in order per DID only: the newest may be out while old ones wait for views.
        lag = max(status["lag_seconds"], status["hydration"]["oldest_waiting_seconds"])
        journey.states.append((journey.seconds, status["upstream"], lag))
        journey.resident.append(resident_bytes(turbod.pid))
        if status["upstream"] == "live" and lag < CAUGHT_UP_SECONDS:
            return journey
        if journey.seconds > away:
            raise TimeoutError(f"not caught up after {away:g} s: {status}")


def _figures(
    options: Options,
    turbod: Turbod,
    journey: Journey,
    before: dict[str, Any],
    after: dict[str, Any],
) -> Iterator[Figure]:
    budget = BUDGET[0] / BUDGET[1]
    needed = (after["least_calls"] - before["least_calls"]) / budget
    made = (after["calls"] - before["calls"]) / budget
    yield Figure("until live again", journey.seconds, "s")
    yield Figure("what the budget needs, distinct items in full calls", needed, "s")
    yield Figure("what the budget needs, calls as they were made", made, "s")
    yield Figure("time / need", journey.seconds / needed, "x", at_most=1.25)
    yield Figure("items asked for", after["items"] - before["items"])
    yield Figure("distinct ones", after["distinct"] - before["distinct"])
    quarter = max(len(journey.resident) // 4, 1)
    growth = journey.resident[-1] - max(journey.resident[quarter : 2 * quarter])
    # A scaled hour only fills the cache, so its memory cannot be flat.
    most = 16 if options.full else None
    yield Figure("memory: growth over the second half", growth / MEGABYTE, "MB", at_most=most)
    highest = highest_resident_bytes(turbod.pid) / MEGABYTE
    yield Figure("memory: most", highest, "MB", at_most=400)


def _checks(
    network: Helper, turbod: Turbod, journey: Journey, told: list[dict[str, Any]]
) -> Iterator[Figure]:
    keys = sorted(network.ask("logged")["keys"])
    until("all logged", lambda: len(turbod.lines()) >= len(keys), seconds=60)
    logged = sorted(key(read_line(line)[1]) for line in turbod.lines())
    yield claim("every event in the log, once", holds=keys == logged)
    yield Figure("views unresolved", turbod.status()["hydration"]["unresolved"], at_most=0)
    wrong = [seen for seen in journey.states if seen[1] == "live" and seen[2] > LIVE_SECONDS]
    yield Figure("said to be live while it was not", len(wrong), "times", at_most=0)
    states = [item["upstream"] for item in told if item["$type"] == "#cursor"]
    said = [state for state, _ in groupby(states)]
    words = f"#cursor said {', then '.join(said)}"
    yield claim(words, holds=said == ["catching_up", "live"])
