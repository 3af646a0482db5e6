"""`turbod archive ls`: what an archive holds, hour by hour."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
import trio

from turbod.archive.bulk import asking
from turbod.archive.bulk.ahead import Ahead
from turbod.archive.bulk.parts import Stop, stops
from turbod.archive.bulk.patience import again
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.loading import load_index
from turbod.archive.stores.hours_page import (
    HourDetails,
    ListedHour,
    listed_hour,
    with_details,
)
from turbod.archive.stores.store import NotThere, Source
from turbod.archive.stores.web import WebSource

_HELP = """\
What an archive holds, hour by hour, from its listing and the objects' indexes. An hour in which
nothing happened has no object; "a hole before it" is said where the object before is missing.
`turbod archive verify` reads everything."""

_encode = msgspec.json.Encoder().encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = _HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    asking.add_source(parser)
    parser.add_argument("--json", action="store_true", help="a JSON object a line, as at /archive")


async def run(options: argparse.Namespace) -> int:
    """List; return the exit code.

    Raises:
        ConfigError: what was asked for makes no sense.
        StoreFault: the archive could not be read.
    """
    asked = asking.read_asked(options)
    async with asking.opened(options) as source:
        catalogue = await asking.listed(source)
        way = [stop for stop in stops(catalogue, asked) if stop.name.first <= asked.until]
        if options.json:
            await _list(source, way, show=_print_json, parallel=options.parallel)
        else:
            table = _Table()
            await _list(source, way, show=table.add, parallel=options.parallel)
            table.end()
    return 0


class Row(msgspec.Struct, frozen=True):
    """An hour, whether the one that should be before it is missing, and what is wrong with it."""

    hour: ListedHour
    is_behind_hole: bool
    wrong: str


async def _list(
    source: Source, way: Sequence[Stop], *, show: Callable[[Row], None], parallel: int
) -> None:
    async with trio.open_nursery() as nursery:
        rows = Ahead[Row](nursery, room=parallel)
        nursery.start_soon(_begin, source, way, rows)
        async for row in rows:
            show(row)


async def _begin(source: Source, way: Sequence[Stop], rows: Ahead[Row]) -> None:
    for stop in way:
        await rows.begin(partial(_row, source, stop), cost=1)
    rows.end()


async def _row(source: Source, stop: Stop) -> Row:
    wrong = ""
    try:
        hour = await _hour(source, stop)
    except (Damaged, NotThere) as error:
        hour, wrong = msgspec.structs.replace(_listed(source, stop), damaged=True), str(error)
    previous = hour.previous if isinstance(hour, HourDetails) else 0
    return Row(hour, is_behind_hole=0 < stop.prior < previous, wrong=wrong)


async def _hour(source: Source, stop: Stop) -> ListedHour:
    """Return what is known of an hour, from the listing where that told already.

    Raises:
        Damaged: its index cannot be read.
        NotThere: it is gone since it was listed.
    """
    name, size = stop.name, stop.held.size
    if isinstance(source, WebSource) and (known := source.details(name.key)) is not None:
        return known
    index = await again(partial(load_index, source, name.key, size, name))
    return with_details(_listed(source, stop), index)


def _listed(source: Source, stop: Stop) -> ListedHour:
    return listed_hour(stop.name, stop.held.size, below=source.url)


def _print_json(row: Row) -> None:
    print(_encode(row.hour).decode(), flush=True)  # noqa: T201 - what the command is for


class _Table:
    """A table for people, and its last line."""

    def __init__(self) -> None:
        self._hours = self._records = self._size = self._raw_bytes = self._gaps = self._holes = 0
        self._print("hour", "records", "MB", "raw MB", "ratio", "gaps")

    def add(self, row: Row) -> None:
        """Print an hour."""
        hour = row.hour
        self._hours += 1
        self._size += hour.size
        self._holes += row.is_behind_hole
        if not isinstance(hour, HourDetails):
            self._print(
                hour.hour, "", _megabytes(hour.size), "", "", "", note=f"  damaged: {row.wrong}"
            )
            return
        self._records += hour.records
        self._raw_bytes += hour.raw_bytes
        self._gaps += len(hour.gaps)
        note = "  a hole before it" if row.is_behind_hole else ""
        cells = _cells(hour.records, hour.size, hour.raw_bytes, len(hour.gaps))
        self._print(hour.hour, *cells, note=note)

    def end(self) -> None:
        """Print what all hours come to."""
        cells = _cells(self._records, self._size, self._raw_bytes, self._gaps)
        self._print(f"{self._hours:,} hours", *cells, note=f"  {self._holes} holes")

    def _print(self, hour: str, *cells: str, note: str = "") -> None:
        line = f"{hour:<13}" + "".join(f"{cell:>13}" for cell in cells) + note
        print(line.rstrip(), flush=True)  # noqa: T201 - as above


def _cells(records: int, size: int, raw_bytes: int, gaps: int) -> Iterator[str]:
    ratio = f"{size / raw_bytes:.3f}" if raw_bytes else ""
    yield from (f"{records:,}", _megabytes(size), _megabytes(raw_bytes), ratio, f"{gaps:,}")


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f}"
