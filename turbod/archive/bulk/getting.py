"""`turbod archive get`: records from an archive, to standard output or into files."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Final, cast

import structlog
import trio

from turbod.archive.bulk import asking
from turbod.archive.bulk.output import (
    AppendedFile,
    CannotWrite,
    HourFiles,
    LinesFile,
    Output,
    StandardOutput,
    WholeFile,
)
from turbod.archive.bulk.parts import END, Asked
from turbod.archive.bulk.progress import Bar
from turbod.archive.bulk.walk import Piece, walk
from turbod.archive.stores.store import Source
from turbod.config import ConfigError
from turbod.cursor import HOUR_US, hour_name
from turbod.filter import Filter

INCOMPLETE: Final = 3  # the exit code where records are missing
_STANDARD: Final = "-"  # as an output

log = structlog.get_logger()

_HELP = """\
Records from an archive, one JSON object a line, in order of cursor.

  turbod archive get data/archive --from -1d | jq .did
  turbod archive get s3://bucket/prefix --from 2026-11-20T00:00:00Z --until 2026-11-21T00:00:00Z \\
      --collections app.bsky.feed.post --output posts.jsonl
  turbod archive get https://turbod.example --output hours --by-hour --format parquet

--output FILE that is there already is gone on with after its last whole line, whatever --from
says: so the same command, given again after an interruption, completes it. --by-hour takes the
whole hours that --from and --until touch, and passes over those that are there already.

Parquet has the columns cursor and time_us (int64), at_uri and did (string), message and
hydrated_metadata (string: JSON, byte for byte as in the record); none is ever null. It needs
pyarrow: pip install turbod[parquet].

Exit code: 0 done, 1 the archive or the output failed, 2 a wrong option, 3 done, but events are
missing from the archive (each gap is told on standard error by the run that meets it),
130 interrupted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = _HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    asking.add_source(parser)
    asking.add_filter(parser)
    add = parser.add_argument
    add("--output", metavar="PATH", default=_STANDARD, help="a file, or a folder with --by-hour")
    add("--format", choices=("jsonl", "parquet"), default="jsonl", help="default: jsonl")
    add("--by-hour", action="store_true", help="one file an hour: dt=DAY/hour=HH/FIRST-LAST.jsonl")


async def run(options: argparse.Namespace) -> int:
    """Fetch; return the exit code.

    Raises:
        ConfigError: what was asked for makes no sense.
        StoreFault: the archive could not be read.
        CannotWrite: the output could not be written.
    """
    asked = asking.read_asked(options)
    asked = _whole_hours(asked) if options.by_hour else asked
    chosen = asking.read_filter(options)
    open_writer = _writer(options)
    async with asking.opened(options) as source:
        with _opened(options, open_writer) as output:
            fetch = _Fetch(output, asked, chosen)
            await fetch.run(source, parallel=options.parallel)
            if not fetch.records:
                await _tell_what_there_is(source, asked)
    if options.output != _STANDARD:
        log.info("archive_fetched", records=fetch.records, gaps=fetch.gaps, output=options.output)
    return INCOMPLETE if fetch.gaps else 0


class _Fetch:
    """One walk, and where it goes.

    Attributes:
        records: how many were written.
        gaps: how many were told.
    """

    def __init__(self, output: Output, asked: Asked, chosen: Filter) -> None:
        self._output = output
        self._asked = asked
        self._filter = chosen
        self.records = self.gaps = 0

    async def run(self, source: Source, *, parallel: int) -> None:
        """Write all there is."""
        output, asked = self._output, self._asked
        is_terminal = isinstance(output, StandardOutput) and sys.stdout.isatty()
        after = asked.after
        if isinstance(output, AppendedFile) and output.last:
            after = output.last
        with Bar("fetching", records_to_terminal=is_terminal) as bar:
            async with walk(
                source,
                after=after,
                until=max(asked.until, after),
                filter=self._filter,
                parallel=parallel,
                skip=output.has if isinstance(output, HourFiles) else lambda _: False,
                report=bar.show,
            ) as pieces:
                async for piece in pieces:
                    await self._take(piece)

    async def _take(self, piece: Piece) -> None:
        for gap in piece.gaps:
            log.warning("archive_gap", after=gap.after, before=gap.before, message=gap.message)
        self.gaps += len(piece.gaps)
        self.records += piece.records
        # What lies behind was only looked at for what is missing before it.
        if piece.name.first <= self._asked.until:
            # Whoever reads standard output may let us wait for ever; a disk does not.
            may_wait = isinstance(self._output, StandardOutput)
            await trio.to_thread.run_sync(self._output.write, piece, abandon_on_cancel=may_wait)


async def _tell_what_there_is(source: Source, asked: Asked) -> None:
    """Say so where the range has no hour of the archive, or raise that there is no archive."""
    names = [held.name for held in await asking.listed(source)]
    if not any(name.last > asked.after and name.first <= asked.until for name in names):
        oldest, newest = (
            [hour_name(each.first) for each in (names[0], names[-1])] if names else "--"
        )
        log.warning("archive_range_empty", hours=len(names), oldest=oldest, newest=newest)


@contextmanager
def _opened(options: argparse.Namespace, open_writer: Callable[[int], Output]) -> Iterator[Output]:
    """Open the output; close it as whole where nothing was raised."""
    with _told(options.output):
        output = _output(options, open_writer)
        is_whole = False
        try:
            yield output
            is_whole = True
        finally:
            output.close(is_whole=is_whole)


def _output(options: argparse.Namespace, open_writer: Callable[[int], Output]) -> Output:
    if options.output == _STANDARD:
        return StandardOutput()
    path = Path(options.output)
    if options.by_hour:
        return HourFiles(path, f".{options.format}", open_writer)
    if options.format == "jsonl":
        return AppendedFile(path)
    if path.exists():
        raise ConfigError(f"--output {path}: there already, and Parquet cannot be gone on with")
    return WholeFile(path, open_writer)


@contextmanager
def _told(output: str) -> Iterator[None]:
    """Translate what the output's system calls raise."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        what = "standard output" if output == _STANDARD else error.filename or output
        raise CannotWrite(f"{what}: {error.strerror}") from None


def _writer(options: argparse.Namespace) -> Callable[[int], Output]:
    """Return what writes one file in the format that was asked for."""
    if options.output == _STANDARD and (options.by_hour or options.format != "jsonl"):
        raise ConfigError("--output: name a file or, with --by-hour, a folder")
    if options.by_hour and Path(options.output).is_file():
        raise ConfigError(f"--output {options.output}: a file; --by-hour writes into a folder")
    if not options.by_hour and Path(options.output).is_dir():
        raise ConfigError(f"--output {options.output}: a folder; name a file, or add --by-hour")
    if options.format == "jsonl":
        return LinesFile
    try:
        module = import_module("turbod.archive.bulk.parquet")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise ConfigError("--format parquet needs pyarrow: pip install turbod[parquet]") from None
    return cast("Callable[[int], Output]", module.ParquetFile)


def _whole_hours(asked: Asked) -> Asked:
    """Return the hours that a range touches, whole."""
    begin = asked.after + 1
    after = begin - begin % HOUR_US - 1 if asked.after else 0
    return Asked(after, min(asked.until - asked.until % HOUR_US + HOUR_US - 1, END))
