"""The exclusion list: whose events and views are never passed on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from turbod import heartbeat
from turbod.cursor import LIMIT
from turbod.event import valid_did
from turbod.hydration.views import Kind, read_view
from turbod.record import NULL, Head

POLL_SECONDS: Final = 2.0
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
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
    dids, ignored = parse(text_of(path))
    for line in ignored:
        log.warning("exclusion_line_ignored", file=str(path), line=line.number, text=line.text)
    return dids


class Ignored(NamedTuple):
    """A line of a list that is no DID."""

    number: int
    text: str


def text_of(path: Path) -> str:
    """Return what stands in the file of a list. Raises as `read`."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def parse(text: str) -> tuple[frozenset[str], list[Ignored]]:
    """Return the DIDs of a list, and the lines that are none."""
    dids, ignored = set(), []
    for number, line in enumerate(text.split("\n"), start=1):
        did = line.partition("#")[0].strip()
        if valid_did(did):
            dids.add(did)
        elif did:
            ignored.append(Ignored(number, did[:100]))
    return frozenset(dids), ignored


async def watch(file: Callable[[], str], changed: Callable[[frozenset[str]], None]) -> None:
    """Call `changed` with the list whenever the file becomes another, until cancelled.

    `file` names it, which may change as well; "" for none. Where it cannot be read, the last list
    holds.
    """
    seen = _version(Path(file()))
    with heartbeat.beating("exclusion_list"):
        while True:
            await heartbeat.sleep(POLL_SECONDS)
            path = Path(file())
            version = _version(path)
            if version != seen:
                seen = version
                if file():
                    _read_again(path, changed)


def _read_again(path: Path, changed: Callable[[frozenset[str]], None]) -> None:
    try:
        changed(read(path))
    except (OSError, ValueError) as error:
        todo = "correct it; until then the list read before holds"
        log.warning("exclusion_unreadable", file=str(path), error=str(error), todo=todo)


def _version(path: Path) -> tuple[int, int, int] | None:
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
