"""What a program wants, in the words that a server and an archive understand. Pure."""

import json
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec

from turbod.filter import STREAM_PARAMETERS, Filter, read_query

MAX_QUERY_BYTES: Final = 32 * 1024  # servers and proxies take some 64 KiB as a request's head


class Wanted(msgspec.Struct, frozen=True):
    """One filter.

    Attributes:
        filter: as whoever reads objects applies it.
        query: as a server is asked for it.
        hello: the options_update that says what is too long for a query, else None.
    """

    filter: Filter
    query: str
    hello: str | None = None


def wanted(
    *,
    collections: Sequence[str] = (),
    dids: Sequence[str] = (),
    about: Sequence[str] = (),
    kinds: Sequence[str] = (),
    operations: Sequence[str] = (),
    max_bytes: int = 0,
    shard: tuple[int, int] | None = None,
) -> Wanted:
    """Return the filter of these parameters, which are named in docs/client.md.

    Raises:
        InvalidRequest: one of them is malformed or beyond its limit.
    """
    payload: dict[str, Sequence[str] | int] = {
        "wantedCollections": list(collections),
        "wantedDids": list(dids),
        "aboutDids": list(about),
        "kinds": list(kinds),
        "operations": list(operations),
        "maxMessageSizeBytes": max_bytes,
    }
    payload = {name: value for name, value in payload.items() if value}
    fixed = {} if shard is None else {"shard": "{}/{}".format(*shard)}
    query = urlencode({**payload, **fixed}, doseq=True)
    chosen = read_query(query, known=STREAM_PARAMETERS, served=tuple(collections)).filter
    if len(query) <= MAX_QUERY_BYTES:
        return Wanted(chosen, query)
    hello = json.dumps({"type": "options_update", "payload": payload})
    return Wanted(chosen, urlencode({**fixed, "requireHello": "true"}), hello)
