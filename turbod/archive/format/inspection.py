"""Whether all that an index says is true of the lines. Pure."""

from collections import Counter
from hashlib import sha256
from itertools import pairwise

from turbod.archive.format.did_filter import SoughtDids
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.index import OTHERS, Frame, Index, collection_of
from turbod.envelope import Malformed
from turbod.eventlog.line import sound_cursor
from turbod.record import head_of_line


class Inspection:
    """Compares an object's lines with its index: `add` every frame in order, then `finish`."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._sha256 = sha256()
        self._collections: Counter[str] = Counter()
        self._gaps = [gap.before for gap in index.gaps if gap.before <= index.last]

    def add(self, frame: Frame, lines: bytes) -> None:
        """Look at each line of a frame, as `read_frame` returned it: 10 us a line.

        Raises:
            Damaged: the index says something else of it.
        """
        self._sha256.update(lines)
        cursors, collections, dids = _read(lines)
        if any(former >= latter for former, latter in pairwise(cursors)):
            raise Damaged(f"cursors do not rise in the frame at {frame.offset}")
        if not _is_true(frame.collections, collections):
            raise Damaged(f"the frame at {frame.offset} has other collections than the index says")
        if not all(frame.dids.may_hold(SoughtDids((did,))) for did in dids):
            raise Damaged(f"the frame at {frame.offset} has a DID that its filter denies")
        self._collections += collections
        known = set(cursors)
        while self._gaps and self._gaps[0] <= frame.last:
            if self._gaps.pop(0) not in known:
                raise Damaged("the index has a gap that stands before no record")

    def finish(self) -> None:
        """Compare what counts for all frames together.

        Raises:
            Damaged: the index says something else of it.
        """
        if self._sha256.hexdigest() != self._index.sha256:
            raise Damaged("the lines have another SHA-256 than the index says")
        told, others = dict(self._index.collections), 0
        if OTHERS in told:
            others = told.pop(OTHERS)
        counted = {name: self._collections[name] for name in told}
        if counted != told or others != self._collections.total() - sum(counted.values()):
            raise Damaged("the index counts the collections otherwise")


def _is_true(told: list[str], there: Counter[str]) -> bool:
    """Tell whether the collections of a frame are those that the index says."""
    if OTHERS not in told:
        return told == sorted(there)
    names = set(told) - {OTHERS}
    return len(told) == len(names) + 1 and names < there.keys()


def _read(lines: bytes) -> tuple[list[int], Counter[str], set[str]]:
    cursors: list[int] = []
    collections: Counter[str] = Counter()
    dids: set[str] = set()
    for line in lines[:-1].split(b"\n"):
        try:
            head = head_of_line(line)
        except Malformed:
            raise Damaged(f"line {len(cursors) + 1} of a frame is no record") from None
        cursors.append(sound_cursor(line))
        collections[collection_of(head)] += 1
        dids.update((head.did, *head.about))
    return cursors, collections, dids
