"""What is never shown: passwords, tokens, keys and signatures are taken out of text. Pure."""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final
from urllib.parse import quote

HIDDEN: Final = "***"
MAX_KEPT_SECRETS: Final = 100  # the newest ones, each in two spellings
LEAST_CHARACTERS: Final = 8  # of a kept secret: a shorter one would take ordinary words with it
MAX_DEPTH: Final = 6
MAX_ITEMS: Final = 50
MAX_CHARACTERS: Final = 100_000  # that are looked through; what lies between is not shown


def _without_query(url: re.Match[str]) -> str:
    """Hide all behind the first question mark but the stops of a sentence, if there is anything."""
    place, _, query = url[0].partition("?")
    shown = query.rstrip(":,.;)")
    return f"{place}?{HIDDEN}{query[len(shown) :]}" if shown else url[0]


_VALUE: Final = r"[^&\s\"',;)]{1,5000}"
# Quantifiers are bounded so that no text, however made, costs more than some milliseconds.
_REPLACEMENTS: Final = tuple(
    (re.compile("".join(pattern), re.IGNORECASE | re.ASCII), replacement)
    for replacement, *pattern in (
        # user:password@ of any URL (RFC 3986, section 3.2.1)
        (rf"\1{HIDDEN}@", r"(\b[a-z][a-z0-9+.-]{0,20}://)[^/?#\s]{1,1000}@"),
        # queries of what is fetched: signed URLs, tokens of others
        (_without_query, r"\b(?:https?|wss?)://[^\s\"'<>]+"),
        # parts of a signed request, wherever they stand
        (
            rf"\1\2{HIDDEN}",
            r"\b(x-amz-(?:signature|credential|security-token)|awsaccesskeyid)",
            rf"([\"']?\s{{0,4}}(?:[=:]|%3D)\s{{0,4}}(?:b?[\"'])?){_VALUE}",
        ),
        (
            rf"\1={HIDDEN}",
            r"\b(signature|password|passwd|secret|api_?key|[a-z_]{0,20}token",
            rf"|(?:aws_)?secret_access_key)={_VALUE}",
        ),
        # a header's scheme and credentials (RFC 9110, section 11.4)
        (
            rf"\1{HIDDEN}",
            r"(\bauthorization[\"']?\s{0,4}[:=,]\s{0,4}(?:b?[\"'])?)",
            rf"(?:[a-z0-9-]{{1,30}} {{1,4}})?{_VALUE}",
        ),
        (rf"\1 {HIDDEN}", rf"\b(bearer)(?:\.{_VALUE}| {{1,4}}[\w.~+/=-]{{12,5000}})"),
        # what turbod makes itself: longer than any name of a metric
        (f"turbod_{HIDDEN}", r"\bturbod_[a-z0-9_-]{32,200}"),
        # ids of AWS's access keys
        (HIDDEN, r"\b(?:AKIA|ASIA)[A-Z0-9]{16,124}"),
    )
)
_HIDDEN_KEYS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "password", "secret"}
    | {"secret_key", "aws_secret_access_key", "aws_session_token", "x-amz-security-token"}
)


class Kept:
    """Secrets that have no form to be known by: they are taken out where they stand."""

    def __init__(self) -> None:
        self._secrets: tuple[str, ...] = ()
        self.spellings: tuple[str, ...] = ()

    def add(self, secret: str) -> None:
        """Keep one; the oldest of too many is forgotten."""
        if len(secret) < LEAST_CHARACTERS or secret in self._secrets:
            return
        self._secrets = (*self._secrets, secret)[-MAX_KEPT_SECRETS:]
        both = {spelling for each in self._secrets for spelling in (each, quote(each, safe=""))}
        # The longest first, for one may be part of another. Replaced whole: threads may be reading.
        self.spellings = tuple(sorted(both, key=len, reverse=True))


_kept = Kept()


def keep_secret(secret: str) -> None:
    """Never show this text from now on, whatever it stands in."""
    _kept.add(secret)


def redacted(text: str) -> str:
    """Return text with stars in place of what is secret."""
    text = _without_middle(text)
    for secret in _kept.spellings:
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text


def _without_middle(text: str) -> str:
    """Return its ends where it is too long: a traceback's last line says most.

    The second end begins with a line of its own, for half a secret could not be told.
    """
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]} …\n{text[-half:].partition(chr(10))[2]}"


def without_secrets(value: Any, depth: int = 0) -> Any:
    """Return a value as plain JSON has them, with stars in place of what is secret in it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray):
        return redacted(bytes(value).decode("utf-8", "replace"))
    if isinstance(value, str):
        return redacted(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return _mapping(value, depth + 1)
        if isinstance(value, list | tuple | AbstractSet):
            return _items(tuple(value), depth + 1)
    return redacted(str(value))


def _mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    plain = {}
    for index, (key, item) in enumerate(value.items()):
        if index == MAX_ITEMS:
            plain["…"] = f"{len(value) - MAX_ITEMS} more"
            break
        is_hidden = _is_hidden(key)
        plain[redacted(str(key))] = HIDDEN if is_hidden else without_secrets(item, depth)
    return plain


def _items(value: tuple[Any, ...], depth: int) -> list[Any]:
    if len(value) == 2 and _is_hidden(value[0]):  # noqa: PLR2004 - a header, its name and its value
        return [without_secrets(value[0]), HIDDEN]
    plain = [without_secrets(item, depth) for item in value[:MAX_ITEMS]]
    return plain + [f"… {len(value) - MAX_ITEMS} more"] * (len(value) > MAX_ITEMS)


def _is_hidden(key: object) -> bool:
    if isinstance(key, bytes):
        key = key.decode("latin-1")
    return isinstance(key, str) and key.lower() in _HIDDEN_KEYS
