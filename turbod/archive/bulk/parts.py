"""Which frames of which objects a walk reads, in order, and which gaps stand between. Pure."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Final

import msgspec

from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.index import Frame, Index
from turbod.archive.format.names import Name
from turbod.cursor import LIMIT
from turbod.eventlog.chunk import Gap

END: Final = LIMIT - 1  # what no cursor is above
RUN_BYTES: Final = 8 * 1024 * 1024  # read at one go; more only where a frame is larger


class Asked(msgspec.Struct, frozen=True):
    """Which cursors are asked for: above `after`, up to `until`."""

    after: int = 0
    until: int = END

    def touches(self, gap: Gap) -> bool:
        """Tell whether events that were asked for may be missing there."""
        return gap.before > self.after and gap.after < self.until

    def touches_frame(self, frame: Frame) -> bool:
        """Tell whether a frame has records that were asked for."""
        return frame.last > self.after and frame.first <= self.until


class Stop(msgspec.Struct, frozen=True):
    """One object on the way.

    Attributes:
        prior: the last cursor of the object before it, 0 for the first of the archive.
        following: the first cursor of the object behind it, or above its own last where none is.
    """

    held: Held
    prior: int
    following: int

    @property
    def name(self) -> Name:
        """The object's name."""
        return self.held.name


class Part(msgspec.Struct, frozen=True):
    """One step: a frame to read, or none where there is only a way to go.

    Attributes:
        instance: who wrote the object.
        gaps: those that stand before it or in it.
        last: the position behind it.
        instead: the gap that stands in the frame's place where it cannot be read.
    """

    name: Name
    instance: str
    frame: Frame | None
    gaps: list[Gap]
    last: int
    instead: Gap | None = None


class Run(msgspec.Struct, frozen=True):
    """Parts of one object whose frames lie side by side: one read; none for parts without."""

    parts: list[Part]

    @property
    def name(self) -> Name:
        """The object's name."""
        return self.parts[0].name

    @property
    def offset(self) -> int:
        """Where it begins in the object."""
        frame = self.parts[0].frame
        return frame.offset if frame else 0

    @property
    def size(self) -> int:
        """How many bytes it has there."""
        return sum(part.frame.size for part in self.parts if part.frame)

    def goes_on_with(self, part: Part) -> bool:
        """Tell whether a part can be read together with these."""
        last, frame = self.parts[-1].frame, part.frame
        if last is None or frame is None or last.end != frame.offset:
            return False
        return self.size + frame.size <= RUN_BYTES


def stops(catalogue: Catalogue, asked: Asked) -> Iterator[Stop]:
    """Yield the objects that tell what is there and what is missing, in order.

    The last may lie behind all that was asked for: only its index knows whether something is
    missing before it.
    """
    prior = 0
    for held, following in pairwise([*catalogue, None]):
        assert held is not None, "only the last has nothing behind it"
        name = held.name
        if name.last > asked.after:
            yield Stop(held, prior, following.name.first if following else name.last + 1)
        if name.last >= asked.until:
            return
        prior = name.last


def parts(
    stop: Stop, index: Index, asked: Asked, *, wants: Callable[[Frame], bool]
) -> Iterator[Part]:
    """Yield the steps through one object: the frames that are wanted, then its end."""
    gaps = [gap for gap in (*_hole(stop, index, asked), *index.gaps) if asked.touches(gap)]
    edges = [index.previous, *(frame.last for frame in index.frames)]
    firsts = [*(frame.first for frame in index.frames), stop.following]
    last = min(index.last, asked.until)
    reached = 0
    for number, frame in enumerate(index.frames):
        if not asked.touches_frame(frame) or not wants(frame):
            continue
        told = [gap for gap in gaps if gap.before <= frame.last]
        gaps = gaps[len(told) :]
        instead = Gap(max(edges[number], asked.after), firsts[number + 1], "")
        reached = min(frame.last, asked.until)
        yield Part(stop.name, index.instance, frame, told, reached, instead)
    if gaps or reached < last:
        yield Part(stop.name, index.instance, None, gaps, last)


def unreadable(stop: Stop, asked: Asked, why: str) -> Iterator[Part]:
    """Yield the one step over an object of which nothing can be read."""
    gap = Gap(max(stop.prior, asked.after), stop.following, f"{stop.name.key}: {why}")
    gaps = [gap] if asked.touches(gap) else []
    yield Part(stop.name, "", None, gaps, min(stop.name.last, asked.until))


def _hole(stop: Stop, index: Index, asked: Asked) -> Iterator[Gap]:
    """Yield the gap before an object that follows on others than those that are there."""
    begin = max(stop.prior, asked.after)
    # Who asks for the oldest there is misses nothing before it.
    if begin and index.previous > begin:
        what = "hours are missing before it" if stop.prior else "the archive begins with it"
        yield Gap(begin, index.first, f"{stop.name.key}: {what}")


def runs(way: Iterable[Part]) -> Iterator[Run]:
    """Put parts of one object together that can be read together."""
    run: Run | None = None
    for part in way:
        if run is not None and run.goes_on_with(part):
            run.parts.append(part)
            continue
        if run is not None:
            yield run
        run = Run([part])
    if run is not None:
        yield run
