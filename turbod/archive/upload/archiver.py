"""Brings every sealed hour into the store, for ever: oldest first, read back before it counts."""

import math
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.archive.catalogue import Catalogue, Held
from turbod.archive.format.names import Name
from turbod.archive.local import Local
from turbod.archive.stores.store import NeedsMending, Store, StoreFault
from turbod.archive.upload.bounds import Bounds
from turbod.archive.upload.clashes import Clashes, objects_in
from turbod.archive.upload.condition import Condition, State
from turbod.archive.upload.inventory import Inventory
from turbod.archive.upload.space import Full, Space
from turbod.archive.upload.standing import NotOurs, Standing
from turbod.archive.upload.uploading import Conflict, Uploader
from turbod.backoff import Backoff
from turbod.config import ArchiveSettings
from turbod.histogram import LONG_SECONDS, Distribution, Histogram

FIRST_RETRY_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 300.0
LIST_SECONDS: Final = 3600.0  # between two listings while all is well
NEEDS_MENDING_TRIES: Final = 3  # at the start: a key just made may not be known everywhere yet
RELIST_SECONDS: Final = 10.0  # at least, between two that readers ask for

log = structlog.get_logger()


class ArchiverStatistics(msgspec.Struct, frozen=True):
    """How the archive is.

    Attributes:
        state: `ok`; `failing` while the store does not do what is asked; `conflict` where an
            operator must decide; `full`.
        fault: the newest, in words, or None while the state is `ok`.
        hours_waiting: sealed hours that are not in the store.
        oldest_waiting: the first cursor of the oldest of these, 0 where there is none.
        uploaded: hours stored since the start.
        last_upload_seconds: how long the last one took, reading back included.
        upload_seconds: all of them.
        foreign: what lies under the prefix and is none of ours.
        conflicts: hours of which there are two objects that exclude each other.
        hours_left: for how long a folder has room for more, at the last day's size of an hour;
            None where there is no bound or nothing to go by.
        disk_hours_left: as much for the data folder's disk, if nothing could leave it.
        disk_free_bytes: what is free there, as last looked at; None before the first look.
    """

    state: State
    fault: str | None
    instance: str
    url: str
    hours_waiting: int
    waiting_bytes: int
    oldest_waiting: int
    uploaded: int
    uploaded_bytes: int
    last_upload_seconds: float | None
    upload_seconds: Distribution
    stored_hours: int
    stored_bytes: int
    foreign: int
    conflicts: int
    hours_left: float | None
    disk_hours_left: float | None
    disk_free_bytes: int | None


