"""Clients that come and go, and what each keeps: a digest of every record that it was sent."""

from hashlib import sha256

from soaking.ledger import Ledger
from tests.acceptance.follower import Wish, cursor_of
from tests.acceptance.restless import Restless


class Digest:
    """Records, as their number and a hash of all their bytes in order."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = sha256()

    def add(self, line: bytes) -> None:
        """Take one more."""
        self.count += 1
        self._hash.update(line)
        self._hash.update(b"\n")

    def value(self) -> tuple[int, str]:
        """Return what two of them are compared by."""
        return self.count, self._hash.hexdigest()


class Reader(Restless):
    """A subscriber over any number of connections that keeps no record.

    Attributes:
        name: in complaints.
        digest: of what it was sent.
        ledger: told of each record, where this one is the witness.
    """

    def __init__(
        self,
        port: int,
        *,
        name: str,
        wish: Wish | None = None,
        cursor: str = "0",
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(port, wish=wish, cursor=cursor)
        self.name = name
        self.digest = Digest()
        self.ledger = ledger

    def _take_line(self, line: bytes) -> None:
        cursor = cursor_of(line)
        assert cursor > self._last, f"{self.name}: cursor {cursor} after {self._last}"
        self._last = cursor
        self.cursor = str(cursor)
        self.digest.add(line)
        if self.ledger is not None:
            self.ledger.was_delivered(line)


class Expectation:
    """What a plain scan of all records says that a reader got, line after line in order."""

    def __init__(self, reader: Reader) -> None:
        assert reader.start is not None, f"{reader.name} was never served"
        self.reader = reader
        self.digest = Digest()
        self._end = int(reader.cursor)
        self._wishes = list(reader.wishes)
        self._next = 0
        self._wish = Wish()

    def add(self, line: bytes, cursor: int, event: dict[str, object]) -> None:
        """Take the next line of the log."""
        while self._next < len(self._wishes) and self._wishes[self._next][0] < cursor:
            self._wish = self._wishes[self._next][1]
            self._next += 1
        if not self._next or cursor > self._end:
            return
        if self._wish.selects_event(event, size=len(line)):
            self.digest.add(line)

    def complaint(self) -> str:
        """Say how the two differ; nothing where they do not."""
        expected, found = self.digest.value(), self.reader.digest.value()
        if expected == found:
            return ""
        return f"{self.reader.name} got {found}, the log has {expected} for it"
