"""The one table of settings: command line, environment, file and docs are made from it.

Every setting is a field below: its name, bounds, default and help. Where it is given more than
once, the command line beats the environment, the environment the file, the file the default.
Each stage of turbod gets its own section and nothing else.
"""

import argparse
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_type_hints

import msgspec
from msgspec import Meta

MEGABYTE: Final = 1024 * 1024
GIGABYTE: Final = 1000**3

Bytes = Annotated[int, Meta(ge=MEGABYTE, le=10**15)]
Seconds = Annotated[float, Meta(ge=0.01, le=86400)]


class ConfigError(ValueError):
    """A setting that cannot be: one line that says which, where it came from, what is allowed."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings that one stage reads."""


class UpstreamSettings(Section):
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
            ge=10_000,
            le=100_000_000,
            description="events remembered in memory to recognise a second copy, 8 bytes each",
        ),
    ] = 2_000_000


class HydrationSettings(Section):
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


class CacheSettings(Section):
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


class LogSettings(Section):
    """Writing the log, and its newest part in memory."""

    max_bytes: Annotated[
        int,
        Meta(
            ge=10 * MEGABYTE,
            le=10**15,
            description="the log's files together; above, the oldest finished hour goes",
        ),
    ] = 10 * GIGABYTE
    memory_bytes: Annotated[
        int, Meta(ge=MEGABYTE, le=10**12, description="newest records kept in memory")
    ] = 48 * MEGABYTE


class ServerSettings(Section):
    """Serving subscribers and plain GETs."""

    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="connections at once, in all")
    ] = 2000
    max_connections_per_address: Annotated[
        int, Meta(ge=1, le=1_000_000, description="connections at once from one address")
    ] = 1000
    max_handshakes: Annotated[
        int, Meta(ge=1, le=100_000, description="connections at once that sent no whole request")
    ] = 200
    handshake_seconds: Annotated[
        float, Meta(ge=0.1, le=300, description="longest wait for a whole request head")
    ] = 5
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


class Settings(Section):
    """Everything that can be set."""

    listen: Annotated[
        str, Meta(pattern=r"^.+:[0-9]{1,5}$", description="HOST:PORT for WebSocket and plain GETs")
    ] = "127.0.0.1:8080"
    data: Annotated[
        str, Meta(min_length=1, description="folder of the log and the cache, made where absent")
    ] = "data"
    upstream: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^wss?://[^/?#\s]+[^?#\s]*$")], ...],
        Meta(
            min_length=1, max_length=8, description="a Jetstream's /subscribe; all are read at once"
        ),
    ] = (
        "wss://jetstream1.us-east.bsky.network/subscribe",
        "wss://jetstream2.us-west.bsky.network/subscribe",
    )
    appview: Annotated[
        str, Meta(pattern=r"^https?://[^/?#\s]+$", description="the AppView, asked without a login")
    ] = "https://public.api.bsky.app"
    collections: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            max_length=80,
            description="NSID or prefix ending .* that is logged and served",
        ),
    ] = ("app.bsky.feed.post",)
    exclude: Annotated[
        str,
        Meta(description="file of DIDs, one a line, never passed on; read again when it changes"),
    ] = ""
    log_level: Annotated[
        str, Meta(pattern="^(debug|info|warning|error)$", description="debug, info, warning, error")
    ] = "info"
    upstreams: UpstreamSettings = UpstreamSettings()
    hydration: HydrationSettings = HydrationSettings()
    cache: CacheSettings = CacheSettings()
    log: LogSettings = LogSettings()
    server: ServerSettings = ServerSettings()
