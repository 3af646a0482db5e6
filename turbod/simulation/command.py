"""A small Bluesky on loopback: Jetstream hosts and an AppView with believable traffic.

Prints the addresses and the `turbod serve` line that reads them. The same seed gives the same
accounts. Faults can be given here and while it runs, at the AppView's address:
curl "http://127.0.0.1:PORT/control?1:silent" and "...?1:silent=off".
"""

import argparse
import signal
import sys
from math import nan
from typing import Final

import trio

from turbod.simulation.control import BUDGET_WINDOW_SECONDS, NoSuchFault
from turbod.simulation.control import command as control
from turbod.simulation.world import Simulation, simulated

_STATUS_SECONDS: Final = 1.0
_MAX_HOSTS: Final = 8
# Together some 400 MB at the most, reached after hours.
_HISTORY_KEPT: Final = 200_000
_POSTS_KEPT: Final = 50_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `turbod simulate`."""
    add = parser.add_argument
    add("--hosts", type=_whole(1, _MAX_HOSTS), default=2, help="Jetstream hosts (default 2)")
    add(
        "--port",
        type=_whole(0, 65_000),
        default=0,
        help="of the first host; the others and the AppView follow (default 0: any that are free)",
    )
    add("--seed", type=int, default=1, help="the same seed, the same accounts (default 1)")
    add("--rate", type=_number, default=20, help="events a second (default 20)")
    add("--accounts", type=_whole(2, 1_000_000), default=1000, help="in all (default 1000)")
    add("--latency-ms", type=_number, default=40, help="of the AppView, median (default 40)")
    add("--failures", type=_share, default=0, help="share of AppView calls that fail (default 0)")
    add(
        "--calls-per-second",
        type=_number,
        default=0,
        help="the AppView's budget, with RateLimit headers and 429 above (default 0: none)",
    )
    add(
        "--indexing-delay-ms",
        type=_number,
        default=500,
        help="until the AppView knows what happened, median (default 500)",
    )
    add(
        "--history-seconds",
        type=_number,
        default=60,
        help="how much has happened already when it starts (default 60)",
    )
    add("--jetstream", choices=("v1", "v2"), default="v1", help="the hosts' kind (default v1)")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="HOST:NAME[=VALUE]",
        help="repeatable, such as 1:silent, 0:lag_seconds=40 or appview:fail=0.1",
    )


async def run(arguments: argparse.Namespace) -> None:
    """Run until SIGINT or SIGTERM."""
    refusal = ""
    try:
        await _simulate(arguments)
    except* OSError as errors:
        refusal = f"cannot listen: {errors.exceptions[0]}"
    except* NoSuchFault as errors:
        refusal = f"--fault: {errors.exceptions[0]}"
    if refusal:
        sys.exit(f"turbod simulate: {refusal}")


async def _simulate(arguments: argparse.Namespace) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with simulated(
            hosts=arguments.hosts,
            port=arguments.port,
            seed=arguments.seed,
            accounts=arguments.accounts,
            rate=arguments.rate,
            version=arguments.jetstream,
            indexing_delay_seconds=arguments.indexing_delay_ms / 1000,
            history_seconds=arguments.history_seconds,
            history_rate=arguments.rate,
            entries_kept=_HISTORY_KEPT,
            posts_kept=_POSTS_KEPT,
        ) as simulation:
            _make_as_asked(simulation, arguments)
            _print_addresses(simulation)
            async with trio.open_nursery() as nursery:
                if sys.stderr.isatty():
                    nursery.start_soon(_show_status, simulation)
                async for _ in signals:
                    break
                nursery.cancel_scope.cancel()


def _make_as_asked(simulation: Simulation, arguments: argparse.Namespace) -> None:
    appview = simulation.appview
    appview.latency_seconds = arguments.latency_ms / 1000
    appview.fail(arguments.failures)
    appview.control = lambda text: control(simulation, text)
    if arguments.calls_per_second:
        calls = max(1, int(arguments.calls_per_second * BUDGET_WINDOW_SECONDS))
        appview.budget = (calls, BUDGET_WINDOW_SECONDS)
    for fault in arguments.fault:
        control(simulation, fault)


def _print_addresses(simulation: Simulation) -> None:
    for number, host in enumerate(simulation.jetstreams):
        print(f"jetstream {number}: {host.url}")  # noqa: T201 - what the command is for
    print(f"appview: {simulation.appview.url}")  # noqa: T201
    upstreams = " ".join(f"--upstream {host.url}" for host in simulation.jetstreams)
    line = f"turbod serve {upstreams} --appview {simulation.appview.url}"
    print(line, flush=True)  # noqa: T201


async def _show_status(simulation: Simulation) -> None:
    statistics = simulation.appview.statistics
    while True:
        sent = " ".join(f"{host.messages_sent:,}" for host in simulation.jetstreams)
        calls = sum(statistics.outcomes.values())
        failed = calls - sum(
            count for (_, outcome), count in statistics.outcomes.items() if outcome == "200"
        )
        line = (
            f"\r{simulation.history.end:,} events, sent {sent}; "
            f"AppView: {calls:,} calls, {sum(statistics.items.values()):,} items, "
            f"{failed:,} refused or failed \x1b[K"
        )
        sys.stderr.write(line)
        sys.stderr.flush()
        await trio.sleep(_STATUS_SECONDS)


class _whole:  # noqa: N801 - reads as a type in the table above
    """A whole number within bounds."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def __call__(self, text: str) -> int:
        if not text.isdecimal() or not self._least <= int(text) <= self._most:
            expected = f"a whole number from {self._least} to {self._most}"
            raise argparse.ArgumentTypeError(f"was {text!r}: expected {expected}")
        return int(text)


def _number(text: str) -> float:
    return _between(text, 0, sys.float_info.max)


def _share(text: str) -> float:
    return _between(text, 0, 1)


def _between(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not least <= number <= most:
        bounds = f"from {least} to {most}" if most == 1 else f"of {least} or more"
        raise argparse.ArgumentTypeError(f"was {text!r}: expected a number {bounds}")
    return number
