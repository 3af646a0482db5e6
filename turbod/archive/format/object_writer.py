"""Writes an object from its lines, a frame at a time, and notes what its index says. It blocks."""

import os
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import BinaryIO, Final

from msgspec.structs import replace

from turbod import __version__
from turbod.archive.format.did_filter import HASHES, DidFilter, build
from turbod.archive.format.hour_object import MAX_INDEX_BYTES, compressor, ending
from turbod.archive.format.index import (
    FORMAT,
    OTHERS,
    OTHERS_FORMAT,
    Frame,
    Index,
    collection_of,
    count_named,
    named,
)
from turbod.archive.format.names import Name
from turbod.cursor import hour_name
from turbod.eventlog.chunk import Gap
from turbod.record import Head

MAX_TOLD_BYTES: Final = MAX_INDEX_BYTES - 2 * 1024 * 1024  # of frames; the rest is for all else
ANYBODY: Final = DidFilter(HASHES, b"\xff")  # rules nobody out


class ObjectWriter:
    """Takes the lines of one hour in order of cursor.

    Memory is bounded by a frame, its compressed bytes, and what the compressor takes.

    Attributes:
        frames: those that are written.
    """

    def __init__(self, file: BinaryIO, *, frame_bytes: int, pause: Callable[[], None]) -> None:
        self.frames: list[Frame] = []
        self._file = file
        self._frame_bytes = frame_bytes
        self._pause = pause
        self._compress = compressor().compress
        self._sha256 = sha256()
        self._collections: Counter[str] = Counter()
        self._open = _OpenFrame()

    def add(self, line: bytes, head: Head) -> None:
        """Take the next line, with its break."""
        self._open.add(line, head)
        if self._open.raw_bytes >= self._frame_bytes:
            self.close_frame()

    def close_frame(self) -> None:
        """Write the frame under way, if any."""
        frame, self._open = self._open, _OpenFrame()
        if not frame.records:
            return
        lines = frame.joined()
        self._sha256.update(lines)
        data = self._compress(lines)
        self._file.write(data)
        # A sync of all of it at the end would hold up the log's for 50 ms instead of 10.
        self._file.flush()
        os.fdatasync(self._file.fileno())
        count_named(self._collections, frame.collections)
        self.frames.append(
            Frame(
                offset=self.frames[-1].end if self.frames else 0,
                size=len(data),
                sha256=sha256(data).hexdigest(),
                raw_bytes=frame.raw_bytes,
                records=frame.records,
                first=frame.first,
                last=frame.last,
                collections=named(frame.collections),
                dids=build(frame.dids, pause=self._pause),
            )
        )

    def finish(
        self, *, previous: int, instance: str, upstreams: list[str], gaps: list[Gap]
    ) -> Name:
        """Write index and seek table; make the file durable; return the object's name."""
        frames = _fitting(self.frames)
        are_named = OTHERS not in self._collections and not any(map(_has_others, frames))
        index = Index(
            format=FORMAT if are_named else OTHERS_FORMAT,
            instance=instance,
            hour=hour_name(frames[0].first),
            first=frames[0].first,
            last=frames[-1].last,
            previous=previous,
            records=self._collections.total(),
            raw_bytes=sum(frame.raw_bytes for frame in frames),
            sha256=self._sha256.hexdigest(),
            collections=dict(sorted(self._collections.items())),
            frames=frames,
            gaps=gaps,
            upstreams=upstreams,
            turbod=__version__,
        )
        self._file.write(ending(index))
        self._file.flush()
        os.fsync(self._file.fileno())
        return Name(index.first, index.last)


def _fitting(frames: list[Frame]) -> list[Frame]:
    """Let the frames of which most is told tell of nobody where all is more than is read."""
    fitting, too_much = list(frames), sum(map(_told_bytes, frames)) - MAX_TOLD_BYTES
    for number in sorted(range(len(frames)), key=lambda number: -_told_bytes(frames[number])):
        if too_much <= 0:
            break
        fitting[number] = replace(frames[number], collections=[OTHERS], dids=ANYBODY)
        too_much -= _told_bytes(frames[number]) - _told_bytes(fitting[number])
    return fitting


def _told_bytes(frame: Frame) -> int:
    """Return what a frame takes in the index, or a little more."""
    names = sum(len(name) + 3 for name in frame.collections)
    return 400 + names + 4 * len(frame.dids.bits) // 3


def _has_others(frame: Frame) -> bool:
    return OTHERS in frame.collections


class _OpenFrame:
    """The lines of one frame as they come, and what the index will say of them."""

    def __init__(self) -> None:
        self.raw_bytes = self.records = self.first = self.last = 0
        self.collections: Counter[str] = Counter()
        self.dids: set[str] = set()
        self._lines: list[bytes] = []

    def add(self, line: bytes, head: Head) -> None:
        self._lines.append(line)
        self.raw_bytes += len(line)
        self.records += 1
        self.first = self.first or head.cursor
        self.last = head.cursor
        self.collections[collection_of(head)] += 1
        self.dids.add(head.did)
        self.dids.update(head.about)

    def joined(self) -> bytes:
        """Return all lines, which are let go before the compressor takes memory of its own."""
        lines, self._lines = b"".join(self._lines), []
        return lines
