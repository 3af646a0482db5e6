"""The SQLite file: cached views and what outdates them, and one position per upstream host.

Losing the file costs requests and repeats, never events: the log is the truth. Everything is
written by one function in one transaction, so a saved position never runs ahead of the
invalidations that the events up to it caused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

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


class Database:
    """The open file. Reads happen in the event loop (5 us a hit), writes in one worker thread."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._writer = _open(path)
        self._reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._reader.set_busy_timeout(1000)

    def view(self, key: str) -> StoredView | None:
        """Return a stored view, or None."""
        row = self._reader.execute(
            "SELECT data, inside, stamp, fetched_us FROM view WHERE key = ?", (key,)
        ).get
        if row is None:
            return None
        data, inside, stamp, fetched_us = row
        return StoredView(key, data, tuple(inside.split(" ")), stamp, fetched_us)

    def invalidated(self) -> dict[str, int]:
        """Return in which generation each DID or URI was last outdated, oldest first."""
        query = "SELECT ref, generation FROM invalidated ORDER BY generation"
        return dict(self._reader.execute(query))

    def gone(self) -> Iterator[tuple[str, Gone]]:
        """Yield the deleted posts and inactive accounts, those first that go first."""
        query = "SELECT ref, version, until_us FROM gone ORDER BY until_us"
        for ref, version, until_us in self._reader.execute(query):
            yield ref, Gone(version, until_us)

    def positions(self) -> dict[str, str]:
        """Return the saved position of each upstream URL."""
        return dict(self._reader.execute("SELECT url, position FROM upstream_position"))

    def number(self, name: str) -> int:
        """Return a stored number, 0 where there is none."""
        value = self._reader.execute("SELECT value FROM number WHERE name = ?", (name,)).get
        return int(value or 0)

    def used_bytes(self) -> int:
        """Return the size of what the file holds, free pages apart."""
        pages, free = self._reader.pragma("page_count"), self._reader.pragma("freelist_count")
        return (int(pages) - int(free)) * _PAGE_BYTES

    def write(self, changes: Changes) -> None:
        """Write everything in one transaction. For one thread at a time, never the event loop.

        Raises:
            apsw.Error: nothing of it was written.
        """
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._write(changes)
            self._trim(changes)
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

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
        if (pages - free) * _PAGE_BYTES > self._max_bytes:
            execute(f"DELETE FROM view WHERE rowid IN ({oldest_rows})")  # noqa: S608


def _open(path: Path) -> apsw.Connection:
    """Open the file for writing; a damaged or foreign one is put aside and begun anew."""
    try:
        return _prepare(path)
    except (apsw.NotADBError, apsw.CorruptError, _OtherFormat) as error:
        aside = path.with_suffix(".damaged")
        log.warning("cache_damaged", path=str(path), error=str(error), moved_to=str(aside))
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _prepare(path)


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
