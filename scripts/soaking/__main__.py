"""turbod under load and faults, every trouble in turn, and the reckoning at the end.

Prints a line for each of its hours, then each figure beside its bound; the exit code is 1 where one
was missed. Where root runs it, the data folder is a small disk in memory, which gets full as well.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from benchmarks.figures import load_average, say

from soaking.run import soak

SHORT, LONG = 200_000, 20_000_000


def main() -> int:
    """Run, and return 1 where a bound was missed."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    add = parser.add_argument
    add("--events", type=int, default=SHORT, help=f"default {SHORT:,}; a long one is {LONG:,}")
    add("--seed", type=int, default=1, help="of everything that is random (default 1)")
    add("--data", type=Path, metavar="DIR", help="where files go (default: a folder in /tmp)")
    arguments = parser.parse_args()
    # Ended from outside, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with TemporaryDirectory(prefix="turbod-soak-", dir=arguments.data) as folder:
        missed = trio.run(_run, Path(folder), arguments.events, arguments.seed)
    say(f"missed: {', '.join(missed)}" if missed else "all bounds met")
    return bool(missed)


async def _run(folder: Path, events: int, seed: int) -> list[str]:
    say(f"{events:,} events, seed {seed} ({load_average()})")
    begun = time.monotonic()
    missed = []
    for figure in await soak(folder, events=events, seed=seed):
        say(figure.line())
        missed += [] if figure.is_met else [figure.name.strip()]
    say(f"  took {time.monotonic() - begun:.0f} s ({load_average()})")
    return missed


if __name__ == "__main__":
    sys.exit(main())
