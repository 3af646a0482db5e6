"""The one table of settings: command line, environment, file and docs are made from it.

Every setting is a field below: its name, bounds, default and help. Where it is given more than
once, the command line beats the environment, the environment the file, the file the default.
Each stage of turbod gets its own section and nothing else, keeps it, and reads it at each use:
`reload` changes what it says in place, and nobody else does.
"""

import argparse
import difflib
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_type_hints

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

MEGABYTE: Final = 1024 * 1024
GIGABYTE: Final = 1000**3

# HOST:PORT, where HOST may be [::1], and PORT is at most 65535.
_PORT: Final = "([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
# Without a login: it would stand in every log line and page that names the host.
_HOST_AND_PORT: Final = rf"(\[[^/?#\s\]@]+\]|[^/?#\s:\[\]@]+)(:{_PORT})?"
_COLLECTION: Final = r"^[a-zA-Z][a-zA-Z0-9-]*(\.[a-zA-Z0-9-]+)*\.(\*|[a-zA-Z][a-zA-Z0-9]*)$"
# As a browser says it (RFC 6454, section 6.2): a name is never a pattern, nor other than ASCII.
_ORIGIN: Final = rf"^https?://(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z._-]+)(:{_PORT})?$"
# An address, or a network in CIDR notation. What else is wrong with one, `ipaddress` says.
_NETWORK: Final = r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$"
_PREFIX: Final = "TURBOD_"
_AT_START: Final = {"restart": True}  # for what is read once; all else is read again at a reload
# What commands read beside settings; and what the tests do, which start commands of ours.
_ELSEWHERE: Final = frozenset(
    {"TURBOD_CONFIG", "TURBOD_TOKEN"}
    | {"TURBOD_AXE", "TURBOD_CAPTURES", "TURBOD_FIGURES", "TURBOD_PHOTOGRAPHS"}
)


class ConfigError(ValueError):
    """A setting that cannot be: one line that says which, where it came from, what is allowed."""


class Section(msgspec.Struct, frozen=True):
    """Settings that one stage reads."""


class UpstreamSettings(Section, frozen=True):
    """Reading Jetstream."""

    handshake_seconds: Annotated[
        float,
        Meta(ge=0.1, le=300, description="longest wait for connect, TLS and upgrade together"),
    ] = 10
    silence_seconds: Annotated[
        float, Meta(ge=0.1, le=3600, description="silence after which a host is sent a ping")
    ] = 30
    ping_seconds: Annotated[
        float, Meta(ge=0.1, le=300, description="longest wait for the pong, then reconnect")
    ] = 10
    longest_backoff_seconds: Annotated[
        float, Meta(ge=0.1, le=3600, description="longest wait between two connects to one host")
    ] = 30
    identities: Annotated[
        int,
        Meta(
            ge=500_000,
            le=100_000_000,
            description="events remembered in memory to recognise a second copy, 16 bytes each",
            extra=_AT_START,
        ),
    ] = 2_000_000


class HydrationSettings(Section, frozen=True):
    """Asking the AppView."""

    calls_per_second: Annotated[
        float,
        Meta(ge=0.1, le=10_000, description="request budget where the AppView names none itself"),
    ] = 10
    concurrent_calls: Annotated[
        int, Meta(ge=1, le=100, description="requests under way at once")
    ] = 10
    deadline_seconds: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="wait for an AppView that does not answer, then null"),
    ] = 5
    max_lag_seconds: Annotated[
        float,
        Meta(ge=1, le=86400, description="lag taken on while only the budget is short, then null"),
    ] = 3600
    max_pending_bytes: Annotated[
        int,
        Meta(ge=MEGABYTE, le=10**12, description="events waiting for views; above, intake waits"),
    ] = 32 * MEGABYTE


class CacheSettings(Section, frozen=True):
    """Keeping what the AppView answered."""

    memory_bytes: Annotated[
        int, Meta(ge=MEGABYTE, le=10**12, description="views kept in memory")
    ] = 64 * MEGABYTE
    disk_bytes: Annotated[
        int, Meta(ge=MEGABYTE, le=10**15, description="size of the cache's SQLite file")
    ] = GIGABYTE
    profile_seconds: Annotated[
        float, Meta(ge=1, le=30 * 86400, description="age at which a profile is asked for again")
    ] = 3600
    post_seconds: Annotated[
        float, Meta(ge=1, le=30 * 86400, description="age at which a post is asked for again")
    ] = 3600
    missing_seconds: Annotated[
        float,
        Meta(ge=1, le=86400, description="age at which what was not there is asked for again"),
    ] = 600


