"""The command: runs the named benchmarks, or all, and prints each figure beside its bound."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks import (
    bulk,
    calls,
    catching_up,
    fan_out,
    history,
    latency,
    memory,
    sizing,
    small,
    stages,
    throughput,
)
from benchmarks.figures import Figure, load_average, say
from benchmarks.options import Options

ALL: Final[dict[str, Callable[[Options], Iterator[Figure]]]] = {
    "stages": stages.measure,
    "throughput": throughput.measure,
    "requests": calls.measure,
    "catching_up": catching_up.measure,
    "latency": latency.measure,
    "fan_out": fan_out.measure,
    "memory": memory.measure,
    "sizing": sizing.measure,
    "small": small.measure,
    "history": history.measure,
    "bulk": bulk.measure,
}


def main() -> int:
    """Run, and return 1 where a bound was missed."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}")
    parser.add_argument("--full", action="store_true", help="whole sizes: an hour in all")
    parser.add_argument("--profile", action="store_true", help="say where the daemon's time goes")
    parser.add_argument("--data", type=Path, metavar="DIR", help="on the disk to be measured")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(ALL):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    # Ended from outside, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = Options(arguments.full, arguments.profile, arguments.data)
    missed = [name for name in arguments.names or ALL if not _run(name, options)]
    say(f"missed: {', '.join(missed)}" if missed else "all bounds met")
    return bool(missed)


def _run(name: str, options: Options) -> bool:
    say(f"{name} ({load_average()})")
    begun = time.monotonic()
    is_met = True
    for figure in ALL[name](options):
        say(figure.line())
        is_met = is_met and figure.is_met
    say(f"  took {time.monotonic() - begun:.0f} s ({load_average()})")
    return is_met


if __name__ == "__main__":
    sys.exit(main())
