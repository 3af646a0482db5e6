"""A day in bulk: `turbod archive get` beside boto3's download of the same objects, and `zstdcat`.

Each is a process of its own, started anew: what it takes to start is in its time. All that comes
goes to a pipe that is only read.
"""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.bucket import NAME, Bucket, bucket
from benchmarks.day import Day
from benchmarks.figures import Figure, claim
from benchmarks.history import believable_day
from benchmarks.options import Options
from benchmarks.processes import Helper, Turbod, cpu_seconds

ROUNDS: Final = 3
_PIPE_BYTES: Final = 1024 * 1024


def measure(options: Options) -> Iterator[Figure]:
    """Run it."""
    with options.folder() as folder:
        day = believable_day(folder / "s3" / NAME / "archive", options)
        yield from figures(folder, day)


def figures(folder: Path, day: Day) -> Iterator[Figure]:
    """Compare, where the day's objects are a bucket's below `folder / "s3"`."""
    yield Figure("objects", day.size / 1e6, "MB")
    yield Figure("their lines", day.raw_bytes / 1e6, "MB")
    with (
        bucket(folder / "s3") as place,
        Helper("world", hosts=1, accounts=50, posts=100) as world,
        Turbod(
            folder,
            upstream=world.started["upstreams"][0],
            appview=world.started["appview"],
            settings={"archive": day.folder, "archive-public": "true"},
        ) as turbod,
    ):
        bulk = _Bulk(day, place, turbod)
        for _ in range(ROUNDS):
            bulk.round()
        yield from bulk.figures()
        turbod.stop()


class _Bulk:
    """Rounds of every way to have all lines, or all objects."""

    def __init__(self, day: Day, place: Bucket, turbod: Turbod) -> None:
        get = [sys.executable, "-m", "turbod", "archive", "get"]
        keys = [f"archive/{name.key}" for name in day.names]
        boto3 = [sys.executable, "-m", "benchmarks.downloads", place.endpoint, NAME, *keys]
        self._commands: dict[str, Sequence[str]] = {
            "zstdcat of local objects": ["zstdcat", *map(str, day.paths)],
            "get from a folder": [*get, str(day.folder)],
            "boto3's download": boto3,
            "get from the bucket": [*get, place.url, "--s3-endpoint", place.endpoint],
            "get from a turbod": [*get, f"http://127.0.0.1:{turbod.port}"],
        }
        self._servers: Mapping[str, int] = {
            "boto3's download": place.pid,
            "get from the bucket": place.pid,
            "get from a turbod": turbod.pid,
        }
        self._day = day
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._cpu: dict[str, list[float]] = defaultdict(list)
        self._server_cpu: dict[str, list[float]] = defaultdict(list)
        self._wrong: list[str] = []

    def round(self) -> None:
        """Run each once."""
        for name, command in self._commands.items():
            pid = self._servers.get(name)
            before = cpu_seconds(pid) if pid is not None else 0
            seconds, cpu, output, size = _run(command)
            self._seconds[name].append(seconds)
            self._cpu[name].append(cpu)
            if pid is not None:
                self._server_cpu[name].append(cpu_seconds(pid) - before)
            is_boto3 = name.startswith("boto3")
            right = int(output) == self._day.size if is_boto3 else size == self._day.raw_bytes
            self._wrong += [] if right else [name]

    def figures(self) -> Iterator[Figure]:
        """Return medians of the rounds."""
        seconds = {name: median(found) for name, found in self._seconds.items()}
        for name in self._commands:
            yield Figure(name, seconds[name], "s")
            yield Figure(f"{name}: lines", self._day.raw_bytes / 1e6 / seconds[name], "MB/s")
            yield Figure(f"{name}: CPU", median(self._cpu[name]), "s")
            if name in self._servers:
                yield Figure(f"{name}: the server's CPU", median(self._server_cpu[name]), "s")
        cpu = {name: median(found) for name, found in self._cpu.items()}
        both = "boto3's download", "zstdcat of local objects"
        ratio = seconds["get from the bucket"] / sum(seconds[each] for each in both)
        yield Figure("get from the bucket / boto3, then zstdcat", ratio, "x", None, 1.25)
        ratio = cpu["get from the bucket"] / sum(cpu[each] for each in both)
        yield Figure("the same, of CPU time", ratio, "x")
        yield claim("each gave every byte", holds=not self._wrong)


def _run(command: Sequence[str]) -> tuple[float, float, bytes, int]:
    """Run a command; return how long it took, its CPU time, the end of its output, and its size."""
    buffer, size, output = bytearray(_PIPE_BYTES), 0, b""
    view = memoryview(buffer)
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)  # noqa: S603 - our own commands
    assert process.stdout is not None
    with process.stdout as pipe:
        while count := pipe.readinto(view):  # type: ignore[attr-defined]
            size += count
            output = bytes(view[max(count - 32, 0) : count])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command!r} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, output, size
