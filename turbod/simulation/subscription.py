"""What a client asks a simulated Jetstream host for, with the real hosts' refusals. Pure."""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from turbod.event import valid_did, valid_nsid

_MAX_COLLECTIONS = 100
_MAX_DIDS = 10_000


class BadRequest(ValueError):
    """The text of a 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The parameters of one `/subscribe`."""

    cursor: int | None
    collections: frozenset[str]
    prefixes: tuple[str, ...]
    dids: frozenset[str]
    query: str

    @classmethod
    def parse(cls, target: str, *, v2: bool = False) -> "Subscription":
        """Read the request target.

        Raises:
            BadRequest: with the text of the legacy or the v2 server.
        """
        query = urlsplit(target).query
        fields = parse_qs(query)
        collections = set(fields.get("wantedCollections", ()))
        prefixes = tuple(sorted(name[:-1] for name in collections if name.endswith(".*")))
        whole = frozenset(name for name in collections if not name.endswith(".*"))
        what = "subscribe: invalid options" if v2 else "invalid subscriber options"
        for name in whole:
            if not valid_nsid(name):
                raise BadRequest(f"{what}: invalid collection: {name}\n")
        if len(collections) > _MAX_COLLECTIONS:
            raise BadRequest(f"{what}: too many wanted collections\n")
        dids = frozenset(fields.get("wantedDids", ()))
        if len(dids) > _MAX_DIDS or not all(map(valid_did, dids)):
            raise BadRequest(f"{what}\n")
        cursor = _cursor(fields["cursor"][-1], v2=v2) if "cursor" in fields else None
        return cls(cursor=cursor, collections=whole, prefixes=prefixes, dids=dids, query=query)

    def wants(self, did: str, collection: str) -> bool:
        """Tell whether an event passes both filters; no collection stands for what is no commit."""
        if self.dids and did not in self.dids:
            return False
        if not collection or not (self.collections or self.prefixes):
            return True
        return collection in self.collections or collection.startswith(self.prefixes)


def _cursor(text: str, *, v2: bool) -> int:
    try:
        cursor = int(text)
    except ValueError:
        wrong = f'subscribe: invalid cursor: "{text}"' if v2 else f"invalid cursor: {text}"
        raise BadRequest(wrong + "\n") from None
    if v2 and cursor < 0:
        raise BadRequest(f"subscribe: invalid cursor: negative value {cursor}\n")
    return cursor
