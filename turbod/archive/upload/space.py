"""Keeps the archive and this disk within their bounds: what goes, and when nothing more fits."""

import math
from contextlib import suppress
from typing import Final

import structlog
import trio

from turbod import heartbeat
from turbod.archive.catalogue import Catalogue
from turbod.archive.local import Local
from turbod.archive.stores.store import Store, StoreFault
from turbod.archive.upload.bounds import Bounds, Room
from turbod.archive.upload.inventory import Inventory
from turbod.archive.upload.standing import Standing
from turbod.config import ArchiveSettings

DISK_SECONDS: Final = 60.0  # between two looks at the disks
DROP_SECONDS: Final = 3600.0  # until more is dropped, where that much made no room

log = structlog.get_logger()


class Full(Exception):
    """The archive has no room for another hour: one line that says why, and what to do."""


class Space:
    """Makes room in the store where that was chosen, and on this disk.

    Attributes:
        bounds: how much may be where.
    """

    def __init__(
        self,
        store: Store,
        local: Local,
        catalogue: Catalogue,
        settings: ArchiveSettings,
        *,
        inventory: Inventory,
        standing: Standing,
        bounds: Bounds,
    ) -> None:
        self.bounds = bounds
        self._store = store
        self._local = local
        self._catalogue = catalogue
        self._settings = settings
        self._inventory = inventory
        self._standing = standing
        self._has_changed = trio.Event()
        self._to_drop_bytes = 0
        self._drop_more_at = -math.inf

    async def run(self) -> None:
        """Let the oldest hours that the store has leave this disk where they are too many."""
        told = ""
        with heartbeat.beating("space"):
            while True:
                fault = await self._prune()
                if fault and fault != told:
                    log.warning("archive_disk", error=fault, retry_seconds=DISK_SECONDS)
                told = fault
                if self._standing.identity is not None:
                    with suppress(StoreFault):  # told when room is needed
                        await self._room()
                until = trio.current_time() + DISK_SECONDS
                await heartbeat.wait(self._has_changed, until=until)
                self._has_changed = trio.Event()

    def look(self) -> None:
        """Look at the disks at once: an hour was stored."""
        self._has_changed.set()

    async def make(self, size: int) -> None:
        """Return where the store has room for that much.

        Raises:
            Full: it has none.
            StoreFault: that cannot be known, or what should go does not.
        """
        while (room := await self._room()) is not None and room.left < size:
            oldest = next((held for held in self._catalogue if held.is_stored), None)
            if self._settings.when_full == "stop" or oldest is None or size > room.limit:
                raise Full(
                    f"{room.reason}; hours wait on this disk: allow it more, move its oldest hours "
                    "elsewhere, or set archive.when_full to drop_oldest"
                )
            self._limit_dropping(size - room.left)
            if self._to_drop_bytes <= 0:
                raise Full(
                    f"{room.reason}, though as much was dropped as is needed; hours wait on this "
                    "disk: a snapshot or a link may hold what was dropped, or others fill the disk"
                )
            await self._store.delete(oldest.name.key)
            self._inventory.removed(oldest.name)
            self._to_drop_bytes -= oldest.size
            log.warning("archive_hour_dropped", object=oldest.name.key, reason=room.reason)
        self._drop_more_at = -math.inf

    def _limit_dropping(self, missing_bytes: int) -> None:
        """Let as much be dropped as is missing now, and no more for an hour.

        A file system may free it later, as btrfs does, or never, where a snapshot holds it: going
        by what is free alone would take the whole archive at one go.
        """
        if trio.current_time() >= self._drop_more_at:
            self._to_drop_bytes = missing_bytes
            self._drop_more_at = trio.current_time() + DROP_SECONDS

    async def _prune(self) -> str:
        """Return what went wrong, if anything."""
        try:
            await self._local.prune(await self.bounds.local_bytes())
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return ""

    async def _room(self) -> Room | None:
        identity = self._standing.identity
        return await self.bounds.room(
            stored_bytes=self._inventory.stored_bytes,
            remembered_bytes=identity.max_bytes if identity else 0,
        )