class LogSettings(Section, frozen=True):
    """Writing the log, and its newest part in memory."""

    max_bytes: Annotated[
        int,
        Meta(
            ge=10 * MEGABYTE,
            le=10**15,
            description="hours on this disk, the archive's folder apart; above, the oldest "
            "that the archive has goes",
        ),
    ] = 10 * GIGABYTE
    memory_bytes: Annotated[
        int, Meta(ge=MEGABYTE, le=10**12, description="newest records kept in memory")
    ] = 48 * MEGABYTE


class ArchiveSettings(Section, frozen=True):
    """Keeping every hour."""

    location: Annotated[
        str,
        Meta(
            pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#\s]*)?|(?!s3:).*)$",
            title="s3://BUCKET/PREFIX, or the path of a folder",
            description="where finished hours go; without it the folder `archive` in the data "
            "folder",
            extra=_AT_START | {"name": "archive"},
        ),
    ] = ""
    max_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=10**18,
            description="size of the archive where it is a folder; 0 for half of what is free on "
            "its disk when it is made",
        ),
    ] = 0
    when_full: Annotated[
        str,
        Meta(
            pattern="^(stop|drop_oldest)$",
            title="stop or drop_oldest",
            description="what a full folder does: let hours wait on this disk, or lose its oldest",
        ),
    ] = "stop"
    read_ahead_bytes: Annotated[
        int,
        Meta(
            ge=64 * MEGABYTE,
            le=10**12,
            description="uncompressed history in memory, for all clients together",
        ),
    ] = 160 * MEGABYTE
    public: Annotated[
        bool,
        Meta(
            title="true or false",
            description="whether anybody may fetch whole hours from /archive; for a bucket you pay",
        ),
    ] = False


class S3Settings(Section, frozen=True):
    """The bucket; keys come from where AWS's tools look for them."""

    endpoint: Annotated[
        str,
        Meta(
            pattern=rf"^(https?://{_HOST_AND_PORT})?$",
            title="http://HOST or https://HOST",
            description="the S3 server, where it is not AWS",
            extra=_AT_START,
        ),
    ] = ""
    region: Annotated[
        str,
        Meta(
            pattern="^[a-z0-9-]*$",
            title="a region's name",
            description="the bucket's region; without it as AWS's tools find it, or us-east-1",
            extra=_AT_START,
        ),
    ] = ""
    addressing: Annotated[
        str,
        Meta(
            pattern="^(auto|path|virtual)$",
            title="auto, path or virtual",
            description="whether the bucket stands in the path or in the host's name",
            extra=_AT_START,
        ),
    ] = "auto"
    encryption: Annotated[
        str,
        Meta(
            pattern="^(|AES256|aws:kms|aws:kms:dsse)$",
            title="AES256, aws:kms or aws:kms:dsse",
            description="server-side encryption to ask for",
            extra=_AT_START,
        ),
    ] = ""
    kms_key: Annotated[
        str,
        Meta(title="a key's id or ARN", description="the KMS key, with aws:kms", extra=_AT_START),
    ] = ""
    storage_class: Annotated[
        str,
        Meta(
            pattern="^[A-Z_]*$",
            title="a class's name such as STANDARD_IA",
            description="storage class to ask for",
            extra=_AT_START,
        ),
    ] = ""


class ServerSettings(Section, frozen=True):
    """Serving subscribers and plain GETs."""

    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="connections at once, in all")
    ] = 2000
    max_connections_per_address: Annotated[
        int, Meta(ge=1, le=1_000_000, description="connections at once from one address")
    ] = 1000
    tokens: Annotated[
        str,
        Meta(
            title="the path of a file",
            description="who may connect, by hashed bearer tokens; `turbod token` makes one; "
            "without the file, everybody",
        ),
    ] = ""
    max_wrong_tokens_per_minute: Annotated[
        int, Meta(ge=1, le=100_000, description="guesses from one address; above, 429")
    ] = 10
    allowed_origins: Annotated[
        tuple[Annotated[str, Meta(pattern=_ORIGIN)], ...],
        Meta(
            max_length=100,
            title="https://HOST, in ASCII and without *, at most 100 of them",
            description="web pages, beside our own, whose scripts may connect; without one, all",
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[Annotated[str, Meta(pattern=_NETWORK)], ...],
        Meta(
            max_length=100,
            title="addresses or networks as 10.0.0.0/8, at most 100 of them",
            description="proxies that tell the client's address; nobody else is believed",
        ),
    ] = ()
    forwarded_header: Annotated[
        str,
        Meta(
            pattern="^(X-Forwarded-For|Forwarded)$",
            title="X-Forwarded-For or Forwarded",
            description="the one header in which the trusted proxies tell it",
        ),
    ] = "X-Forwarded-For"
    max_handshakes: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="connections at once that sent no whole request; three quarters of them "
            "from one address",
        ),
    ] = 200
    handshake_seconds: Annotated[
        float, Meta(ge=0.1, le=300, description="longest wait for a whole request head")
    ] = 5
    max_history_readers: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="clients at once that are served hours from before the log's current ones",
        ),
    ] = 8
    max_filter_dids: Annotated[
        int, Meta(ge=1, le=10**9, description="DIDs in all subscribers' filters together")
    ] = 1_000_000
    stuck_seconds: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="a client that takes under 64 KiB in this time is reset"),
    ] = 60
    shutdown_seconds: Annotated[
        float, Meta(ge=0.1, le=300, description="longest time from SIGTERM to exit")
    ] = 10


