"""Which path speaks which framing, and what a framing is. Pure.

A framing to come is one more Framing in FRAMINGS, with a path in STREAMS where it has its own.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from turbod import frames


class Framing(msgspec.Struct, frozen=True):
    """How records and news about the connection become messages.

    Attributes:
        name: the subprotocol, as in Sec-WebSocket-Protocol.
        opcode: of its messages where they are not compressed.
        max_records: in one message.
        records: makes one message of lines.
        news: makes one message of an object with `$type`.
        shares_arrays: whether the array that a chunk keeps is a message as it is.
    """

    name: str
    opcode: int
    max_records: int
    records: Callable[[Iterable[bytes]], bytes]
    news: Callable[[Mapping[str, Any]], bytes]
    shares_arrays: bool


class Endpoint(msgspec.Struct, frozen=True):
    """A path's own framing, and whether it speaks about the connection where nothing was asked."""

    framing: Framing
    metadata: bool


TURBOSTREAM_JSON: Final = Framing(
    name="turbostream.v1.json",
    opcode=frames.TEXT,
    max_records=100,
    records=frames.array,
    news=msgspec.json.encode,
    shares_arrays=True,
)
# Followed by a token, which is all that a browser lets a script send of it.
BEARER: Final = "bearer."
FRAMINGS: Final = {framing.name: framing for framing in (TURBOSTREAM_JSON,)}
STREAMS: Final = {
    "/turbostream": Endpoint(TURBOSTREAM_JSON, metadata=True),
    "/app/api/v1/turbostream/turbostream": Endpoint(TURBOSTREAM_JSON, metadata=False),
}


def choose_framing(endpoint: Endpoint, offered: Iterable[str]) -> tuple[Framing, str | None]:
    """Return the first known framing in the client's order and its name to echo.

    Where none is known the path's own holds, and nothing is echoed; but a browser that offered a
    token and nothing else breaks off where it gets nothing back (WebSockets standard, "establish
    a WebSocket connection"), so it gets what it sent.
    """
    names = list(offered)
    for name in names:
        if name in FRAMINGS:
            return FRAMINGS[name], name
    is_token_alone = bool(names) and all(name.startswith(BEARER) for name in names)
    return endpoint.framing, names[0] if is_token_alone else None
