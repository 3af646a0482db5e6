"""Whether one stream keeps the order: a server's own cursors, and each account's revs. Pure."""

from typing import Final

from turbod.compare.seen import Seen

MAX_ACCOUNTS: Final = 40_000  # the half of them, at least, that had an event last; some 10 MB


class Order:
    """Counts what is out of order.

    Attributes:
        cursors_fallen: events whose cursor is not above the one before.
        revs_fallen: commits whose rev is below one that the account had before.
    """

    def __init__(self, *, max_accounts: int = MAX_ACCOUNTS) -> None:
        self.cursors_fallen = 0
        self.revs_fallen = 0
        self._half = max(1, max_accounts // 2)
        self._cursor = 0
        self._newer: dict[int, str] = {}
        self._older: dict[int, str] = {}

    def add(self, seen: Seen) -> None:
        """Take the next event of the stream."""
        if seen.cursor:
            self.cursors_fallen += seen.cursor <= self._cursor
            self._cursor = seen.cursor
        if seen.rev:
            self._add_rev(hash(seen.did), seen.rev)

    def _add_rev(self, account: int, rev: str) -> None:
        newest = self._newer.get(account) or self._older.get(account, "")
        if rev < newest:
            self.revs_fallen += 1
            rev = newest
        if len(self._newer) >= self._half and account not in self._newer:
            self._older, self._newer = self._newer, {}
        self._newer[account] = rev
