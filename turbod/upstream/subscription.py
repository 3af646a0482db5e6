"""Which collections are asked for, logged, or only keep the cache fresh. Pure."""

from collections.abc import Iterable
from typing import Final

MAX_WANTED: Final = 100  # Jetstream refuses more
# A view shows something of each of these, so a change of one makes a cached view stale.
CACHE_FEEDERS: Final = (
    "app.bsky.feed.post",
    "app.bsky.actor.profile",
    "app.bsky.actor.status",
    "app.bsky.feed.threadgate",
    "app.bsky.feed.postgate",
    "app.bsky.feed.generator",
    "app.bsky.graph.list",
    "app.bsky.graph.starterpack",
    "app.bsky.graph.verification",
    "app.bsky.labeler.service",
    "chat.bsky.actor.declaration",
    "app.bsky.notification.declaration",
    "com.germnetwork.declaration",
)
_MAX_REMEMBERED = 4096  # verdicts: a host may send any collection it likes


class Subscription:
    """What is read from every host: `collections` to be logged, and what feeds the cache.

    Identity and account events (their collection is empty) come whatever is asked for, and are
    logged.

    Attributes:
        wanted: the collections to ask for, none of them covered by another.
    """

    def __init__(self, collections: Iterable[str]) -> None:
        self._logged = frozenset(collections)
        union = sorted({*self._logged, *CACHE_FEEDERS})
        self.wanted = tuple(item for item in union if not _covered(item, union))
        assert len(self.wanted) <= MAX_WANTED, "the settings bound the collections"
        self._verdicts: dict[str, bool | None] = {"": True}

    def logged(self, collection: str) -> bool | None:
        """Tell whether this collection is logged; None where it was not even asked for."""
        try:
            return self._verdicts[collection]
        except KeyError:
            return self._judge(collection)

    def wants(self, collection: str) -> bool:
        """Tell whether a host that is asked for `wanted` sends this collection."""
        return self.logged(collection) is not None

    def _judge(self, collection: str) -> bool | None:
        if len(self._verdicts) >= _MAX_REMEMBERED:
            self._verdicts = {"": True}
        verdict: bool | None = None
        if _matches(collection, self._logged):
            verdict = True
        elif _matches(collection, self.wanted):
            verdict = False
        self._verdicts[collection] = verdict
        return verdict


def _matches(collection: str, patterns: Iterable[str]) -> bool:
    return any(
        collection == pattern or (pattern.endswith(".*") and collection.startswith(pattern[:-1]))
        for pattern in patterns
    )


def _covered(item: str, others: Iterable[str]) -> bool:
    prefixes = (other for other in others if other.endswith(".*") and other != item)
    return any(item.startswith(prefix[:-1]) for prefix in prefixes)
