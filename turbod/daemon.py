"""The whole of turbod in one nursery tree: the only module that knows all parts."""

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import apsw
import msgspec
import structlog
import trio

from turbod import config, exclusion, heartbeat, log_output, report
from turbod.archive.archive import Archive
from turbod.config import Reloaded, Settings
from turbod.data_folder import no_data
from turbod.database import Changes, Database
from turbod.event import Event
from turbod.eventlog.chunk import Chunk
from turbod.eventlog.log import EventLog, PlainHour
from turbod.eventlog.reader import HistoryUnavailable, Pruned
from turbod.filter import EVERYTHING
from turbod.hydration.cache import Cache
from turbod.hydration.hydrator import Hydrator
from turbod.lookback.lookback import Lookback
from turbod.record import read_line
from turbod.server import tokens
from turbod.server.archive_listing import ArchiveListing
from turbod.server.server import Server
from turbod.start import CannotStart
from turbod.upstream.gaps import REORDER_US
from turbod.upstream.position import ANCHORS, Position, name_of
from turbod.upstream.upstream import Upstream

SAVE_SECONDS: Final = 1.0
DRAIN_HYDRATION_SECONDS: Final = 2.0  # what is still under way then is read again after the start
RELOAD_SECONDS: Final = 30.0  # longest wait for the files of a reload
SILENT_START_SECONDS: Final = 3.0  # below the patience of what looks at /healthz
REWIND_US: Final = 3_600_000_000
NEWEST_US: Final = 2_000_000  # in which the newest records are looked for
OBSERVED_AGAIN_US: Final = 60_000_000  # of records; where more were not saved, nothing cached holds

log = structlog.get_logger()


