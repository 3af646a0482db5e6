"""The stage: the simulated network, an S3 server, a disk, our own clock, one turbod."""

import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from mmap import mmap
from pathlib import Path
from typing import Final

import trio

from soaking.ledger import Ledger
from tests.acceptance.archive_places import BucketPlace
from tests.acceptance.process import Turbod, serving
from tests.archive.faulty_s3 import FaultyS3
from tests.archive.s3_servers import rclone_server
from turbod.simulation.world import Simulation, simulated

HOUR_US: Final = 3_600_000_000
DISK_BYTES: Final = 1_000_000_000
ENTRIES_KEPT: Final = 150_000  # far more than a host that comes back is asked for
POSTS_KEPT: Final = 20_000
ACCOUNTS: Final = 5_000
# `turbod` with a clock that is ahead by the microseconds in a file, read as memory.
AHEAD: Final = """
import mmap, sys, time
from turbod import cli, daemon
with open(sys.argv.pop(1), "r+b") as file:
    ahead = mmap.mmap(file.fileno(), 8)
daemon.now_us = lambda: time.time_ns() // 1000 + int.from_bytes(ahead[:8], "little")
cli.main()
"""
SETTINGS: Final = {
    "hydration-calls-per-second": 2000,
    "cache-disk-bytes": 60_000_000,  # reached within minutes
    "cache-memory-bytes": 16_000_000,
    "log-max-bytes": 250_000_000,
    "archive-read-ahead-bytes": 67_108_864,
    "jetstream-silence-seconds": 2,
    "jetstream-ping-seconds": 1,
    "jetstream-longest-backoff-seconds": 1,
}


class Clock:
    """A clock that goes as the real one does, and is put forward by hours."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._ahead = mmap(opened.fileno(), 8)
        self._ahead_us = 0

    def now_us(self) -> int:
        """Return the microseconds since the Unix epoch."""
        return time.time_ns() // 1000 + self._ahead_us

    def next_hour(self) -> None:
        """Put it to the beginning of the next hour."""
        self._ahead_us += HOUR_US - self.now_us() % HOUR_US
        self._ahead[:8] = self._ahead_us.to_bytes(8, "little")


class Stage:
    """All that there is.

    Attributes:
        settings_file: what SIGHUP makes turbod read again.
        can_fill: whether the data folder is a small disk of its own.
    """

    def __init__(
        self,
        *,
        simulation: Simulation,
        turbod: Turbod,
        proxy: FaultyS3,
        place: BucketPlace,
        clock: Clock,
        settings_file: Path,
        can_fill: bool,
    ) -> None:
        self.simulation = simulation
        self.turbod = turbod
        self.proxy = proxy
        self.place = place
        self.clock = clock
        self.settings_file = settings_file
        self.can_fill = can_fill
        self.ledger = Ledger()


@asynccontextmanager
async def stage(folder: Path, *, seed: int) -> AsyncIterator[Stage]:
    """Set it all up in a folder; nothing happens yet."""
    clock = Clock(folder / "clock")
    settings_file = folder / "turbod.toml"
    settings_file.write_text("")
    with _disk(folder / "data") as can_fill, rclone_server() as server:
        async with trio.open_nursery() as nursery:
            proxy = FaultyS3(server.port)
            await nursery.start(proxy.run)
            place = BucketPlace(server, server.bucket())
            archive = {**place.options, "s3-endpoint": proxy.endpoint}
            async with (
                simulated(
                    seed=seed,
                    accounts=ACCOUNTS,
                    posts_kept=POSTS_KEPT,
                    entries_kept=ENTRIES_KEPT,
                    now_us=clock.now_us,
                ) as simulation,
                serving(
                    simulation,
                    folder / "data",
                    options={"config": settings_file, **SETTINGS, **archive},
                    program=("-c", AHEAD, str(folder / "clock")),
                ) as turbod,
            ):
                yield Stage(
                    simulation=simulation,
                    turbod=turbod,
                    proxy=proxy,
                    place=place,
                    clock=clock,
                    settings_file=settings_file,
                    can_fill=can_fill,
                )
            nursery.cancel_scope.cancel()


@contextmanager
def _disk(folder: Path) -> Iterator[bool]:
    """Make the data folder, where we may on a small disk of its own; tell whether it is."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    is_disk = os.geteuid() == 0 and not subprocess.run(mount, check=False).returncode  # noqa: S603 - ours
    try:
        yield is_disk
    finally:
        if is_disk:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607 - ours
