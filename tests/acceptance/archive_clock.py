"""A clock that tests put forward, for turbod and the network alike; where its archive is then."""

from pathlib import Path
from typing import Final

import trio

from tests.acceptance.archive_places import BucketPlace, FolderPlace, Place
from tests.archive.faulty_s3 import FaultyS3
from tests.archive.s3_servers import S3Server
from turbod.simulation.jetstream_host import clock_us

HOUR_US: Final = 3_600_000_000
# The beginning of a program that runs `turbod` with a clock that is off by the seconds in the file
# of its first argument, and keeps only as many bytes of hours on its disk as the second says; 0 for
# the default.
BY_THIS_CLOCK: Final = """
import pathlib, sys, time
from turbod import cli, daemon
from turbod.archive.upload import bounds
clock, kept = pathlib.Path(sys.argv.pop(1)), int(sys.argv.pop(1))
daemon.now_us = lambda: time.time_ns() // 1000 + int(clock.read_text()) * 1_000_000
made = bounds.Bounds.__init__
def make(self, *arguments, log_max_bytes, **more):
    made(self, *arguments, log_max_bytes=kept or log_max_bytes, **more)
bounds.Bounds.__init__ = make
"""


class Clock:
    """A clock that goes as the real one does, and that may be put forward."""

    def __init__(self, file: Path) -> None:
        self.hours = 0
        self._file = file
        file.write_text("0")

    def now_us(self) -> int:
        """Return the microseconds since the Unix epoch."""
        return clock_us() + self.hours * HOUR_US

    def advance(self, hours: int = 1) -> None:
        """Let hours pass."""
        self.hours += hours
        self._file.with_suffix(".new").write_text(str(self.hours * 3600))
        self._file.with_suffix(".new").rename(self._file)

    def program(self, rest: str, *, kept_bytes: int) -> tuple[str, ...]:
        """Return what Python runs, so that turbod goes by this clock, and does `rest`."""
        return ("-c", BY_THIS_CLOCK + rest, str(self._file), str(kept_bytes))


async def archive_place(
    server: S3Server | None, data: Path, nursery: trio.Nursery
) -> tuple[FaultyS3 | None, Place]:
    """Return where the archive is: in a new bucket behind a proxy, or the data folder."""
    if server is None:
        return None, FolderPlace(data / "archive")
    proxy = FaultyS3(server.port)
    await nursery.start(proxy.run)
    return proxy, BucketPlace(server, server.bucket())


def location(proxy: FaultyS3 | None, place: Place) -> dict[str, object]:
    """Return turbod's options that name it."""
    return {**place.options, "s3-endpoint": proxy.endpoint} if proxy else {}