class Archiver:
    """Uploads, lists, and keeps within bounds; what fails is tried again for ever.

    An hour in conflict stays where it is, and the next ones go on.
    """

    def __init__(
        self,
        store: Store,
        local: Local,
        catalogue: Catalogue,
        settings: ArchiveSettings,
        *,
        data: Path,
        log_max_bytes: int,
    ) -> None:
        self._store = store
        self._local = local
        self._catalogue = catalogue
        self._inventory = Inventory(store, catalogue)
        self._clashes = Clashes(local, self._inventory)
        bounds = Bounds(settings, data=data, log_max_bytes=log_max_bytes)
        self._standing = Standing(store, catalogue, data=data, half_of_free=bounds.half_of_free)
        self._space = Space(
            store,
            local,
            catalogue,
            settings,
            inventory=self._inventory,
            standing=self._standing,
            bounds=bounds,
        )
        self._uploader = Uploader(store, scratch=local.sealed_folder)
        self._backoff = Backoff(
            first_seconds=FIRST_RETRY_SECONDS, longest_seconds=LONGEST_RETRY_SECONDS
        )
        self._condition = Condition()
        self._survey_at = 0.0
        self._listed_at = -math.inf
        self._is_retrying = False
        self._woken = trio.Event()
        self._adapted = trio.Event()
        self._uploaded = self._uploaded_bytes = 0
        self._last_upload_seconds: float | None = None
        self._upload_seconds = Histogram(LONG_SECONDS)

    @property
    def instance(self) -> str:
        """This machine's id; known once `open` has returned."""
        return self._standing.instance

    async def open(self, seconds: float) -> None:
        """Learn whose the archive is and what is in it, trying for so long; `run` goes on trying.

        What only an operator can mend is not waited for.

        A data folder that has neither an id nor an hour takes the archive's id over in here, and
        nowhere else: once this has returned, it has one of its own.
        """
        with trio.move_on_after(seconds) as scope:
            await self._try_to_open()
        if scope.cancelled_caught and self._condition.fault is None:
            self._enter("failing", f"{self._store.url} did not answer within {seconds:g} s")
        self._backoff.reset()
        await self._standing.settle()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Upload what waits and what will, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._space.run)
            task_status.started()
            with heartbeat.beating("archiver"):
                while True:
                    await self._try_next()

    def adapt(self, *, log_max_bytes: int) -> None:
        """Take up settings that have changed; a fault is waited out no longer, it may be mended."""
        self._space.bounds.log_max_bytes = log_max_bytes
        self._space.look()
        self._backoff.reset()
        self._adapted.set()

    def wake(self) -> None:
        """Note that an hour was sealed; while a fault is waited out, it waits as well."""
        self._woken.set()

    async def relist(self) -> None:
        """List the store anew, as one must whom it had no object for that it once listed.

        Waits where that was done a moment ago, so that a store that lists what it does not have
        is not asked without end.

        Raises:
            StoreFault: it could not be listed.
        """
        await trio.sleep_until(self._listed_at + RELIST_SECONDS)
        await self._list()

    async def finish(self, seconds: float) -> None:
        """Wait until all that can be uploaded is, or until it fails, or for so long."""
        with trio.move_on_after(seconds):
            while not self._is_retrying and self._oldest() is not None:
                await self._condition.changed.wait()

    def statistics(self) -> ArchiverStatistics:
        """Return how things are."""
        waiting = self._local.sealed()
        inventory = self._inventory
        return ArchiverStatistics(
            state=self._condition.state,
            fault=self._condition.fault,
            instance=self.instance,
            url=self._store.url,
            hours_waiting=len(waiting),
            waiting_bytes=self._local.statistics().sealed_bytes,
            oldest_waiting=waiting[0].first if waiting else 0,
            uploaded=self._uploaded,
            uploaded_bytes=self._uploaded_bytes,
            last_upload_seconds=self._last_upload_seconds,
            upload_seconds=self._upload_seconds.distribution(),
            stored_hours=inventory.stored_hours,
            stored_bytes=inventory.stored_bytes,
            foreign=inventory.foreign,
            conflicts=len(self._clashes) + inventory.doubled + len(inventory.intruders),
            hours_left=self._space.bounds.hours_left(self._catalogue),
            disk_hours_left=self._space.bounds.disk_hours_left(self._catalogue),
            disk_free_bytes=self._space.bounds.disk_free_bytes,
        )

    async def _try_to_open(self) -> None:
        in_vain = 0
        while True:
            try:
                await self._survey()
            except StoreFault as fault:
                self._enter("failing", str(fault))
                in_vain += isinstance(fault, NeedsMending)
                if in_vain == NEEDS_MENDING_TRIES:
                    return
            except NotOurs as refusal:
                self._enter("conflict", str(refusal))
                return
            else:
                self._enter("ok")
                return
            await trio.sleep(self._backoff.next_seconds())

    async def _survey(self) -> None:
        """Learn what is in the archive and whose it is."""
        try:
            await self._list()
        except StoreFault:
            if self._catalogue.is_listed:
                raise
            await self._store.check()  # makes a folder where there is none
            await self._list()
        await self._check_standing()
        self._survey_at = trio.current_time() + LIST_SECONDS

    async def _list(self) -> None:
        await self._inventory.refresh()
        self._listed_at = trio.current_time()
        await self._clashes.settle()

    async def _try_next(self) -> None:
        try:
            await self._next()
        except StoreFault as fault:
            await self._wait_out("failing", str(fault))
        except NotOurs as refusal:
            await self._wait_out("conflict", str(refusal))
        except Full as refusal:
            await self._wait_out("full", str(refusal))

    async def _next(self) -> None:
        """Do the next thing there is to do, or wait for it."""
        if trio.current_time() >= self._survey_at:
            await self._survey()
        name = self._oldest()
        if name is not None:
            await self._bring(name)
        self._is_retrying = False
        self._backoff.reset()
        self._enter_by_clashes()
        if self._oldest() is None:
            again = LONGEST_RETRY_SECONDS if self._clashes else LIST_SECONDS
            self._survey_at = min(self._survey_at, trio.current_time() + again)
            await heartbeat.wait(self._woken, until=self._survey_at)
            self._woken = trio.Event()

    async def _bring(self, name: Name) -> None:
        held = self._held(name)
        there = await self._inventory.look(name)
        await self._check_standing()
        if not objects_in(there):
            await self._space.make(held.size)
        self._inventory.storing(name)
        started = trio.current_time()
        try:
            is_needed = await self._uploader.bring(held, there)
            await self._put_away(held, is_needed=is_needed)
        except Conflict as conflict:
            self._clashes.add(name, reason=str(conflict), there=there)
            return
        except OSError as error:
            raise StoreFault(f"{error.filename or held.path}: {error.strerror}") from None
        self._last_upload_seconds = trio.current_time() - started
        self._upload_seconds.add(self._last_upload_seconds)
        self._space.look()

    async def _put_away(self, held: Held, *, is_needed: bool) -> None:
        """Let an object go from those that wait."""
        if is_needed:
            self._inventory.stored(held.name, held.size)
            await self._local.verified(held.name)
            self._uploaded += 1
            self._uploaded_bytes += held.size
            log.info("hour_archived", object=held.name.key, bytes=held.size)
        else:
            log.info("archive_hour_not_needed", object=held.name.key)
            await self._local.drop(held.name)

    async def _check_standing(self) -> None:
        """Return where we may write, and nobody else does."""
        await self._standing.check(self._inventory.identity)
        if intruders := self._inventory.intruders:
            raise NotOurs(
                f"another turbod stored {intruders[0].key} in {self._store.url} while this one "
                "stored hours there; stop one of the two, then move what it stored elsewhere"
            )

    def _oldest(self) -> Name | None:
        """Return what is to be uploaded next."""
        return next((name for name in self._local.sealed() if name not in self._clashes), None)

    def _held(self, name: Name) -> Held:
        """Return an object that waits, even where another of its hour is read in its place."""
        return next(held for held in self._catalogue.local() if held.name == name)

    async def _wait_out(self, state: State, fault: str) -> None:
        seconds = self._backoff.next_seconds()
        self._is_retrying = True
        if state != "failing":
            self._survey_at = 0.0  # what an operator does about it shows in a listing
        self._enter(state, fault, retry_seconds=seconds)
        self._adapted = trio.Event()
        await heartbeat.wait(self._adapted, until=trio.current_time() + seconds)

    def _enter_by_clashes(self) -> None:
        for reason in reversed(self._clashes.reasons):  # the oldest stays shown
            self._enter("conflict", reason)
        if not self._clashes:
            self._enter("ok")

    def _enter(self, state: State, fault: str | None = None, **more: object) -> None:
        waiting = len(self._local.sealed())
        self._condition.enter(state, fault, archive=self._store.url, hours_waiting=waiting, **more)
