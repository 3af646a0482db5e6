"""`turbod archive verify`: reads everything, and names what is not as it should be."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from turbod.archive.bulk import asking
from turbod.archive.bulk.ahead import Ahead
from turbod.archive.bulk.parts import Asked, Stop, stops
from turbod.archive.bulk.patience import again
from turbod.archive.bulk.progress import Bar
from turbod.archive.bulk.walk import Progress
from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.hour_object import Damaged, read_frame
from turbod.archive.format.index import Frame, Index
from turbod.archive.format.inspection import Inspection
from turbod.archive.format.loading import load_index
from turbod.archive.format.names import IDENTITY_KEY, Name, parse_key
from turbod.archive.stores.store import Listed, NotThere, Source
from turbod.archive.stores.web_call import shown
from turbod.archive.upload import identity
from turbod.archive.upload.identity import Unreadable
from turbod.cursor import hour_name

FOUND: Final = 1  # the exit code where something is not as it should be

_HELP = """\
Reads every object of an archive and compares it with what it says of itself and with its
neighbours. One line for each finding: a damaged or truncated object, a missing hour, two objects
of one hour, a file that is none of the archive's. An hour in which nothing happened has no object,
and is no finding; neither is what the upstream no longer had, which the indexes name as gaps.

Exit code: 0 all is whole, 1 something was found or the archive cannot be read, 2 a wrong option,
130 interrupted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = _HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    asking.add_source(parser)


async def run(options: argparse.Namespace) -> int:
    """Verify; return the exit code.

    Raises:
        ConfigError: what was asked for makes no sense.
        StoreFault: the archive could not be read.
    """
    asked = asking.read_asked(options)
    async with asking.opened(options) as source:
        with Bar("verifying") as bar:
            verification = Verification(source, asked, found=_say, report=bar.show)
            await verification.run(parallel=options.parallel)
    print(verification.summary, flush=True)  # noqa: T201 - what the command is for
    return FOUND if verification.findings else 0


def _say(finding: str) -> None:
    print(finding, flush=True)  # noqa: T201 - as above


class _Read(msgspec.Struct, frozen=True):
    """One object that was read: its index, or what is wrong."""

    stop: Stop
    index: Index | None
    wrong: str = ""


class Verification:
    """One reading of an archive.

    Attributes:
        findings: how many were told.
    """

    def __init__(
        self,
        source: Source,
        asked: Asked,
        *,
        found: Callable[[str], None],
        report: Callable[[Progress], None],
    ) -> None:
        self.findings = 0
        self._source = source
        self._asked = asked
        self._tell = found
        self._report = report
        self._instance = ""
        self._objects = self._gaps = self._begins_behind = 0
        self._way = Progress(0, 0, 0, 0, 0)

    @property
    def summary(self) -> str:
        """What was read, and whether it is whole."""
        way = self._way
        words = [f"{self._objects:,} objects", f"{way.records:,} records"]
        words += [f"{self._gaps:,} gaps of the upstream"] if self._gaps else []
        if self._begins_behind:
            words.append(f"nothing up to {hour_name(self._begins_behind)} any more")
        found = f"{self.findings:,} findings" if self.findings else "all is whole"
        return f"{', '.join(words)}: {found}"

    async def run(self, *, parallel: int) -> None:
        """Read everything.

        Raises:
            StoreFault: the archive could not be read.
        """
        listed = await self._source.list()
        await self._look_at_identity(listed)
        catalogue = self._sorted(listed)
        way = list(stops(catalogue, self._asked))
        total = sum(stop.held.size for stop in way if self._is_asked(stop))
        self._way = msgspec.structs.replace(self._way, total_bytes=total)
        async with trio.open_nursery() as nursery:
            objects = Ahead[_Read](nursery, room=parallel)
            nursery.start_soon(self._begin, way, objects)
            async for each in objects:
                self._judge(each)

    def _is_asked(self, stop: Stop) -> bool:
        return stop.name.first <= self._asked.until

    def _found(self, finding: str) -> None:
        self.findings += 1
        self._tell(finding)

    async def _look_at_identity(self, listed: Sequence[Listed]) -> None:
        found = next((each for each in listed if each.key == IDENTITY_KEY), None)
        if found is None:
            self._found(f"{IDENTITY_KEY}: not there, so nothing says who writes here")
            return
        size = min(found.size, identity.MAX_IDENTITY_BYTES)
        data = await again(partial(self._source.read, IDENTITY_KEY, offset=0, size=size))
        try:
            self._instance = identity.decode(data).instance
        except Unreadable as error:
            self._found(str(error))

    def _sorted(self, listed: Sequence[Listed]) -> Catalogue:
        """Name what is no object, and what is one too many; return the others."""
        objects: list[tuple[Name, int]] = []
        for each in listed:
            if (name := parse_key(each.key)) is not None:
                objects.append((name, each.size))
            elif each.key != IDENTITY_KEY:
                self._found(f"{shown(each.key)}: none of the archive's files")
        catalogue = Catalogue()
        catalogue.listed(objects)
        for conflict in catalogue.conflicts:
            self._found(f"{conflict.other.name.key}: its hour has {conflict.served.name.key} too")
        return catalogue

    async def _begin(self, way: Sequence[Stop], objects: Ahead[_Read]) -> None:
        for stop in way:
            await objects.begin(partial(self._read, stop), cost=1)
        objects.end()

    async def _read(self, stop: Stop) -> _Read:
        """Read a whole object; of one behind what was asked for only what it says of before."""
        held = stop.held
        load = partial(load_index, self._source, held.name.key, held.size, held.name)
        try:
            index = await again(load)
            if self._is_asked(stop):
                await self._inspect(held, index)
        except NotThere:
            return _Read(stop, None, "gone since it was listed")
        except Damaged as error:
            return _Read(stop, None, f"damaged: {error}")
        return _Read(stop, index)

    async def _inspect(self, held: Held, index: Index) -> None:
        inspection = Inspection(index)
        for frame in index.frames:
            lines = await again(partial(self._lines, held.name.key, frame))
            await trio.to_thread.run_sync(inspection.add, frame, lines)
            self._count(frame)
        inspection.finish()

    async def _lines(self, key: str, frame: Frame) -> bytes:
        data = await self._source.read(key, offset=frame.offset, size=frame.size)
        return await trio.to_thread.run_sync(read_frame, data, frame)

    def _count(self, frame: Frame) -> None:
        way = self._way
        self._way = Progress(
            cursor=max(way.cursor, frame.last),
            passed_bytes=way.passed_bytes + frame.size,
            total_bytes=way.total_bytes,
            raw_bytes=way.raw_bytes + frame.raw_bytes,
            records=way.records + frame.records,
        )
        self._report(self._way)

    def _judge(self, read: _Read) -> None:
        """Compare an object with its neighbour."""
        name, index = read.stop.name, read.index
        if index is None:
            self._found(f"{name.key}: {read.wrong}")
        else:
            self._compare(name, index, prior=read.stop.prior)
        if self._is_asked(read.stop):
            self._objects += 1
            self._gaps += len(index.gaps) if index else 0

    def _compare(self, name: Name, index: Index, *, prior: int) -> None:
        if self._instance and index.instance != self._instance:
            self._found(f"{name.key}: written by {index.instance!r}, not by {self._instance!r}")
        if not prior:
            self._begins_behind = index.previous
        elif index.previous > prior:
            hour = hour_name(index.previous)
            self._found(f"{name.key}: the hour before it is missing, {hour} or a part of it")
        elif index.previous < prior:
            self._found(f"{name.key}: its writer knew nothing behind {index.previous}")