def now_us() -> int:
    """Return the wall clock, microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class Daemon:
    """The parts, wired: events go from upstream to hydration to the log; the server reads it."""

    def __init__(self, settings: Settings, data: Path) -> None:
        self._settings = settings
        self.heartbeats = heartbeat.Heartbeats()
        self._exclusion = exclusion.Exclusion()
        self._reading = trio.CapacityLimiter(1)  # of settings: what hangs takes no other's thread
        self._list = exclusion.Watch(lambda: settings.exclude, self._reading)
        listed = _read_exclusions(settings.exclude)
        allowed = tokens.read(settings, os.environ)
        self.database = _open_database(data / "cache.sqlite", settings)
        self.cache = Cache(settings.cache, self.database, now_us=now_us)
        self.log = EventLog(data, settings.log, written=self._done, now_us=now_us)
        self.hydrator = Hydrator(
            settings.hydration,
            appview_url=settings.appview,
            cache=self.cache,
            append=self.log.append,
            dropped=self._done,
            now_us=now_us,
        )
        self.archive = Archive(data, settings, self.log, upstream_state=self.state, now_us=now_us)
        self.whole = self.archive.whole
        self._listing = ArchiveListing(
            self.archive.catalogue,
            self.archive.store,
            instance=lambda: self.archive.instance,
            summary=self.archive.history.index,
            is_public=settings.archive.public,
        )
        self.lookback = Lookback(
            self.snapshot, self.archive, plain_hours=self._plain_hours, now_us=now_us
        )
        self.server = Server(
            settings.server,
            log=self.whole,
            archive=self._listing,
            collections=settings.collections,
            upstream_state=self.state,
            status=lambda: report.status(self.snapshot()),
            metrics=lambda: report.metrics(self.snapshot()),
            lookback={
                "/status/samples": self.lookback.samples,
                "/status/hours": self.lookback.hours,
            },
            ready=self.ready,
            now_us=now_us,
            tokens=allowed,
        )
        self.upstream: Upstream | None = None
        self.started_us = now_us()
        self.stopped = False
        self.cache_fault: str | None = None
        self._unsaved = Changes()
        self._saving = trio.Lock()
        self._upstream_scope = trio.CancelScope()
        self.is_ready = trio.Event()
        self._nursery: trio.Nursery
        self._exclude(listed)

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Repair the log, answer on the port, then read the network until cancelled."""
        with self.heartbeats.watching():
            await self._run(listeners, task_status)

    async def _run(
        self, listeners: Sequence[trio.SocketListener], task_status: trio.TaskStatus[None]
    ) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.heartbeats.run)
            nursery.start_soon(self._serve, listeners)
            nursery.start_soon(self.lookback.run)
            await nursery.start(self.archive.history.run)
            await self._open_log(nursery)
            await nursery.start(self.archive.run)
            self.is_ready.set()
            with heartbeat.beating("start"):
                nursery.start_soon(self._settle_exclusion)
                await self._observe_again()
                nursery.start_soon(self._list.run, self._exclude)
                await nursery.start(self.hydrator.run)
                self.upstream = await self._make_upstream()
            nursery.start_soon(self._save_regularly)
            nursery.start_soon(self._read_upstream, self.upstream)
            log.info(
                "ready",
                page=_page(listeners),
                head=self.log.head,
                tokens="none" if (known := self.server.known_tokens) is None else known,
            )
            task_status.started()

    async def _serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Let who comes wait where we are ready soon, as after a restart; then say how we are."""
        try:
            with trio.move_on_after(SILENT_START_SECONDS):
                await self.is_ready.wait()
            await self.server.run(listeners)
        finally:
            for listener in listeners:
                listener.socket.close()

    async def _open_log(self, nursery: trio.Nursery) -> None:
        try:
            await self.archive.open()
            await nursery.start(self.log.run)
        except* OSError as errors:
            raise no_data(self._settings.data, _first(errors)) from None

    async def reload(self, load: Callable[[], Settings]) -> Reloaded:
        """Read the settings again, and let hold what needs no restart: all of it, or nothing.

        It may be called as soon as `run` was.

        Args:
            load: reads them.

        Raises:
            ConfigError: a setting cannot be; nothing has changed.
            CannotStart: a file that one names cannot be read; nothing has changed.
        """
        fresh, listed, allowed = await self._read_again(load)
        reloaded = config.reload(self._settings, fresh)
        self._adapt()
        self.server.set_tokens(allowed)
        self._exclude(listed)
        return reloaded

    async def _read_again(
        self, load: Callable[[], Settings]
    ) -> tuple[Settings, frozenset[str], tokens.Tokens | None]:
        def read() -> tuple[Settings, frozenset[str], tokens.Tokens | None]:
            settings = load()
            listed = _read_exclusions(settings.exclude)
            return settings, listed, tokens.read(settings, os.environ)

        with trio.move_on_after(RELOAD_SECONDS):
            return await trio.to_thread.run_sync(
                read, abandon_on_cancel=True, limiter=self._reading
            )
        raise CannotStart(
            f"not all was read within {RELOAD_SECONDS:g} s; look for a disk that hangs, or a file "
            "that is a pipe",
            retry=True,
        )

    def _adapt(self) -> None:
        """Let the parts take up what they do not read at each use; no event comes in between."""
        settings = self._settings
        log_output.set_level(settings.log_level)
        self.database.max_bytes = settings.cache.disk_bytes
        self.log.adapt()
        self.hydrator.adapt()
        self.archive.adapt()
        self._listing.publish(is_public=settings.archive.public)
        self.server.adapt(collections=settings.collections)
        if self.upstream is not None:
            self.upstream.subscribe(settings.collections)

    async def stop(self) -> None:
        """Stop reading, finish what is under way, sync, say goodbye to subscribers.

        It may be called as soon as `run` was: what has not begun yet has nothing to finish, and
        the database then knows more than we do.
        """
        self._upstream_scope.cancel()
        if self.upstream is not None:
            with trio.move_on_after(DRAIN_HYDRATION_SECONDS):
                await self.hydrator.drain()
            if self.log.fault is None:
                await self.log.flush()
            await self._save()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.archive.finish)
            await self.server.drain(seconds=self._settings.server.shutdown_seconds / 2)
        self.stopped = True

    def close(self) -> None:
        """Close what is open on disk; call it when `run` has ended."""
        self.database.close()

    def state(self) -> str:
        """Return `upstream` as subscribers see it: live, catching_up or stalled."""
        if self.upstream is None:
            return "catching_up"
        if self.log.fault is not None:
            return "stalled"
        state = self.upstream.state()
        # The head may be current while accounts whose views are wanted still wait.
        return "catching_up" if state == "live" and self.hydrator.is_behind else state

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Tell whether a new subscriber can be served, and how the parts are."""
        appview = self.hydrator.appview.statistics()
        is_ready = self.is_ready.is_set()
        parts = {
            "log": "repaired" if is_ready else "being repaired",
            "upstream": self.state(),
            "disk": self.log.fault or "ok" if is_ready else "being read",
            "appview": appview.last_error or "down" if appview.down else "ok",
            "archive": self.archive.fault or "ok" if is_ready else "being read",
        }
        return is_ready, {"ready": is_ready, **parts}

    def snapshot(self) -> report.Snapshot:
        """Return the figures of all parts as they are now."""
        begun = self.is_ready.is_set()
        return report.Snapshot(
            now_us=now_us(),
            started_us=self.started_us,
            state=self.state(),
            settings=self._settings,
            log=self.log.statistics() if begun else None,
            log_fault=self.log.fault if begun else None,
            events_per_minute=self.log.events_per_minute if begun else 0,
            archive=self.archive.statistics() if begun else None,
            upstream=self.upstream.statistics() if self.upstream else None,
            hydration=self.hydrator.statistics(),
            appview=self.hydrator.appview.statistics(),
            cache=self.cache.statistics(),
            cache_fault=self.cache_fault,
            server=self.server.statistics(),
            hearts=self.heartbeats.statistics(),
        )

    def _plain_hours(self) -> list[PlainHour]:
        return self.log.plain_hours() if self.is_ready.is_set() else []

    async def _make_upstream(self) -> Upstream:
        fallback = await self._fallback()
        settings = self._settings  # as it is behind all waiting: a reload may change it meanwhile
        return Upstream(
            settings.jetstream,
            urls=settings.upstream,
            collections=settings.collections,
            positions=_positions(self.database),
            fallback=fallback,
            older=self.whole,
            take=self.hydrator.take,
            has_room=lambda: self.hydrator.has_room and self.log.has_room,
            room=self._room,
            gap=self._gap,
            now_us=now_us,
        )

    async def _observe_again(self) -> None:
        """Let the newest records outdate what they outdate: the cache's last save is older.

        They are on disk, so when the upstream sends them again they are dropped as known.
        """
        saved, head = self.database.number("observed"), self.log.head
        after = max(saved, head - OBSERVED_AGAIN_US, self.whole.floor)
        if after > saved:
            self.cache.outdate_all()
        try:
            async for chunk in self._chunks(after):
                self._observe_chunk(chunk, after)
                await trio.lowlevel.checkpoint()
        except (HistoryUnavailable, Pruned) as error:
            log.warning("cache_outdated", error=str(error))
            self.cache.outdate_all()

    async def _chunks(self, after: int) -> AsyncIterator[Chunk]:
        """Yield what there is above a position, wherever it lies."""
        head = self.log.head
        while after < head:
            if self.whole.in_memory(after):
                chunk = self.whole.next_chunk(after)
                assert chunk is not None, "the head is above the position, and all is in memory"
                yield chunk
                after = chunk.last
                continue
            stretch = await self.whole.read(after, EVERYTHING)
            for item in stretch.items:
                if isinstance(item, Chunk):
                    yield item
            after = stretch.last

    def _observe_chunk(self, chunk: Chunk, after: int) -> None:
        for index in range(len(chunk)):
            cursor, event = read_line(chunk.line(index))
            if cursor > after:
                self.hydrator.observe(event)

    async def _read_upstream(self, upstream: Upstream) -> None:
        with self._upstream_scope:
            await upstream.run()

    async def _room(self) -> None:
        await self.hydrator.room()
        await self.log.room()

    async def _gap(self, message: str) -> None:
        """Put a gap at its place: behind all that was taken before it."""
        await self.hydrator.drain()
        self.hydrator.outdate_all()
        self.log.mark_gap(message)

    def _done(self, intakes: Sequence[int]) -> None:
        if self.upstream is not None:
            self.upstream.done(intakes)

    async def _fallback(self) -> Position | None:
        """Return from where to read a host without a saved position; None: from now."""
        head = self.log.head
        if not head:
            return None
        records = await self._newest(head)
        times = [min(event.time_us, cursor) for cursor, event in records]
        end_us = times[-1] if times else head
        return Position(
            end_us - REWIND_US,
            latest_us=end_us + REORDER_US,
            anchors=tuple(name_of(event) for _, event in records),
        )

    async def _newest(self, head: int) -> list[tuple[int, Event]]:
        """Return the newest records, ANCHORS of them where they lie together."""
        newest: deque[bytes] = deque(maxlen=ANCHORS)
        after = max(head - NEWEST_US, self.whole.floor)
        try:
            async for chunk in self._chunks(after):
                newest.extend(chunk.line(index) for index in range(len(chunk))[-ANCHORS:])
        except (HistoryUnavailable, Pruned) as error:
            log.warning("newest_records_not_read", error=str(error))
        return [read_line(line) for line in newest]

    def _exclude(self, dids: frozenset[str]) -> None:
        """Pass on nothing of these accounts from now on, whatever shows them."""
        self.server.withhold(self._exclusion.withhold if self._settings.exclude else None)
        if dids != self.cache.excluded:
            self.cache.exclude(dids)
            self._exclusion.change(dids)
            log.info("exclusions", dids=len(dids), file=self._settings.exclude)
            if self.is_ready.is_set():
                self._nursery.start_soon(self._settle_exclusion)

    async def _settle_exclusion(self) -> None:
        """Wait for the records that were hydrated before the list changed."""
        dids = self.cache.excluded
        await self.log.flush()
        self._exclusion.settle(dids, head=self.log.head)

    async def _save_regularly(self) -> None:
        with heartbeat.beating("saving"):
            while True:
                await heartbeat.sleep(SAVE_SECONDS)
                await self._save()

    async def _save(self) -> None:
        """Write positions and cache, or keep them for the next time where that fails."""
        async with self._saving:
            changes = self._changes()
            self._unsaved = changes
            try:
                with trio.CancelScope(shield=True):  # a write that ran must be known to have run
                    await trio.to_thread.run_sync(self.database.write, changes)
            except (apsw.Error, OSError) as error:
                if self.cache_fault is None:
                    log.warning("cache_not_written", error=str(error), retry_seconds=SAVE_SECONDS)
                self.cache_fault = str(error)
                changes.views.clear()  # they can be asked for again; the rest is small
            else:
                self._unsaved = Changes()
                if self.cache_fault is not None:
                    log.info("cache_written_again", was=self.cache_fault)
                self.cache_fault = None

    def _changes(self) -> Changes:
        """Return all that is to be saved; no event is taken while it is put together."""
        positions = {} if self.upstream is None else self.upstream.positions()
        changes = self.cache.changes()
        changes.observed = self.log.head
        changes.positions = {url: _encoded(position) for url, position in positions.items()}
        changes.follow(self._unsaved)
        return changes


def _encoded(position: Position) -> str:
    return msgspec.json.encode(position).decode()


def _positions(database: Database) -> dict[str, Position]:
    """Return the saved positions, without those that this version cannot read: costs repeats."""
    positions = {}
    for url, text in database.positions().items():
        try:
            positions[url] = msgspec.json.decode(text, type=Position)
        except ValueError:
            log.warning("upstream_position_unreadable", host=url, text=text[:200])
    return positions


def _page(listeners: Sequence[trio.SocketListener]) -> str:
    """Return where a browser finds the page."""
    host, port = listeners[0].socket.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _first(errors: BaseExceptionGroup[OSError]) -> OSError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OSError)
    return error


def _open_database(path: Path, settings: Settings) -> Database:
    try:
        return Database(path, max_bytes=settings.cache.disk_bytes)
    except (apsw.Error, OSError) as error:
        raise CannotStart(f"--data: cannot open {path}: {error}", retry=True) from None


def _read_exclusions(file: str) -> frozenset[str]:
    try:
        return exclusion.read(Path(file)) if file else frozenset()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise CannotStart(f"--exclude {file}: {reason}", retry=False) from None
