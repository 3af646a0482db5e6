"""Which web pages' scripts may connect, and what their browsers are told (Fetch, CORS). Pure."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from turbod.server.request import METHODS, Refusal, Request, answer_head

PREFLIGHT_SECONDS: Final = 7200  # Chromium keeps none longer
# What a script may send beside what Fetch always allows: a token, and what downloads take.
HEADERS: Final = "Authorization, If-Match, If-None-Match, If-Range, Range"
# These tell of the operator's machine. Where no page is named, they are for our own page only.
OWN: Final = frozenset({"/metrics", "/status", "/status/hours", "/status/samples"})

_PORTS: Final = {"http": 80, "https": 443}
_origin = re.compile(
    r"(https?)://([^/?#@\s:\[\]]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?"
).fullmatch

Place = tuple[str, str, int]  # scheme, host, port


def check(request: Request, allowed: Sequence[str]) -> None:
    """Pass where the request is from no web page, or from one that may connect.

    Args:
        request: whose `Origin` is looked at.
        allowed: origins, beside our own; none allows all.

    Raises:
        Refusal: OriginNotAllowed.
    """
    origin = request.headers.get("origin")
    if not allowed or origin is None:
        return
    place = _place(origin)
    if place is None or not (place in _listed(tuple(allowed)) or _is_own(place, request.host)):
        raise Refusal(
            403,
            "OriginNotAllowed",
            "scripts of this web page may not connect here: the operator would add its origin to "
            "server.allowed_origins",
        )


def headers(request: Request, allowed: Sequence[str]) -> Mapping[str, str]:
    """Return what an answer says to browsers; the request has passed `check`, or gets nothing."""
    shared = {"Access-Control-Expose-Headers": "*"}
    if not allowed:
        return {} if request.path in OWN else {"Access-Control-Allow-Origin": "*", **shared}
    varies = {"Vary": "Origin"}
    origin = request.headers.get("origin")
    return varies if origin is None else {**varies, "Access-Control-Allow-Origin": origin, **shared}


def preflight(request: Request, allowed: Sequence[str]) -> bytes:
    """Return the answer to OPTIONS; the request has passed `check`."""
    told = dict(headers(request, allowed))
    if told.pop("Access-Control-Expose-Headers", None):
        told |= {
            "Access-Control-Allow-Methods": "GET, HEAD",
            "Access-Control-Allow-Headers": HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }
    return answer_head(204, {"Allow": ", ".join(METHODS), **told})


def _is_own(place: Place, host: str) -> bool:
    """Tell whether a page came from where the request went; a proxy may have taken off the TLS."""
    ours = _place(f"{place[0]}://{host}")
    return ours == place


@lru_cache(maxsize=4)
def _listed(allowed: tuple[str, ...]) -> frozenset[Place | None]:
    return frozenset(map(_place, allowed))


def _place(origin: str) -> Place | None:
    found = _origin(origin.lower())
    if found is None:
        return None
    scheme, host, port = found.groups()
    return scheme, host, int(port) if port else _PORTS[scheme]
