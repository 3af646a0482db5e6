"""Views in memory over SQLite: what is known, until when, and what the stream made of it.

Every invalidation takes the next number of one counter, the generation, and every view carries
the generation in which it was asked for. A view is used only while nothing that it shows was
outdated in a later one. So an answer that was under way when its subject changed is outdated the
moment it arrives, views nested in others need no index of their own, and "everything before the
gap" is a single number.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from turbod.config import CacheSettings
from turbod.database import Changes, Database, Gone, StoredView
from turbod.event import uri_did

MAX_INVALIDATED: Final = 200_000  # about 30 MB; the network makes some 30 a second
MAX_BACK: Final = 20_000  # about 5 MB
MAX_GONE: Final = 200_000  # about 40 MB
POST_GONE_SECONDS: Final = 3600  # by then the AppView itself has long indexed the deletion
ACCOUNT_GONE_SECONDS: Final = 86400
_ENTRY_BYTES: Final = 700  # an entry's objects beside its data, measured with tracemalloc
_SECOND_US: Final = 1_000_000
_EXPIRY_SECONDS: Final = 60
# The AppView reads the same network a little later than we do: what it answers right after a
# change may still be the old view, and is asked for again soon.
_JUST_NOW_FLUSHES: Final = 10
_MAYBE_OLD_SECONDS: Final = 30
_WITHHELD_SECONDS: Final = 30


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An answer: a view, or that there is none.

    Attributes:
        data: the view's bytes; None is an answer too: known to be missing, or withheld.
        inside: the DIDs and AT URIs of all that the view shows, its own key among them.
        stamp: the generation in which it was asked for.
        fetched_us: by the wall clock, for the record.
        expires: by the monotonic clock, in seconds.
        from_stream: built from the event itself.
    """

    key: str
    data: bytes | None
    inside: tuple[str, ...]
    stamp: int
    fetched_us: int
    expires: float
    from_stream: bool = False


class CacheStatistics(msgspec.Struct, frozen=True):
    """A snapshot of plain numbers."""

    memory_entries: int
    memory_bytes: int
    disk_bytes: int
    hits_memory: int
    hits_disk: int
    misses: int
    outdated: int
    gone: int


