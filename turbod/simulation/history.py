"""The events that all simulated Jetstream hosts have in common, and the news of the next one."""

from bisect import bisect_left
from typing import Final

import msgspec
import trio

from turbod.simulation.happening import Happening

EVERY_HOST: Final = -1


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One event, in pieces: a host puts its own time, and on v2 its own number, between them.

    Attributes:
        only: the number of the one host that has it, or EVERY_HOST.
        verbatim: the whole message, where it was given and is to be sent as it is; no tail then.
    """

    did: str
    collection: str
    time_us: int
    commit_us: int
    head: bytes
    tail: bytes
    only: int = EVERY_HOST
    verbatim: bytes = b""


class History:
    """Entries by index, which only grows; the oldest are dropped above `entries_kept`."""

    def __init__(self, *, entries_kept: int | None = None) -> None:
        self._entries: list[Entry] = []
        self._newest_us: list[
            int
        ] = []  # the greatest time_us up to here: rises, so can be searched
        self._first = 0
        self._kept = entries_kept
        self._news = trio.Event()

    @property
    def first(self) -> int:
        """The index of the oldest entry kept."""
        return self._first

    @property
    def end(self) -> int:
        """The index that the next entry will get."""
        return self._first + len(self._entries)

    def append(self, entry: Entry) -> None:
        """Add what happened last."""
        newest_us = self._newest_us[-1] if self._newest_us else 0
        self._entries.append(entry)
        self._newest_us.append(max(newest_us, entry.time_us))
        if self._kept is not None and len(self._entries) > self._kept * 5 // 4:
            surplus = len(self._entries) - self._kept
            del self._entries[:surplus], self._newest_us[:surplus]
            self._first += surplus

    def wake(self) -> None:
        """Tell everybody that there is something to do."""
        self._news.set()
        self._news = trio.Event()

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        await self._news.wait()

    def slice(self, start: int, stop: int) -> list[Entry]:
        """Return the entries from index `start` up to `stop`."""
        return self._entries[max(start - self._first, 0) : max(stop - self._first, 0)]

    def at(self, time_us: int) -> int:
        """Return the index of the first entry at or after a time; `end` where there is none."""
        return self._first + bisect_left(self._newest_us, time_us)


def entry(happening: Happening, *, only: int = EVERY_HOST) -> Entry:
    """Take a happening to pieces."""
    return Entry(
        happening.did,
        happening.collection,
        happening.time_us,
        happening.commit_us,
        b'{"did":"%b","time_us":' % happening.did.encode(),
        happening.tail(),
        only,
    )


def verbatim_entry(message: bytes, *, time_us: int) -> Entry:
    """Make an entry of given bytes, whether they are an event or not."""
    did, collection = "", ""
    try:
        event = msgspec.json.decode(message)
        did, time_us = str(event["did"]), int(event["time_us"])
        collection = str(event["commit"]["collection"]) if event["kind"] == "commit" else ""
    except (ValueError, LookupError, TypeError, RecursionError):
        pass  # not an event: it goes to everybody, at the time of the one before
    return Entry(did, collection, time_us, time_us, b"", b"", EVERY_HOST, message)
