"""Message texts that subscribers share, beside their chunks, bounded in all. Pure."""

from collections.abc import Sized


class TextBudget:
    """Counts the bytes of all texts; above the limit the chunks that got theirs first lose them.

    They are no loss: whoever misses one builds it again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: dict[int, SharedTexts] = {}  # in the order of their first text
        self.bytes = 0

    def grew(self, texts: "SharedTexts", size: int) -> None:
        """Count a new text."""
        self._holders.setdefault(id(texts), texts)
        texts.bytes += size
        self.bytes += size
        self._shrink()

    def resize(self, limit: int) -> None:
        """Have another limit."""
        self._limit = limit
        self._shrink()

    def _shrink(self) -> None:
        while self.bytes > self._limit:
            self.forget(next(iter(self._holders.values())))

    def forget(self, texts: dict[object, Sized]) -> None:
        """Drop all texts of one chunk."""
        texts.clear()
        holder = self._holders.pop(id(texts), None)
        if holder is not None:
            self.bytes -= holder.bytes
            holder.bytes = 0


class SharedTexts(dict[object, Sized]):
    """The texts of one chunk. Only getting and setting keep the count."""

    def __init__(self, budget: TextBudget) -> None:
        super().__init__()
        self._budget = budget
        self.bytes = 0

    def __setitem__(self, key: object, text: Sized) -> None:
        """Keep a text, counted."""
        size = len(text) - len(self.get(key, b""))
        super().__setitem__(key, text)
        self._budget.grew(self, size)