class Cache:
    """All views that are known. Used by the event loop only; `changes` goes to a thread.

    Attributes:
        generation: the number of the newest invalidation.
        excluded: accounts that are never shown; set by `exclude`.
    """

    def __init__(
        self,
        settings: CacheSettings,
        database: Database,
        *,
        now_us: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._database = database
        self._now_us = now_us
        self._clock = clock
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        self._bytes = 0
        self._hits_memory = self._hits_disk = self._misses = 0
        self.generation = database.number("generation") + 1
        self._oldest = database.number("oldest")
        self._invalidated = database.invalidated()
        self._outdated_refs = self._invalidated.keys()
        self._gone = dict(database.gone())
        self._back: OrderedDict[str, str] = OrderedDict()
        self.excluded: frozenset[str] = frozenset()
        self._changes = Changes()
        self._next_expiry = 0.0
        # The generation at each of the last flushes, so that "outdated just now" needs no times.
        self._flushed: deque[int] = deque([0], maxlen=_JUST_NOW_FLUSHES)

    def get(self, key: str) -> Entry | None:
        """Return what is known of a DID or AT URI and may be used, or None: ask."""
        return self.look_up((key,))[0][key]

    def look_up(self, keys: Iterable[str]) -> tuple[dict[str, Entry | None], list[str]]:
        """Return what `get` does of each key, and those of which it is None."""
        found: dict[str, Entry | None] = {}
        missing: list[str] = []
        memory, now = self._memory, self._clock()
        known, used = memory.get, memory.move_to_end
        for key in keys:  # every event's
            entry = known(key)
            if entry is not None and entry.expires > now and not self.outdated(entry):
                used(key)
                self._hits_memory += 1
            else:
                entry = self._get_instead(key, entry)
                if entry is None:
                    missing.append(key)
            found[key] = entry
        return found, missing

    def put(self, key: str, data: bytes, inside: tuple[str, ...], *, stamp: int) -> Entry:
        """Keep a view that was asked for in generation `stamp`, and return what may be shown.

        The entry's data is None where the view shows something that is gone or excluded: it is
        not shown, and asked for again soon.
        """
        if self.hidden(inside):
            seconds = min(_WITHHELD_SECONDS, self._settings.missing_seconds)
            return self._keep(self._entry(key, None, inside, stamp, seconds))
        if self._outdated_just_now(inside):  # kept in memory only: the file knows no shorter life
            seconds = min(_MAYBE_OLD_SECONDS, self._lifetime(key))
            return self._keep(self._entry(key, data, inside, stamp, seconds))
        entry = self._entry(key, data, inside, stamp, self._lifetime(key))
        self._changes.views[key] = StoredView(key, data, inside, stamp, entry.fetched_us)
        return self._keep(entry)

    def put_missing(self, key: str, *, stamp: int, seconds: float | None = None) -> Entry:
        """Remember that the AppView has no such thing, for a while; in memory only."""
        inside = (key, uri_did(key)) if key.startswith("at:") else (key,)
        lifetime = self._settings.missing_seconds if seconds is None else seconds
        return self._keep(self._entry(key, None, inside, stamp, lifetime))

    def put_from_stream(self, key: str, data: bytes, author: str, *, seconds: float) -> Entry:
        """Keep a post's view that was built from its event, for a moment; in memory only."""
        entry = self._entry(key, data, (key, author), self.generation, seconds, from_stream=True)
        return self._keep(entry)

    def outdated(self, entry: Entry) -> bool:
        """Tell whether something that it shows has changed since it was asked for."""
        if entry.stamp < self._oldest:
            return True
        if self._outdated_refs.isdisjoint(entry.inside):  # mostly, and quickly told
            return False
        return any(self._invalidated.get(ref, 0) > entry.stamp for ref in entry.inside)

    def hidden(self, refs: Iterable[str]) -> bool:
        """Tell whether one of these is deleted, not active, or excluded."""
        gone, excluded = self._gone, self.excluded
        return any(ref in gone or ref in excluded for ref in refs)

    def outdate(self, ref: str) -> None:
        """From now on, nothing that shows `ref` is used unless it is asked for after this."""
        self.generation += 1
        # Taken out first, so that the dict stays in the order of its generations.
        self._invalidated.pop(ref, None)
        self._invalidated[ref] = self._changes.invalidated[ref] = self.generation
        if len(self._invalidated) > MAX_INVALIDATED:
            self._forget_half()

    def outdate_all(self) -> None:
        """From now on, nothing is used that was asked for before: events were missed."""
        self.generation += 1
        self._oldest = self.generation
        self._invalidated.clear()

    def take_away(self, ref: str, version: str) -> None:
        """Never show `ref` again, until something later than `version` brings it back."""
        known = self._gone.get(ref)
        if (known is not None and known.version >= version) or self._back.get(ref, "") >= version:
            return
        seconds = POST_GONE_SECONDS if ref.startswith("at:") else ACCOUNT_GONE_SECONDS
        gone = Gone(version, self._now_us() + seconds * _SECOND_US)
        self._gone.pop(ref, None)
        self._gone[ref] = self._changes.gone[ref] = gone
        if len(self._gone) > MAX_GONE:
            self._changes.gone[next(iter(self._gone))] = None
            del self._gone[next(iter(self._gone))]

    def bring_back(self, ref: str, version: str) -> None:
        """Show `ref` again, if `version` is later than what took it away.

        An account's is remembered, so that an older notice that only a late host brings does not
        take it away once more. A post's key is hardly ever used again.
        """
        if not ref.startswith("at:"):
            self._back[ref] = max(version, self._back.pop(ref, ""))
            if len(self._back) > MAX_BACK:
                self._back.popitem(last=False)
        gone = self._gone.get(ref)
        if gone is not None and version > gone.version:
            del self._gone[ref]
            self._changes.gone[ref] = None
            self.outdate(ref)
        elif (entry := self._memory.get(ref)) is not None and entry.data is None:
            self.outdate(ref)

    def exclude(self, dids: frozenset[str]) -> None:
        """Never show these accounts; those no longer listed are shown again."""
        for did in dids ^ self.excluded:
            self.outdate(did)
        self.excluded = dids

    def changes(self) -> Changes:
        """Hand over all that is to be written, and begin to collect anew. Once a second."""
        self._flushed.append(self.generation)
        if self._clock() >= self._next_expiry:
            self._next_expiry = self._clock() + _EXPIRY_SECONDS
            self._expire_gone()
        changes = self._changes
        changes.generation = self.generation
        changes.oldest = self._oldest
        longest = max(self._settings.profile_seconds, self._settings.post_seconds)
        changes.outdated_before_us = self._now_us() - int(longest * _SECOND_US)
        self._changes = Changes()
        return changes

    def statistics(self) -> CacheStatistics:
        """Return a snapshot."""
        return CacheStatistics(
            memory_entries=len(self._memory),
            memory_bytes=self._bytes,
            disk_bytes=self._database.used_bytes(),
            hits_memory=self._hits_memory,
            hits_disk=self._hits_disk,
            misses=self._misses,
            outdated=len(self._invalidated),
            gone=len(self._gone),
        )

    def _entry(
        self,
        key: str,
        data: bytes | None,
        inside: tuple[str, ...],
        stamp: int,
        lifetime: float,
        *,
        from_stream: bool = False,
    ) -> Entry:
        expires = self._clock() + lifetime
        return Entry(key, data, inside, stamp, self._now_us(), expires, from_stream)

    def _lifetime(self, key: str) -> float:
        of_post = key.startswith("at:")
        return self._settings.post_seconds if of_post else self._settings.profile_seconds

    def _outdated_just_now(self, inside: Iterable[str]) -> bool:
        floor, invalidated = self._flushed[0], self._invalidated
        return any(invalidated.get(ref, 0) > floor for ref in inside)

    def _keep(self, entry: Entry) -> Entry:
        if (known := self._memory.get(entry.key)) is not None:
            self._drop(known)
        self._memory[entry.key] = entry
        self._bytes += _size(entry)
        while self._bytes > self._settings.memory_bytes:
            self._drop(next(iter(self._memory.values())))
        return entry

    def _drop(self, entry: Entry) -> None:
        del self._memory[entry.key]
        self._bytes -= _size(entry)

    def _get_instead(self, key: str, entry: Entry | None) -> Entry | None:
        """Return what the file has in place of what is not in memory, or no longer good."""
        if entry is not None:
            self._drop(entry)
            if entry.data is None:
                return None
        return self._get_stored(key)

    def _get_stored(self, key: str) -> Entry | None:
        view = self._changes.views.get(key) or self._database.view(key)
        if view is not None:
            age = (self._now_us() - view.fetched_us) / _SECOND_US
            entry = Entry(
                key,
                view.data,
                view.inside,
                view.stamp,
                view.fetched_us,
                self._clock() + self._lifetime(key) - age,
            )
            # A negative age: the clock was set back, and nothing tells how old the view is.
            if 0 <= age < self._lifetime(key) and not self.outdated(entry):
                self._hits_disk += 1
                return self._keep(entry)
        self._misses += 1
        return None

    def _forget_half(self) -> None:
        """Bound the invalidations: views from before those forgotten all count as outdated."""
        for ref in list(self._invalidated)[: MAX_INVALIDATED // 2]:
            self._oldest = self._invalidated.pop(ref)

    def _expire_gone(self) -> None:
        now_us = self._now_us()
        for ref in [ref for ref, gone in self._gone.items() if gone.until_us < now_us]:
            del self._gone[ref]
            self._changes.gone[ref] = None


def _size(entry: Entry) -> int:
    return _ENTRY_BYTES + len(entry.data or b"")
