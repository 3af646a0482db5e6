"""What a simulated network remembers in order to go on: newest posts, what can be undone. Pure."""

from collections import deque
from random import Random
from typing import Any, Final, TypeAlias

import msgspec

from turbod.simulation.happening import Happening
from turbod.simulation.identifiers import record_cid, tid
from turbod.simulation.people import Account, Population

POST: Final = "app.bsky.feed.post"
Write: TypeAlias = tuple[str, str, str, dict[str, Any] | None]
"""Operation, collection, record key, record (None for a delete)."""
_UNDOABLE: Final = 5_000  # likes, reposts, follows and blocks that can still be taken back
_HANDLE_SHARE: Final = 0.6  # of identity events that tell the handle
_RECENT_SHARE: Final = 0.8  # of replies, likes and quotes go to something new
_RECENT_MEAN: Final = 150  # posts back
_encode = msgspec.json.Encoder().encode


class Post(msgspec.Struct, gc=False):
    """One post, as far as others refer to it."""

    uri: str
    cid: str
    author: Account
    rkey: str
    root_uri: str
    root_cid: str
    created_us: int
    deleted: bool = False
    record: dict[str, Any] | None = None


class State:
    """Everything that changes as time goes on; `queue` holds what has not been told yet."""

    def __init__(self, *, seed: int, accounts: int, posts_kept: int, now_us: int) -> None:
        self.random = Random(seed)  # noqa: S311 - the same seed gives the same network
        self.people = Population(self.random, count=accounts, seed=seed, now_us=now_us)
        self.posts: deque[Post] = deque(maxlen=posts_kept)
        self.undoable: dict[str, deque[tuple[Account, str]]] = {}
        self.inactive: list[Account] = []
        self.queue: deque[Happening] = deque()
        self.posts_made = 0
        self.now_us = now_us
        self._relay_sequence = 31_527_015_000
        self._tid_us = 0
        self._time_us = 0

    def chance(self, share: float) -> bool:
        """Draw: true in this share of all cases."""
        return self.random.random() < share

    def new_tid(self) -> str:
        """Return a TID of about now that was never given before."""
        self._tid_us = max(self._tid_us + 1, self.now_us)
        return tid(self._tid_us, clock=self.random.getrandbits(5))

    def commit(
        self,
        account: Account,
        *writes: Write,
    ) -> list[str]:
        """Put one commit with all its operations into the queue; return their CIDs."""
        rev = self.new_tid()
        cids, commit_us = [], 0
        for operation, collection, rkey, record in writes:
            record_json = b"" if record is None else _encode(record)
            cid = "" if record is None else record_cid(record_json + rkey.encode())
            cids.append(cid)
            time_us = self._next_time()
            commit_us = commit_us or time_us
            self.queue.append(
                Happening(
                    account.did,
                    "commit",
                    time_us,
                    commit_us,
                    collection,
                    operation,
                    rkey,
                    rev,
                    cid,
                    record,
                    record_json,
                )
            )
        return cids

    def notice(self, account: Account, kind: str, time: str) -> None:
        """Put an identity or account event into the queue, as the account now stands."""
        self._relay_sequence += 1 + self.random.randrange(40)
        notice: dict[str, Any]
        if kind == "identity":
            notice = {"did": account.did}
            if self.chance(_HANDLE_SHARE):
                notice["handle"] = account.handle
        else:
            notice = {"active": account.active, "did": account.did}
        notice["seq"] = self._relay_sequence
        if kind == "account" and account.status:
            notice["status"] = account.status
        notice["time"] = time
        time_us = self._next_time()
        handle = account.handle if kind == "identity" else ""
        self.queue.append(
            Happening(account.did, kind, time_us, time_us, notice=notice, handle=handle)
        )

    def some_post(self) -> Post | None:
        """Draw a post to refer to: mostly a recent one, never one known to be deleted."""
        count = len(self.posts)
        for _ in range(10):
            if not count:
                break
            if self.chance(_RECENT_SHARE):
                back = int(self.random.expovariate(1 / _RECENT_MEAN))
                post = self.posts[-1 - min(back, count - 1)]
            else:
                post = self.posts[self.random.randrange(count)]
            if not post.deleted and post.author.active:
                return post
        return None

    def remember(self, account: Account, collection: str, rkey: str) -> None:
        """Keep a like, repost, follow or block, so that it can be taken back."""
        self.undoable.setdefault(collection, deque(maxlen=_UNDOABLE)).append((account, rkey))

    def _next_time(self) -> int:
        self._time_us = max(self._time_us + 1, self.now_us)
        return self._time_us
