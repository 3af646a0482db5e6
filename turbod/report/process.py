"""What the process takes from its machine."""

import os
import resource
import time
from pathlib import Path

import msgspec


class ProcessStatistics(msgspec.Struct, frozen=True):
    """As of now.

    Attributes:
        open_files: descriptors, sockets among them.
        max_open_files: the limit (RLIMIT_NOFILE).
    """

    resident_bytes: int
    cpu_seconds: float
    open_files: int
    max_open_files: int


def statistics() -> ProcessStatistics:
    """Return what it takes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return ProcessStatistics(
        resident_bytes=pages * resource.getpagesize(),
        cpu_seconds=round(time.process_time(), 3),
        open_files=sum(1 for _ in os.scandir("/proc/self/fd")),
        max_open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
