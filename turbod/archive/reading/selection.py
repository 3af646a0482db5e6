"""Which frames and lines of an object a filter may select: never too few. Pure.

The filter itself decides, on what a record's message says; here it is only asked what the index
and the head of a line rule out, at a fraction of the cost.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from turbod.archive.format.did_filter import SoughtDids
from turbod.archive.format.index import OTHERS, Frame, Index
from turbod.filter import EVERYTHING, Filter, shard_number

MAX_SINGLE_DIDS: Final = 8  # so many are looked for one by one: below it, that is quicker
MAX_VERDICTS: Final = 4096

_HEAD: Final = b',"at_uri":"at://'
_HEAD_AT: Final = 26  # behind `{"cursor":` and 16 digits
_URI_AT: Final = _HEAD_AT + len(_HEAD)
_all_dids = re.compile(rb"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]").findall


class Selection:
    """One filter, as it is asked about objects.

    Attributes:
        filter: what decides.
        is_everything: whether all there is will be selected.
    """

    def __init__(self, chosen: Filter) -> None:
        self.filter = chosen
        self.is_everything = chosen == EVERYTHING
        dids = chosen.all_dids
        self._sought = SoughtDids(dids) if dids else None
        self._dids = frozenset(map(str.encode, chosen.dids))
        self._about = frozenset(map(str.encode, chosen.about))
        self._takes_notices = not chosen.kinds or bool(chosen.kinds - {"commit"})
        self._takes_commits = not chosen.kinds or "commit" in chosen.kinds
        self._verdicts: dict[str, bool] = {}

    def may_hold(self, index: Index) -> bool:
        """Tell whether an object may hold something, by its collections alone."""
        return any(map(self._takes_collection, index.collections))

    def wants(self, frame: Frame) -> bool:
        """Tell whether a frame may hold something."""
        return any(map(self._takes_collection, frame.collections)) and (
            self._sought is None or frame.dids.may_hold(self._sought)
        )

    def next_frame(self, index: Index, after: int) -> int | None:
        """Return the number of the first frame that may hold something above a cursor."""
        return next((number for number, wanted in self.look(index, after) if wanted), None)

    def look(self, index: Index, after: int) -> Iterator[tuple[int, bool]]:
        """Yield the number of each frame above a cursor, and whether it may hold something.

        None of an object that holds nothing by its collections.
        """
        frames = index.frames
        if not self.may_hold(index):
            return
        for number in range(bisect_right(frames, after, key=_last), len(frames)):
            yield number, self.is_everything or self.wants(frames[number])

    def may_match(self, text: bytes, start: int, end: int) -> bool:
        """Tell whether the line text[start:end], without its break, may be selected.

        Some 1 us; where it must be searched for DIDs that it may be about, up to 10.
        """
        size = self.filter.max_size_bytes
        if size and end - start > size:
            return False
        uri_end = text.find(b'"', start + _URI_AT, end)
        uri = text[start + _URI_AT : uri_end]
        if not text.startswith(_HEAD, start + _HEAD_AT) or uri_end < 0 or b"\\" in uri:
            return True
        did, _, path = uri.partition(b"/")
        if not self._may_concern(did, text, start, end):
            return False
        if not path:
            return self._takes_notices and self._takes_shard(did)
        collection = path.partition(b"/")[0].decode(errors="replace")
        return self._takes_collection(collection) and self._takes_shard(did)

    def _may_concern(self, did: bytes, text: bytes, start: int, end: int) -> bool:
        if self._sought is None or did in self._dids:
            return True
        about = self._about
        if not about:
            return False
        if text.find(b"\\u", start, end) >= 0:  # a DID may be written in escapes
            return True
        if len(about) <= MAX_SINGLE_DIDS:
            return any(text.find(each, start, end) >= 0 for each in about)
        return not about.isdisjoint(_all_dids(text, start, end))

    def _takes_shard(self, did: bytes) -> bool:
        shard = self.filter.shard
        return shard is None or shard_number(did.decode(errors="replace")) % shard[1] == shard[0]

    def _takes_collection(self, name: str) -> bool:
        """Judge a collection as an index names it."""
        verdict = self._verdicts.get(name)
        if verdict is None:
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            verdict = self._verdicts[name] = self._judge(name)
        return verdict

    def _judge(self, name: str) -> bool:
        chosen = self.filter
        if name == OTHERS:
            return True
        if name.startswith("#"):  # `#identity` and `#account`, which no collections leave out
            return not chosen.kinds or name[1:] in chosen.kinds
        if not self._takes_commits:
            return False
        return (
            not (chosen.collections or chosen.prefixes)
            or name in chosen.collections
            or name.startswith(chosen.prefixes)
        )


def _last(frame: Frame) -> int:
    return frame.last
