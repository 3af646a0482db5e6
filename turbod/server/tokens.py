"""Who may connect: the file of tokens, each kept as its SHA-256, and its limits. Pure."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from turbod import bearer, systemd
from turbod.config import ConfigError, Settings

MAX_TOKENS: Final = 1000  # each has a line in /metrics
MAX_FILE_BYTES: Final = 1024 * 1024
_ADVICE: Final = "`turbod token NAME` makes an entry"

# Shorter than a token: one that was put in a name's place is never taken for it, and never shown.
is_name = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII).fullmatch


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    sha256: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")]
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    max_filter_dids: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    archive: bool = False


_ALLOWED: Final = {
    "sha256": "64 hexadecimal digits, the SHA-256 of a token",
    "max_connections": "a whole number from 1 to 1000000",
    "max_filter_dids": "a whole number from 0 to 1000000000",
    "archive": "true or false",
}


class Token(msgspec.Struct, frozen=True):
    """One entry.

    Attributes:
        name: for logs and figures; the token itself is in nobody's hands but its owner's.
        digest: the SHA-256 of the token.
        max_connections: at once; None for no bound of its own.
        max_filter_dids: in the filters of all its subscribers together; None as above.
        archive: whether it may fetch whole hours although they are not public.
    """

    name: str
    digest: bytes
    max_connections: int | None = None
    max_filter_dids: int | None = None
    archive: bool = False


class Tokens:
    """All entries, found by a token."""

    def __init__(self, tokens: Mapping[str, Token]) -> None:
        self._by_digest = {token.digest: token for token in tokens.values()}

    def __iter__(self) -> Iterator[Token]:
        """Go through all entries."""
        return iter(self._by_digest.values())

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._by_digest)

    def find(self, text: str) -> Token | None:
        """Return the entry of what a client sent; costs the same however long or nearly right."""
        return self.of(bearer.digest(text)) if bearer.is_ours(text) else None

    def of(self, digest: bytes | None) -> Token | None:
        """Return the entry of a token's digest, as it is now; None for none, or none any longer."""
        return None if digest is None else self._by_digest.get(digest)


def file_of(settings: Settings, environment: Mapping[str, str]) -> Path | None:
    """Return the file that the settings name, else the service manager's credential `tokens`.

    Raises:
        ConfigError: whether there is one cannot be known.
    """
    if settings.server.tokens:
        return Path(settings.server.tokens)
    try:
        return systemd.credential(environment, "tokens")
    except OSError as error:
        raise ConfigError(f"credential {error.filename}: {error.strerror}") from None


def read(settings: Settings, environment: Mapping[str, str]) -> Tokens | None:
    """Return who may connect, None for everybody; a file without entries lets nobody in.

    Raises:
        ConfigError: naming the file, the entry and what is allowed; never what stood there, since
            it might be a token.
    """
    file = file_of(settings, environment)
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"server.tokens {file}: {error.strerror}; {_ADVICE}") from None
    tokens = parse(data, str(file))
    for token in tokens if settings.exclude else ():
        if token.archive:
            raise ConfigError(
                f"[{token.name}] in {file}: archive was true and exclude was set: whole hours hold "
                "the records that are not to be passed on; unset one of the two"
            )
    return tokens


def parse(data: bytes, file: str) -> Tokens:
    """Return the tokens that a file's bytes name.

    Args:
        data: TOML, a table for each token.
        file: its name, for who is told of a mistake in it.

    Raises:
        ConfigError: as `read`.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"server.tokens {file}: more than {MAX_FILE_BYTES} bytes")
    try:
        entries = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        where = re.search(r"line [0-9]+", str(error))
        line = f", {where[0]}" if where else ""
        why = "a name is there twice" if "twice" in str(error) else "not TOML"
        raise ConfigError(f"server.tokens {file}{line}: {why}; {_ADVICE}") from None
    if len(entries) > MAX_TOKENS:
        raise ConfigError(f"server.tokens {file}: {len(entries)} tokens; {MAX_TOKENS} are allowed")
    tokens = {name: _token(name, entry, file) for name, entry in entries.items()}
    _refuse_twins(tokens, file)
    return Tokens(tokens)


def _token(name: str, entry: object, file: str) -> Token:
    if not is_name(name):
        raise ConfigError(
            f"server.tokens {file}: a name has 1 to 40 letters, digits, _ and -; {_ADVICE}"
        )
    where = f"[{name}] in {file}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{name} in {file}: expected a table [{name}]; {_ADVICE}")
    for key in entry.keys() - _ALLOWED:
        shown = key if is_name(key) else "a key"
        raise ConfigError(f"{where}: {shown} is not known; {', '.join(_ALLOWED)} are")
    try:
        read_entry = msgspec.convert(entry, _Entry)
    except msgspec.ValidationError as error:
        found = re.search(r"`\$\.(\w+)`", str(error))
        key = found[1] if found else "sha256"
        raise ConfigError(f"{where}: {key} must be {_ALLOWED[key]}; {_ADVICE}") from None
    return Token(
        name,
        bytes.fromhex(read_entry.sha256),
        read_entry.max_connections,
        read_entry.max_filter_dids,
        read_entry.archive,
    )


def _refuse_twins(tokens: Mapping[str, Token], file: str) -> None:
    names: dict[bytes, str] = {}
    for name, token in tokens.items():
        other = names.setdefault(token.digest, name)
        if other != name:
            raise ConfigError(f"[{name}] in {file}: the same token as [{other}]; each has its own")
