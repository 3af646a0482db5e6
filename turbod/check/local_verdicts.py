"""What it means, how this machine is: data folder, disk, memory, descriptors, port. Pure."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from turbod.amounts import size
from turbod.check.finding import Finding, fault, ok, warning
from turbod.config import MEGABYTE, Settings

SLOW_SYNC_SECONDS: Final = 1.0  # events are served once they are synced
FULL_BYTES: Final = 64 * MEGABYTE  # of a disk: with less nothing is written for long
FULL_FILES: Final = 100
FEW_FILES: Final = 10_000  # an hour is some three files at most; the rest is others'
OTHER_DESCRIPTORS: Final = 100  # files, the AppView, the bucket, beside clients' connections

# docs/architecture.md, "Memory".
_BYTES_A_CONNECTION: Final = 30 * 1024
_BYTES_A_DID: Final = 120
_BYTES_AN_IDENTITY: Final = 16
_BYTES_A_READER: Final = MEGABYTE
_OTHER_BYTES: Final = 500 * MEGABYTE  # what no setting bounds, Python and its modules included


class DataSeen(msgspec.Struct, frozen=True):
    """The data folder.

    Attributes:
        path: as the settings have it.
        exists: else it is to be made in the nearest folder above it, which was looked at.
        is_held: a running turbod has it.
        sync_seconds: for one block, None where that failed.
        reason: why it cannot be used, else empty.
        owner, user: ids of whose it is, and of who looked.
        refusal: why this version must not use what lies in it, else empty.
    """

    path: str
    exists: bool
    is_held: bool
    sync_seconds: float | None
    reason: str
    owner: int
    user: int
    refusal: str = ""


def judge_data(seen: DataSeen) -> list[Finding]:
    """Return whether the log could be written there."""
    if seen.reason:
        todo = "name a folder that turbod may write to with --data, or mend its permissions"
        return [fault("data", f"{seen.path}: {seen.reason}", todo)]
    if seen.refusal:
        return [fault("data", seen.refusal, "")]
    seconds = seen.sync_seconds or 0.0
    state = "to be made" if not seen.exists else "writable"
    held = ", in use by a running turbod" if seen.is_held else ""
    found = f"{seen.path}: {state}{held}, syncs in {seconds * 1000:.0f} ms"
    if seconds > SLOW_SYNC_SECONDS:
        return [warning("data", found, "every event waits for that: use a quicker disk")]
    if seen.user == 0 and seen.exists and seen.owner != 0:
        todo = f"root may do more than the user {seen.owner}, whose folder it is: check as that one"
        return [warning("data", found, todo)]
    return [ok("data", found)]


class DiskSeen(msgspec.Struct, frozen=True):
    """One disk.

    Attributes:
        path: what lies on it.
        free, total: bytes.
        files_left: that may still be made; None where the file system has no bound.
        wanted: bytes that the settings allow beyond what is there already.
    """

    path: str
    free: int
    total: int
    files_left: int | None
    wanted: int


def judge_disk(seen: DiskSeen) -> list[Finding]:
    """Return whether there is as much room as the settings speak of."""
    found = f"{seen.path}: {size(seen.free)} of {size(seen.total)} free"
    if seen.free < FULL_BYTES:
        return [fault("disk", found, "make room: nothing more can be logged")]
    files = seen.files_left
    if files is not None and files < FEW_FILES:
        found += f", and room for {files} files (inodes)"
        tell = fault if files < FULL_FILES else warning
        return [tell("disk", found, "delete files that nobody needs: df -i shows where")]
    if seen.free < seen.wanted:
        found += f", and {size(seen.wanted)} more may be used (log, archive and cache .max_bytes)"
        todo = "make room or lower them: near the end old hours leave early, or wait"
        return [warning("disk", found, todo)]
    return [ok("disk", f"{found}, {size(seen.wanted)} more may be used")]


class LimitsSeen(msgspec.Struct, frozen=True):
    """What the system allows.

    Attributes:
        descriptors: files and connections at once.
        memory: bytes, of the machine or of this control group; None where nothing tells.
    """

    descriptors: int
    memory: int | None


def judge_limits(seen: LimitsSeen, settings: Settings) -> list[Finding]:
    """Return whether the settings promise more than there is."""
    return [_judge_descriptors(seen, settings), _judge_memory(seen, settings)]


def _judge_descriptors(seen: LimitsSeen, settings: Settings) -> Finding:
    most = settings.server.max_connections
    found = f"{seen.descriptors} open files allowed here, {most} connections by the settings"
    if seen.descriptors >= most + OTHER_DESCRIPTORS:
        return ok("files", found)
    todo = f"set `ulimit -n {most + OTHER_DESCRIPTORS}` or LimitNOFILE=, which counts for a unit"
    return warning("files", found, f"{todo}, or lower server.max_connections")


def _judge_memory(seen: LimitsSeen, settings: Settings) -> Finding:
    most = most_memory(settings)
    found = f"{size(most)} at the very most by the settings, usually a quarter of it"
    if seen.memory is None:
        return ok("memory", found)
    found = f"{size(seen.memory)} here; {found}"
    if seen.memory < most // 4:
        todo = "it may be killed: lower cache.memory_bytes, log.memory_bytes, jetstream.identities"
        return warning("memory", found, todo)
    return ok("memory", found)


def most_memory(settings: Settings) -> int:
    """Return the sum of all bounds, which are never reached together."""
    server = settings.server
    return (
        settings.hydration.max_pending_bytes
        + settings.cache.memory_bytes
        + settings.log.memory_bytes
        + settings.archive.read_ahead_bytes
        + settings.jetstream.identities * _BYTES_AN_IDENTITY
        + server.max_filter_dids * _BYTES_A_DID
        + server.max_connections * _BYTES_A_CONNECTION
        + server.max_history_readers * _BYTES_A_READER
        + _OTHER_BYTES
    )


Holder = Literal["nobody", "systemd", "turbod", "other"]


class PortSeen(msgspec.Struct, frozen=True):
    """Where clients are to connect.

    Attributes:
        address: HOST:PORT of the settings.
        holder: `nobody`; `systemd`, for a service of turbod; `turbod`; `other`.
        detail: the name of a unit, or the version of the turbod.
        reason: why it could not be had, in words, where nobody holds it; else empty.
        is_data_held: a running turbod has the data folder.
    """

    address: str
    holder: Holder = "nobody"
    detail: str = ""
    reason: str = ""
    is_data_held: bool = False


def judge_port(seen: PortSeen) -> list[Finding]:
    """Return whether the port is there for this turbod."""
    at = seen.address
    match seen.holder:
        case "systemd":
            return [ok("port", f"{at}: held by systemd ({seen.detail}), which passes it on")]
        case "turbod" if seen.is_data_held:
            return [
                ok("port", f"{at}: the running turbod {seen.detail} answers".replace("  ", " "))
            ]
        case "turbod":
            todo = "stop it, or choose another port with --listen"
            return [fault("port", f"{at}: a turbod with another data folder has it", todo)]
        case "other":
            todo = f"stop that, or choose another port with --listen{_by_unit(seen.detail)}"
            return [fault("port", f"{at}: another program has it", todo)]
    if seen.reason:
        return [fault("port", f"{at}: {seen.reason}", _todo_for_port(seen.reason))]
    if seen.is_data_held:
        todo = "compare its settings with these: it serves elsewhere, or is being stopped"
        return [warning("port", f"{at}: free, though a turbod runs on this data", todo)]
    return [ok("port", f"{at}: free")]


def _by_unit(unit: str) -> str:
    return f" (it belongs to {unit})" if unit else ""


def _todo_for_port(reason: str) -> str:
    if "ermission" in reason:
        return "take a port from 1024, or let systemd listen for it (turbod.socket)"
    return "correct --listen: an address of this machine, and a port"


def judge_settings(settings: Settings, file: str) -> list[Finding]:
    """Return where the settings are from, and which of them do nothing."""
    source = file or "no file: defaults, environment and command line"
    return [ok("settings", source), *map(_idle, idle(settings))]


def _idle(words: str) -> Finding:
    return warning("settings", words, "unset it, or set what it is for")


def idle(settings: Settings) -> Sequence[str]:
    """Return which settings are given, and without effect."""
    is_bucket = settings.archive.location.startswith("s3://")
    server, s3 = settings.server, settings.s3
    cases = (
        (is_bucket and settings.archive.max_bytes, "archive.max_bytes bounds folders, no bucket"),
        (is_bucket and settings.archive.when_full != "stop", "archive.when_full is for folders"),
        (not is_bucket and any((s3.endpoint, s3.region)), "s3 settings, and archive is no bucket"),
        (s3.kms_key and not s3.encryption.startswith("aws:kms"), "s3.kms_key without aws:kms"),
        (len(set(settings.upstream)) < len(settings.upstream), "upstream names a host twice"),
        (
            server.forwarded_header != "X-Forwarded-For" and not server.trusted_proxies,
            "server.forwarded_header without server.trusted_proxies",
        ),
    )
    return [words for is_so, words in cases if is_so]
