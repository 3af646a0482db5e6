"""The SQLite file: cached views and what outdates them, and one position per upstream host.

Losing the file costs requests and repeats, never events: the log is the truth. Everything is
written by one function in one transaction, so a saved position never runs ahead of the
invalidations that the events up to it caused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
import structlog

_FORMAT: Final = 1
_PAGE_BYTES: Final = 8192  # views of 1 to 4 KB: 3.2 ms for 500 upserts against 4.9 with 4096
_TRIM_ROWS: Final = 2000  # oldest views dropped in one flush: a few milliseconds
_SCHEMA: Final = """
CREATE TABLE view(
    key TEXT PRIMARY KEY, data BLOB NOT NULL, inside TEXT NOT NULL,
    stamp INTEGER NOT NULL, fetched_us INTEGER NOT NULL
);
CREATE TABLE invalidated(ref TEXT PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE gone(ref TEXT PRIMARY KEY, version TEXT NOT NULL, until_us INTEGER NOT NULL);
CREATE TABLE upstream_position(url TEXT PRIMARY KEY, position TEXT NOT NULL);
CREATE TABLE number(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
MAX_UNSAVED: Final = 400_000  # of each kind, where writing fails for hours: about 60 MB
_DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError)

log = structlog.get_logger()


class StoredView(msgspec.Struct, frozen=True, gc=False):
    """A view as it lies in the file.

    Attributes:
        inside: the DIDs and AT URIs of everything that the view shows, its own key among them.
        stamp: the generation in which it was asked for.
        fetched_us: when it was fetched, by the wall clock.
    """

    key: str
    data: bytes
    inside: tuple[str, ...]
    stamp: int
    fetched_us: int


class Gone(msgspec.Struct, frozen=True, gc=False):
    """A deleted post or an account that is not active.

    Attributes:
        version: the commit's `rev` or the account event's `time`; only a later one brings it back.
        until_us: when this may be forgotten, by the wall clock.
    """

    version: str
    until_us: int


class Changes(msgspec.Struct):
    """What one flush writes. A None among `gone` takes the row away.

    Attributes:
        positions: of all hosts that are read; without any, those in the file stay.
        observed: the cursor up to which the log's records did to the cache what they do.
    """

    views: dict[str, StoredView] = {}
    invalidated: dict[str, int] = {}
    gone: dict[str, Gone | None] = {}
    positions: dict[str, str] = {}
    generation: int = 0
    oldest: int = 0
    observed: int = 0
    outdated_before_us: int = 0

    def follow(self, earlier: "Changes") -> None:
        """Take in what an earlier flush could not write."""
        self.views = earlier.views | self.views
        self.invalidated = earlier.invalidated | self.invalidated
        self.gone = earlier.gone | self.gone
        self.positions = earlier.positions | self.positions
        if len(self.invalidated) > MAX_UNSAVED:  # the cache holds fewer: the others count for all
            oldest = self.oldest
            self.invalidated = {ref: at for ref, at in self.invalidated.items() if at > oldest}
        if len(self.gone) > MAX_UNSAVED:
            self.gone = dict(list(self.gone.items())[-MAX_UNSAVED // 2 :])


class Database:
    """The open file. Reads happen in the event loop (5 us a hit), writes in one worker thread.

    A file found damaged is taken for empty from then on; the next write puts it aside and begins
    a new one.

    Attributes:
        max_bytes: above, writing drops the oldest views; it may be changed.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self.max_bytes = max_bytes
        self._is_damaged = False
        self._writer = _open(path)
        self._reader = _open_reader(path)

    def view(self, key: str) -> StoredView | None:
        """Return a stored view, or None."""
        rows = self._read("SELECT data, inside, stamp, fetched_us FROM view WHERE key = ?", key)
        if not rows:
            return None
        data, inside, stamp, fetched_us = rows[0]
        return StoredView(key, data, tuple(inside.split(" ")), stamp, fetched_us)

    def invalidated(self) -> dict[str, int]:
        """Return in which generation each DID or URI was last outdated, oldest first."""
        return dict(self._read("SELECT ref, generation FROM invalidated ORDER BY generation"))

    def gone(self) -> Iterator[tuple[str, Gone]]:
        """Yield the deleted posts and inactive accounts, those first that go first."""
        query = "SELECT ref, version, until_us FROM gone ORDER BY until_us"
        for ref, version, until_us in self._read(query):
            yield ref, Gone(version, until_us)

    def positions(self) -> dict[str, str]:
        """Return the saved position of each upstream URL."""
        return dict(self._read("SELECT url, position FROM upstream_position"))

    def number(self, name: str) -> int:
        """Return a stored number, 0 where there is none."""
        rows = self._read("SELECT value FROM number WHERE name = ?", name)
        return int(rows[0][0]) if rows else 0

    def used_bytes(self) -> int:
        """Return the size of what the file holds, free pages apart."""
        rows = self._read(
            "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count"
        )
        return int(rows[0][0]) * _PAGE_BYTES if rows else 0

    def write(self, changes: Changes) -> None:
        """Write everything in one transaction. For one thread at a time, never the event loop.

        Raises:
            apsw.Error: nothing of it was written.
            OSError: likewise; a damaged file could not be put aside.
        """
        if not self._is_damaged:
            try:
                self._write_whole(changes)
            except _DAMAGE as error:
                self._note_damage(error)
        if self._is_damaged:
            self._begin_anew()
            self._write_whole(changes)

    def _read(self, query: str, *bindings: str) -> list[tuple[Any, ...]]:
        if self._is_damaged:
            return []
        try:
            return self._reader.execute(query, bindings).fetchall()
        except _DAMAGE as error:
            self._note_damage(error)
            return []

    def _note_damage(self, error: apsw.Error) -> None:
        log.warning("cache_damaged", file=str(self._path), error=str(error))
        self._is_damaged = True

    def _begin_anew(self) -> None:
        self._writer.close()
        _put_aside(self._path)
        self._writer = _prepare(self._path)
        self._reader = _open_reader(self._path)  # the old one is the event loop's, maybe in use
        self._is_damaged = False

    def _write_whole(self, changes: Changes) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._write(changes)
            self._trim(changes)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:  # some faults end it by themselves
                self._writer.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close both connections; the write-ahead log is folded in."""
        self._reader.close()
        self._writer.close()

    def _write(self, changes: Changes) -> None:
        many = self._writer.executemany
        # REPLACE gives a new rowid, so the lowest rowids are always the oldest views.
        many(
            "REPLACE INTO view(key, data, inside, stamp, fetched_us) VALUES(?,?,?,?,?)",
            (
                (view.key, view.data, " ".join(view.inside), view.stamp, view.fetched_us)
                for view in changes.views.values()
            ),
        )
        many("REPLACE INTO invalidated VALUES(?,?)", changes.invalidated.items())
        rows = [(ref, gone.version, gone.until_us) for ref, gone in changes.gone.items() if gone]
        many("REPLACE INTO gone VALUES(?,?,?)", rows)
        back = [(ref,) for ref, gone in changes.gone.items() if gone is None]
        many("DELETE FROM gone WHERE ref = ?", back)
        if changes.positions:
            self._writer.execute("DELETE FROM upstream_position")
        many("REPLACE INTO upstream_position VALUES(?,?)", changes.positions.items())
        numbers = {
            "generation": changes.generation,
            "oldest": changes.oldest,
            "observed": changes.observed,
        }
        many("REPLACE INTO number VALUES(?,?)", numbers.items())

    def _trim(self, changes: Changes) -> None:
        execute = self._writer.execute
        execute("DELETE FROM invalidated WHERE generation <= ?", (changes.oldest,))
        oldest_rows = f"SELECT rowid FROM view ORDER BY rowid LIMIT {_TRIM_ROWS}"  # noqa: S608
        execute(
            f"DELETE FROM view WHERE fetched_us < ? AND rowid IN ({oldest_rows})",  # noqa: S608
            (changes.outdated_before_us,),
        )
        pages, free = self._writer.pragma("page_count"), self._writer.pragma("freelist_count")
        if (pages - free) * _PAGE_BYTES > self.max_bytes:
            execute(f"DELETE FROM view WHERE rowid IN ({oldest_rows})")  # noqa: S608


def _open(path: Path) -> apsw.Connection:
    """Open the file for writing; a damaged or foreign one is put aside and begun anew."""
    try:
        return _prepare(path)
    except (*_DAMAGE, _OtherFormat) as error:
        log.warning("cache_damaged", file=str(path), error=str(error))
        _put_aside(path)
        return _prepare(path)


def _open_reader(path: Path) -> apsw.Connection:
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.set_busy_timeout(1000)
    return reader


def _put_aside(path: Path) -> None:
    aside = path.with_suffix(".damaged")
    if path.exists():
        path.replace(aside)
        log.warning("cache_put_aside", file=str(path), moved_to=str(aside))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class _OtherFormat(Exception):
    """The file was made by another version of turbod."""


def _prepare(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(5000)
        connection.pragma("page_size", _PAGE_BYTES)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", 1)  # NORMAL: a power cut may cost the last flushes
        _make_tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: apsw.Connection) -> None:
    version = connection.pragma("user_version")
    if version not in {0, _FORMAT}:
        raise _OtherFormat(f"format {version}, this turbod writes {_FORMAT}")
    if version == 0:
        # Consumed to the end: apsw runs a script only as far as its rows are asked for.
        connection.execute(_SCHEMA).fetchall()
        connection.pragma("user_version", _FORMAT)