class Settings(Section, frozen=True):
    """Everything that can be set; no two have a section in common, for `reload` changes them."""

    listen: Annotated[
        str,
        Meta(
            pattern=rf"^\S+:{_PORT}$",
            title="HOST:PORT, the port from 0 (any that is free) to 65535",
            description="where WebSocket and plain GETs are served",
            extra=_AT_START,
        ),
    ] = "127.0.0.1:8080"
    data: Annotated[
        str,
        Meta(
            min_length=1,
            title="the path of a folder",
            description="the log and the cache, made where absent",
            extra=_AT_START,
        ),
    ] = "data"
    upstream: Annotated[
        tuple[Annotated[str, Meta(pattern=rf"^wss?://{_HOST_AND_PORT}(/[^?#\s]*)?$")], ...],
        Meta(
            min_length=1,
            max_length=8,
            title="ws://HOST/subscribe or wss://HOST/subscribe, 1 to 8 of them",
            description="Jetstream hosts; all are read at once",
            extra=_AT_START,
        ),
    ] = (
        "wss://jetstream1.us-east.bsky.network/subscribe",
        "wss://jetstream2.us-west.bsky.network/subscribe",
    )
    appview: Annotated[
        str,
        Meta(
            pattern=rf"^https?://{_HOST_AND_PORT}$",
            title="http://HOST or https://HOST",
            description="the AppView, asked without a login",
            extra=_AT_START,
        ),
    ] = "https://public.api.bsky.app"
    collections: Annotated[
        tuple[Annotated[str, Meta(pattern=_COLLECTION)], ...],
        Meta(
            min_length=1,
            max_length=80,
            title="an NSID as app.bsky.feed.post or a prefix as app.bsky.graph.*, 1 to 80 of them",
            description="what is logged and served",
        ),
    ] = ("app.bsky.feed.post",)
    exclude: Annotated[
        str,
        Meta(
            title="the path of a file",
            description="DIDs, one a line, never passed on; read again when it changes",
        ),
    ] = ""
    log_level: Annotated[
        str,
        Meta(
            pattern="^(debug|info|warning|error)$",
            title="debug, info, warning or error",
            description="what is logged to standard error",
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Meta(
            pattern="^(auto|text|logfmt|json|journal)$",
            title="auto, text, logfmt, json or journal",
            description="how: auto is journal under systemd, text on a terminal, else logfmt",
            extra=_AT_START,
        ),
    ] = "auto"
    jetstream: UpstreamSettings = msgspec.field(default_factory=UpstreamSettings)
    hydration: HydrationSettings = msgspec.field(default_factory=HydrationSettings)
    cache: CacheSettings = msgspec.field(default_factory=CacheSettings)
    log: LogSettings = msgspec.field(default_factory=LogSettings)
    archive: ArchiveSettings = msgspec.field(default_factory=ArchiveSettings)
    s3: S3Settings = msgspec.field(default_factory=S3Settings)
    server: ServerSettings = msgspec.field(default_factory=ServerSettings)


class Setting(msgspec.Struct, frozen=True):
    """One row of the table.

    Attributes:
        key: as in the file, such as `hydration.deadline_seconds`.
        kind: the annotated type, which msgspec converts to and checks against.
    """

    key: str
    kind: Any
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self._name.replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable; a list's items stand with spaces between them."""
        return _PREFIX + self._name.replace(".", "_").upper()

    @property
    def placeholder(self) -> str:
        """What stands for its value in the help: the unit, where the name ends with one."""
        name = self.key.rpartition(".")[2].partition("_per_")[0]
        return name.rpartition("_")[2].upper()

    @property
    def repeatable(self) -> bool:
        """Whether it is a list: a repeatable option, an array in the file."""
        return isinstance(self.default, tuple)

    @property
    def allowed(self) -> str:
        """What may stand there, in words."""
        meta = _meta(self.kind)
        if meta.ge is not None:
            noun = "a whole number" if isinstance(self.default, int) and self._whole else "a number"
            return f"{noun} from {meta.ge} to {meta.le}"
        return meta.title or "text"

    @property
    def needs_restart(self) -> bool:
        """Whether it holds from the start to the end, whatever a reload finds."""
        return bool((_meta(self.kind).extra or {}).get("restart"))

    @property
    def _name(self) -> str:
        """The key, or a shorter name that only a file cannot have, for there it is a section's."""
        return str((_meta(self.kind).extra or {}).get("name", self.key))

    @property
    def _whole(self) -> bool:
        return bool(get_args(self.kind)[0] is int)


def table() -> tuple[Setting, ...]:
    """Return every setting, general ones first, then section by section."""
    return tuple(sorted(_rows(Settings, ""), key=lambda row: "." in row.key))


def load(options: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Merge defaults, file, environment and command line into settings.

    Args:
        options: by setting's key, what stood on the command line; also `config`, the file.
        environment: all environment variables.

    Raises:
        ConfigError: naming the first setting that cannot be, where it came from, what is allowed.
    """
    file = options.get("config") or environment.get("TURBOD_CONFIG")
    from_file = _read(file) if file else {}
    _refuse_unknown(from_file, environment, str(file))
    values = {}
    for row in table():
        for given, origin in (
            (options.get(row.key), row.flag),
            (_split(row, environment.get(row.variable)), row.variable),
            (from_file.get(row.key), f"{row.key} in {file}"),
        ):
            if given is not None:
                values[row.key] = _convert(row, given, origin)
                break
    settings = msgspec.convert(_nest(values), Settings)
    if settings.archive.public and settings.exclude:
        raise ConfigError(
            "archive.public was true and exclude was set: whole hours hold the records that are "
            "not to be passed on; unset one of the two"
        )
    return settings


class Reloaded(msgspec.Struct, frozen=True):
    """What a reload found to be other than before, by the settings' keys.

    Attributes:
        changed: what holds from now on.
        needs_restart: what does not, until turbod is started anew.
    """

    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


def reload(current: Settings, fresh: Settings) -> Reloaded:
    """Let the settings that all parts read say what `fresh` says, where that needs no restart."""
    rows = [row for row in table() if _get(current, row.key) != _get(fresh, row.key)]
    for row in rows:
        if not row.needs_restart:
            section, name = _place(current, row.key)
            force_setattr(section, name, _get(fresh, row.key))
    return Reloaded(
        changed=tuple(row.key for row in rows if not row.needs_restart),
        needs_restart=tuple(row.key for row in rows if row.needs_restart),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every setting to a command, and `--config`."""
    parser.add_argument("--config", metavar="FILE", help="TOML file of settings (TURBOD_CONFIG)")
    groups: dict[str, Any] = {}
    for row in table():
        name = row.key.partition(".")[0] if "." in row.key else "general"
        group = groups.get(name) or groups.setdefault(name, parser.add_argument_group(name))
        group.add_argument(
            row.flag,
            dest=row.key,
            default=None,
            metavar=row.placeholder,
            action="append" if row.repeatable else "store",
            help=f"{row.help}: {row.allowed} (default: {_shown(row.default)})".replace("%", "%%"),
        )


def hint(option: str) -> str:
    """Return what to try in place of an option that there is not."""
    return _like(option, {row.flag for row in table()} | {"--config"})


_COLUMNS: Final = (
    "setting in the file",
    "on the command line",
    "environment",
    "default",
    "allowed",
    "meaning",
    "changes at",
)


def documentation() -> str:
    """Return the page of docs that lists every setting."""
    lines = [
        "# Settings",
        "",
        "Made by `scripts/document-settings` from the table in `turbod/config.py`. The command",
        "line beats the environment, the environment the file (`--config FILE` or",
        "`TURBOD_CONFIG`, in TOML).",
        "Lists: repeat the option; spaces between the items of a variable; an array in the file.",
        "",
        "At SIGHUP (`systemctl reload turbod`) the file is read again. What is marked `reload`",
        "holds at once, or for connections made from then on where it is about each; what is",
        "marked `restart` from the next start on. Where anything is wrong, nothing changes, and",
        "the log says what it was.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"{'| --- ' * len(_COLUMNS)}|",
    ]
    for row in table():
        cells = (f"`{row.key}`", f"`{row.flag}`", f"`{row.variable}`", _shown(row.default))
        changes_at = "restart" if row.needs_restart else "reload"
        lines.append(f"| {' | '.join(cells)} | {row.allowed} | {row.help} | {changes_at} |")
    return "\n".join(lines) + "\n"


def example() -> str:
    """Return a settings file in which every setting stands, commented out, with its default."""
    lines = [
        "# Settings of turbod. Each stands here with its default: take the # away to change one.",
        "# Made by scripts/document-settings; docs/settings.md has the same as a table.",
        "# A change holds after `systemctl reload turbod`, unless it says that it needs a restart.",
        "#",
        "# Under systemd two are not read from here, for the units decide them:",
        "# `listen` (turbod.socket: systemctl edit turbod.socket) and `data` (/var/lib/turbod).",
    ]
    section = ""
    for row in table():
        begins, _, name = row.key.rpartition(".")
        if begins != section:
            section = begins
            lines += ["", f"[{section}]"]
        words = f"{row.help}: {row.allowed}{'. Needs a restart' * row.needs_restart}"
        lines += ["", *textwrap.wrap(words, 98, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"#{name} = {_toml(row.default)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return a default as TOML writes it: where it has no line break, as JSON does."""
    return msgspec.json.encode(value).decode().replace('","', '", "')


def _rows(section: type[Section], prefix: str) -> Iterator[Setting]:
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        kind, key = hints[field.name], prefix + field.name
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _rows(kind, f"{key}.")
        else:
            yield Setting(key, kind, field.default, _meta(kind).description or "")


def _meta(kind: Any) -> Meta:
    return next(part for part in get_args(kind) if isinstance(part, Meta))


def _place(settings: Settings, key: str) -> tuple[Section, str]:
    section, _, name = key.rpartition(".")
    return (getattr(settings, section) if section else settings), name


def _get(settings: Settings, key: str) -> Any:
    return getattr(*_place(settings, key))


def _read(file: str) -> dict[str, Any]:
    try:
        return dict(_flatten(tomllib.loads(Path(file).read_text(encoding="utf-8"))))
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of thousands of digits, or of brackets
        raise ConfigError(f"--config {file}: not TOML: {error}") from None


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return tree


def _refuse_unknown(
    from_file: Mapping[str, Any], environment: Mapping[str, str], file: str
) -> None:
    keys = {row.key for row in table()}
    variables = {row.variable for row in table()} | _ELSEWHERE
    for key in from_file.keys() - keys:
        shown = key if key.isprintable() else repr(key)
        raise ConfigError(f"{shown} in {file}: no such setting; {_like(key, keys)}")
    for name in environment:
        if name.startswith(_PREFIX) and name not in variables:
            raise ConfigError(f"{name}: no such setting; {_like(name, variables)}")


def _like(name: str, known: Sequence[str] | set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "`turbod serve --help` lists all"


def _split(row: Setting, text: str | None) -> str | list[str] | None:
    return text.split() if row.repeatable and text is not None else text


def _convert(row: Setting, given: Any, origin: str) -> Any:
    try:
        value = msgspec.convert(given, row.kind, strict=not isinstance(given, str | list))
    except msgspec.ValidationError:
        value = None
    if value is None or _has_nul(value):
        raise ConfigError(f"{origin} was {_quoted(given)}: expected {row.allowed}")
    if row.key == "server.trusted_proxies":
        _check_networks(row, value, origin)
    return value


def _has_nul(value: Any) -> bool:
    """Tell whether there is a character in it that no path and no address can have."""
    texts = value if isinstance(value, tuple) else (value,)
    return any(isinstance(text, str) and "\0" in text for text in texts)


def _quoted(given: Any) -> str:
    try:
        return repr(" ".join(map(str, given)) if isinstance(given, list) else given)
    except ValueError:  # Python shows no number of thousands of digits
        return "a huge number"


def _check_networks(row: Setting, networks: Sequence[str], origin: str) -> None:
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise ConfigError(f"{origin}: {error}; expected {row.allowed}") from None


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (" ".join(value) if isinstance(value, tuple) else str(value)) or "none"
