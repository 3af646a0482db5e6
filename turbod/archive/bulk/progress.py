"""How far a command has come: a bar on a terminal, a line every ten seconds anywhere else."""

import sys
import time
from collections.abc import Callable
from typing import Final, Self

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from turbod.archive.bulk.walk import Progress as Way

LINE_SECONDS: Final = 10.0
_MEGABYTE: Final = 1_000_000

log = structlog.get_logger()


class Bar:
    """Says on standard error how far it is; nothing where the records go to the same terminal."""

    def __init__(
        self,
        what: str,
        *,
        records_to_terminal: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        console = Console(stderr=True)
        is_terminal = sys.stderr.isatty() and not console.is_dumb_terminal
        self._has_lines = not is_terminal
        self._clock = clock
        self._begin = self._told = clock()
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn(what),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not is_terminal or records_to_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, way: Way) -> None:
        """Show where it is, and how fast it came there."""
        seconds = max(self._clock() - self._begin, 0.001)
        if self._has_lines:
            self._say(way, seconds)
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=None, rate="")
        rate = (
            f"{way.records:,} records, {way.records / seconds:,.0f}/s, "
            f"{way.raw_bytes / seconds / _MEGABYTE:,.0f} MB/s"
        )
        self._progress.update(
            self._task, total=way.total_bytes, completed=way.passed_bytes, rate=rate
        )

    def _say(self, way: Way, seconds: float) -> None:
        """Say it in a line, where the last one is long enough ago."""
        if self._begin + seconds - self._told < LINE_SECONDS:
            return
        self._told = self._begin + seconds
        left = way.total_bytes - way.passed_bytes
        log.info(
            "archive_progress",
            percent=round(100 * way.passed_bytes / max(way.total_bytes, 1), 1),
            records=way.records,
            records_per_second=round(way.records / seconds),
            megabytes_per_second=round(way.raw_bytes / seconds / _MEGABYTE),
            seconds_left=round(left * seconds / way.passed_bytes) if way.passed_bytes else None,
        )
