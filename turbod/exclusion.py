"""The exclusion list: whose events and views are never passed on."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.cursor import LIMIT
from turbod.event import valid_did
from turbod.hydration.views import Kind, read_view
from turbod.record import NULL, Head

POLL_SECONDS: Final = 2.0
READ_SECONDS: Final = 20.0  # below the silence that is taken for a task that hangs
MOST_TOLD: Final = 10  # of the lines that are no DIDs
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_Version = tuple[int, int, int]
_Seen = tuple[Path, _Version | None]
_DID_IN_TEXT: Final = re.compile(rb"did:[a-z]+:[a-zA-Z0-9._:%-]+")
_NULL: Final = msgspec.Raw(NULL)
_PROFILES: Final = frozenset({"user", "subject_user"})
_POSTS: Final = frozenset({"parent_post", "reply_post", "quote_post", "subject_post"})

log = structlog.get_logger()


class _Line(msgspec.Struct):
    cursor: int
    at_uri: msgspec.Raw
    did: msgspec.Raw
    time_us: int
    message: msgspec.Raw
    hydrated_metadata: dict[str, msgspec.Raw]


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_views = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Exclusion:
    """Stands between reading and sending for records that are older than the list.

    What is hydrated while an account is listed never shows it; what was before may.
    """

    def __init__(self) -> None:
        self._dids: frozenset[str] = frozenset()
        self._older_until = 0

    def change(self, dids: frozenset[str]) -> None:
        """Take a new list. Until `settle`, any record may be older than it."""
        self._dids = dids
        self._older_until = LIMIT

    def settle(self, dids: frozenset[str], *, head: int) -> None:
        """Say that no record above `head` is older than this list, where it is still the list."""
        if dids is self._dids:
            self._older_until = head

    def withhold(self, head: Head, line: bytes) -> bytes | None:
        """Return the line as it may be sent, or None where it may not, or nobody can tell."""
        if head.did in self._dids:
            return None
        if head.cursor > self._older_until or not self._named_in(line):
            return line
        try:
            return _without(line, self._dids)
        except (ValueError, LookupError, RecursionError):
            return None

    def _named_in(self, line: bytes) -> bool:
        return any(name.decode() in self._dids for name in _DID_IN_TEXT.findall(line))


def read(path: Path) -> frozenset[str]:
    """Read a list: one DID a line; empty lines and what follows a `#` do not count.

    A line that is no DID is named in the log and left out: a slip must not undo the other lines.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, or no UTF-8.
    """
    listed = parse(text_of(path))
    for number, text in listed.first_ignored:
        log.warning(
            "exclusion_line_ignored", file=str(path), line=number, text=text, lines=listed.ignored
        )
    return listed.dids


class Listed(NamedTuple):
    """What stands in a list.

    Attributes:
        dids: the accounts.
        ignored: how many lines are no DID.
        first_ignored: numbers and texts of the first of these.
    """

    dids: frozenset[str]
    ignored: int
    first_ignored: list[tuple[int, str]]


def text_of(path: Path) -> str:
    """Return what stands in the file of a list. Raises as `read`."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def parse(text: str) -> Listed:
    """Return the DIDs of a list, and which lines are none."""
    dids, ignored, first = set(), 0, []
    for number, line in enumerate(text.split("\n"), start=1):
        did = line.partition("#")[0].strip()
        if valid_did(did):
            dids.add(did)
        elif did:
            ignored += 1
            if ignored <= MOST_TOLD:
                first.append((number, did[:100]))
    return Listed(frozenset(dids), ignored, first)


class Watch:
    """Looks at the file of a list, as it was when this was made, for others.

    Args:
        file: names it, which may change as well; "" for none.
        reading: the thread that reads it, shared with whoever reads it besides, so that an older
            list never comes behind a newer one; what hangs there takes no other's.
    """

    def __init__(self, file: Callable[[], str], reading: trio.CapacityLimiter) -> None:
        self._file = file
        self._reading = reading
        path = Path(file())
        self._seen = path, _version(path)
        self._hangs = False

    async def run(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Call `changed` with the list whenever the file becomes another, until cancelled.

        Where it cannot be read, the last list holds.
        """
        with heartbeat.beating("exclusion_list"):
            while True:
                await heartbeat.sleep(POLL_SECONDS)
                if path := self._file():
                    with trio.move_on_after(READ_SECONDS) as scope:
                        dids = await self._read_where_new(Path(path))
                        if dids is not None and path == self._file():
                            changed(dids)
                    if scope.cancelled_caught and not self._hangs:
                        _tell_unreadable(path, f"not read within {READ_SECONDS:g} s: a disk hangs")
                    self._hangs = scope.cancelled_caught

    async def _read_where_new(self, path: Path) -> frozenset[str] | None:
        """Return the list where its file is another one than before, and can be read."""
        read_now = partial(_read_where_new, path, self._seen)
        self._seen, dids = await trio.to_thread.run_sync(
            read_now, abandon_on_cancel=True, limiter=self._reading
        )
        return dids


def _read_where_new(path: Path, seen: _Seen) -> tuple[_Seen, frozenset[str] | None]:
    found = path, _version(path)
    if found == seen:
        return seen, None
    try:
        return found, read(path)
    except (OSError, ValueError) as error:
        _tell_unreadable(str(path), str(error))
        return found, None


def _tell_unreadable(file: str, error: str) -> None:
    todo = "correct it; until then the list read before holds"
    log.warning("exclusion_unreadable", file=file, error=error, todo=todo)


def _version(path: Path) -> _Version | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _without(line: bytes, dids: frozenset[str]) -> bytes:
    """Return the line with null for each view that shows one of the accounts."""
    decoded = _decode_line(line)
    views = decoded.hydrated_metadata
    mentions = _decode_views(views["mentions"])
    views["mentions"] = msgspec.Raw(
        _encode({key: _hide(view, Kind.PROFILE, dids) for key, view in mentions.items()})
    )
    for key in views.keys() & _PROFILES:
        views[key] = _hide(views[key], Kind.PROFILE, dids)
    for key in views.keys() & _POSTS:
        views[key] = _hide(views[key], Kind.POST, dids)
    return _encode(decoded)


def _hide(view: msgspec.Raw, kind: Kind, dids: frozenset[str]) -> msgspec.Raw:
    data = bytes(view)
    return _NULL if data == NULL or not dids.isdisjoint(read_view(data, kind).inside) else view
