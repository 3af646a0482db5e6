"""Bearer tokens: their form, how one is made, and where a client finds its own."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Final

from turbod.config import ConfigError
from turbod.redaction import keep_secret

VARIABLE: Final = "TURBOD_TOKEN"
_RANDOM_BYTES: Final = 32

# `turbod_` makes one easy to find where it should not be, in a repository or a log.
_is_ours = re.compile(r"turbod_[A-Za-z0-9_-]{43}", re.ASCII).fullmatch
_is_bearer = re.compile(r"[A-Za-z0-9._~+/-]{1,1000}={0,2}", re.ASCII).fullmatch


class BadToken(ConfigError):
    """What was given can be no token."""


def make() -> str:
    """Return a new token: 256 bits of chance, so that a plain SHA-256 of it tells nothing."""
    return f"turbod_{secrets.token_urlsafe(_RANDOM_BYTES)}"


def is_ours(text: str) -> bool:
    """Tell whether it has the form of what `make` returns; costs the same however long it is."""
    return _is_ours(text) is not None


def digest(token: str) -> bytes:
    """Return what a server keeps of a token."""
    return hashlib.sha256(token.encode("ascii")).digest()


def sendable(token: str, *, origin: str) -> str:
    """Return a token that a request can carry (RFC 6750, section 2.1), whoever made it.

    Raises:
        BadToken: it is none; the text says where it came from, and nothing of what it was.
    """
    if not _is_bearer(token):
        raise BadToken(
            f"{origin}: expected a token such as `turbod token` makes: letters, digits and "
            "-._~+/ alone, without spaces or line breaks"
        )
    keep_secret(token)
    return token


def from_environment(environment: Mapping[str, str]) -> str | None:
    """Return the token that a client is to send, None for none.

    It has no option: other users of a machine see every process's command line.

    Raises:
        BadToken: what is there is no token.
    """
    token = environment.get(VARIABLE, "").strip()
    return sendable(token, origin=VARIABLE) if token else None
