"""What happened in the network against what was delivered: once each, in order by account. Pure."""

from collections import Counter
from typing import Final

import msgspec

from turbod.simulation.happening import Happening

# What `COLLECTIONS` of tests/acceptance/process.py says, and what is read beside it for its views.
LOGGED: Final = frozenset({"app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost"})
LOGGED_PREFIX: Final = "app.bsky.graph."
CACHE_ONLY: Final = frozenset(
    {
        "app.bsky.actor.profile",
        "app.bsky.actor.status",
        "app.bsky.feed.threadgate",
        "app.bsky.feed.postgate",
    }
)
FAULTS_KEPT: Final = 20
Key = tuple[str, ...]


class Commit(msgspec.Struct, frozen=True):
    """What of a commit makes it one of its kind."""

    rev: str
    operation: str
    collection: str
    rkey: str
    cid: str = ""


class Notice(msgspec.Struct, frozen=True):
    """What of an identity or account event makes it one of its kind."""

    time: str


class Message(msgspec.Struct, frozen=True):
    """An event, as far as it tells which one it is."""

    did: str
    kind: str
    commit: Commit | None = None
    identity: Notice | None = None
    account: Notice | None = None

    @property
    def key(self) -> Key:
        """What it is recognised by, by protocol.md."""
        if self.commit is not None:
            commit = self.commit
            names = (commit.collection, commit.rkey, commit.rev, commit.operation, commit.cid)
            return (self.did, *names)
        notice = self.identity or self.account
        assert notice is not None, "an event is a commit, an identity or an account"
        return (self.kind, self.did, notice.time)


class Metadata(msgspec.Struct, frozen=True):
    """What of the hydration tells how it went."""

    unresolved: list[str] = []


class Record(msgspec.Struct, frozen=True):
    """A record, as far as it is looked at."""

    message: Message
    hydrated_metadata: Metadata


decode = msgspec.json.Decoder(Record).decode


def key_of(happening: Happening) -> Key:
    """Return the same of what happened."""
    if happening.notice is not None:
        return (happening.kind, happening.did, happening.notice["time"])
    names = (happening.collection, happening.rkey, happening.rev, happening.operation)
    return (happening.did, *names, happening.cid)


class Ledger:
    """Holds what was not delivered yet.

    Attributes:
        kinds: events that are for the log, by kind, each once.
        cache_only: those that turbod takes and does not log.
        delivered: records that were.
        unresolved: views left out in good stretches; in others they are `excused`.
        is_good: whether nothing goes on that leaves views out.
        is_ordered: whether nothing goes on that lets an event come late.
        faults: in words, the first of them.
    """

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.cache_only = 0
        self.delivered = 0
        self.unresolved = self.excused = 0
        self.is_good = self.is_ordered = True
        self.faults: list[str] = []
        self._number = 0
        self._pending: dict[Key, int] = {}
        self._greatest: dict[str, int] = {}
        self._notices: dict[tuple[str, str], str] = {}

    @property
    def pending(self) -> int:
        """How many events were not delivered yet."""
        return len(self._pending)

    def happened(self, happening: Happening) -> None:
        """Note an event."""
        if happening.notice is not None:
            if self._is_known(happening, happening.notice["time"]):
                return
        elif not is_logged(happening.collection):
            self.cache_only += happening.collection in CACHE_ONLY
            return
        self._number += 1
        self.kinds[happening.kind] += 1
        self._pending[key_of(happening)] = self._number

    def was_delivered(self, line: bytes) -> None:
        """Note a record."""
        record = decode(line)
        key = record.message.key
        number = self._pending.pop(key, None)
        if number is None:
            self.complain(f"twice, or never sent: {key}")
            return
        self.delivered += 1
        self._check_order(record.message.did, number, key)
        left_out = len(record.hydrated_metadata.unresolved)
        if self.is_good and left_out:
            self.unresolved += left_out
            self.complain(f"unresolved for no reason: {record.hydrated_metadata.unresolved}")
        self.excused += 0 if self.is_good else left_out

    def check_nothing_left(self) -> None:
        """Complain of what was never delivered."""
        for key in list(self._pending)[:FAULTS_KEPT]:
            self.complain(f"never delivered: {key}")

    def complain(self, words: str) -> None:
        """Keep a fault, where there is room."""
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(words)

    def _check_order(self, did: str, number: int, key: Key) -> None:
        if number < self._greatest.get(did, 0) and self.is_ordered:
            self.complain(f"after a later one of its account: {key}")
        self._greatest[did] = max(number, self._greatest.get(did, 0))

    def _is_known(self, happening: Happening, time: str) -> bool:
        """Tell whether this notice is the one before once more: both in one millisecond."""
        who = (happening.kind, happening.did)
        known = self._notices.get(who) == time
        self._notices[who] = time
        return known


def is_logged(collection: str) -> bool:
    """Tell whether a commit is for the log."""
    return collection in LOGGED or collection.startswith(LOGGED_PREFIX)
