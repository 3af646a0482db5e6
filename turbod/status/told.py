"""What a turbod's `/status` tells, of this version, an older or a newer one. Pure."""

from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound="Part")


class Part(msgspec.Struct, frozen=True):
    """A part of it. What another version does not tell, or tells otherwise, is None."""


class Host(Part, frozen=True):
    """One Jetstream host."""

    url: str | None = None
    state: str | None = None
    lag_seconds: float | None = None
    connects: int | None = None
    last_error: str | None = None


class Hydration(Part, frozen=True):
    """Events on their way to the log."""

    hydrated: int | None = None
    unresolved: int | None = None
    waiting_events: int | None = None
    oldest_waiting_seconds: float | None = None


class AppView(Part, frozen=True):
    """The AppView."""

    calls: dict[str, int] | None = None
    rate: float | None = None
    remaining: int | None = None
    reset_seconds: float | None = None
    paused_seconds: float | None = None
    down: bool | None = None
    last_error: str | None = None
    answered_seconds: float | None = None


class Cache(Part, frozen=True):
    """The cache's file."""

    disk_bytes: int | None = None
    fault: str | None = None


class Log(Part, frozen=True):
    """The log."""

    head: int | None = None
    disk_bytes: int | None = None
    hours: int | None = None
    gaps: int | None = None
    fault: str | None = None


class Sealer(Part, frozen=True):
    """Sealing."""

    waiting: int | None = None
    fault: str | None = None


class Archiver(Part, frozen=True):
    """The way into the archive."""

    state: str | None = None
    fault: str | None = None
    url: str | None = None
    hours_waiting: int | None = None
    oldest_waiting: int | None = None
    stored_hours: int | None = None
    stored_bytes: int | None = None
    conflicts: int | None = None
    hours_left: float | None = None
    disk_hours_left: float | None = None


class History(Part, frozen=True):
    """Reading from the archive."""

    fault: str | None = None
    damaged: int | None = None
    holes: int | None = None


class Server(Part, frozen=True):
    """Clients."""

    connections: int | None = None
    subscribers: int | None = None
    on_disk: int | None = None
    archive_readers: int | None = None
    refused: dict[str, int] | None = None
    wrong_tokens: int | None = None
    errors: int | None = None


class Process(Part, frozen=True):
    """The process."""

    resident_bytes: int | None = None
    cpu_seconds: float | None = None


class Told(Part, frozen=True):
    """All of it."""

    turbod: str | None = None
    now: int | None = None
    uptime_seconds: float | None = None
    upstream: str | None = None
    events_per_minute: float | None = None
    lag_seconds: float | None = None
    hosts: tuple[Host, ...] = ()
    hydration: Hydration = Hydration()
    appview: AppView = AppView()
    cache: Cache = Cache()
    log: Log = Log()
    sealer: Sealer = Sealer()
    archiver: Archiver = Archiver()
    history: History = History()
    server: Server = Server()
    process: Process = Process()


def read(body: bytes) -> Told | None:
    """Return what is told; None where it is nothing of a turbod's."""
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("turbod"), str):
        return None
    archive = _dict(found.get("archive"))
    hosts = found.get("hosts")
    top = {name: found.get(name) for name in Told.__struct_fields__[:6]}
    return msgspec.structs.replace(
        _part(Told, top),
        hosts=tuple(_part(Host, each) for each in hosts) if isinstance(hosts, list) else (),
        hydration=_part(Hydration, found.get("hydration")),
        appview=_part(AppView, found.get("appview")),
        cache=_part(Cache, found.get("cache")),
        log=_part(Log, found.get("log")),
        sealer=_part(Sealer, archive.get("sealer")),
        archiver=_part(Archiver, archive.get("archiver")),
        history=_part(History, archive.get("history")),
        server=_part(Server, found.get("server")),
        process=_part(Process, found.get("process")),
    )


def _part(kind: type[T], value: Any) -> T:
    """Take every field that is what we know it as."""
    found = _dict(value)
    fields = {}
    for field in msgspec.structs.fields(kind):
        try:
            fields[field.name] = msgspec.convert(found.get(field.name, field.default), field.type)
        except msgspec.ValidationError:
            fields[field.name] = field.default
    return kind(**fields)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
