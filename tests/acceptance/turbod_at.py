"""turbod with its wall clock set: `python -m tests.acceptance.turbod_at MICROSECONDS serve ...`."""

import sys
import time

from turbod import cli, daemon

_START_US = int(sys.argv.pop(1))
_STARTED = time.monotonic_ns()


def now_us() -> int:
    """Return the time since the start, from the moment that was asked for."""
    return _START_US + (time.monotonic_ns() - _STARTED) // 1000


if __name__ == "__main__":
    daemon.now_us = now_us
    cli.main()
