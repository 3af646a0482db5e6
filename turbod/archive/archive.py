"""The archive whole: sealing, uploading, bounds and reading, wired."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from turbod.archive.catalogue import Catalogue
from turbod.archive.format.hour_object import Damaged
from turbod.archive.local import Local, LocalStatistics
from turbod.archive.reading.history import History, HistoryStatistics
from turbod.archive.reading.whole_log import WholeLog
from turbod.archive.sealer import Sealer, SealerStatistics, seal_leftovers
from turbod.archive.stores.store import StoreFault, open_store
from turbod.archive.upload.archiver import Archiver, ArchiverStatistics
from turbod.config import Settings
from turbod.eventlog.chunk import Chunk
from turbod.eventlog.log import RECENT_BYTES, EventLog
from turbod.eventlog.reader import HistoryUnavailable, Pruned
from turbod.filter import EVERYTHING

# To learn what the archive has. One that has nothing of its own would begin anew without it, so it
# waits longer: where the archive answers late, all since its last hour would be lost.
OPEN_SECONDS: Final = 10.0
FIRST_OPEN_SECONDS: Final = 60.0
FINISH_SECONDS: Final = 2.0  # at an orderly end, for what is being uploaded


class ArchiveStatistics(msgspec.Struct, frozen=True):
    """How its parts are.

    Attributes:
        floor: everything above it is retained, 0 where that is not known.
        hours: objects, on this disk or in the store.
    """

    floor: int
    hours: int
    sealer: SealerStatistics
    local: LocalStatistics
    archiver: ArchiverStatistics
    history: HistoryStatistics


class Archive:
    """Every hour that the log has let go, or will.

    Attributes:
        whole: the log and all that is older, as readers see it.
    """

    def __init__(
        self,
        data: Path,
        settings: Settings,
        event_log: EventLog,
        *,
        upstream_state: Callable[[], str],
        now_us: Callable[[], int],
    ) -> None:
        self._data = data
        self._settings = settings
        self._upstreams: Sequence[str] = settings.upstream
        self._log = event_log
        self.catalogue = Catalogue()
        self.store = open_store(settings.archive, settings.s3, data)
        self._local = Local(data, self.catalogue)
        self._archiver = Archiver(
            self.store,
            self._local,
            self.catalogue,
            settings.archive,
            data=data,
            log_max_bytes=settings.log.max_bytes,
        )
        self.history = History(
            self.catalogue,
            self.store,
            read_ahead_bytes=settings.archive.read_ahead_bytes,
            relist=self._archiver.relist,
            instance=lambda: self.instance,
        )
        self.whole = WholeLog(event_log, self.history)
        self._sealer = Sealer(
            event_log,
            self._local,
            instance=lambda: self.instance,
            upstreams=self._upstreams,
            upstream_state=upstream_state,
            sealed=lambda _: self._archiver.wake(),
            now_us=now_us,
        )

    @property
    def instance(self) -> str:
        """Who gives the cursors; known once `open` has returned."""
        return self._archiver.instance

    @property
    def fault(self) -> str | None:
        """What keeps hours from the archive, in words, or None."""
        return self._sealer.statistics().fault or self._archiver.statistics().fault

    async def open(self) -> None:
        """Learn what there is, and let the log begin behind it.

        To be called before the log's `run`, and while `history` runs.

        Raises:
            OSError: a folder in the data folder cannot be made or read.
        """
        is_new = not await trio.Path(self._data / "instance").exists()
        await self._local.open()
        await self._local.adopt()
        await self._archiver.open(FIRST_OPEN_SECONDS if is_new else OPEN_SECONDS)
        await seal_leftovers(
            self._local, self.catalogue, instance=self.instance, upstreams=self._upstreams
        )
        self._log.after, self._log.ended = self.catalogue.last, self.catalogue.end
        self._log.recent = await self._recent()

    async def _recent(self) -> list[Chunk]:
        """Return the newest records, where they lie on this disk: most who resume ask for them."""
        held = self.catalogue.after(self.catalogue.last - 1)
        if held is None or held.path is None or held.name.last != self.catalogue.last:
            return []
        try:
            index = await self.history.index(held)
            return await self._chunks_from(index.frames[-1].first - 1, held.name.last)
        except (Damaged, StoreFault, HistoryUnavailable, Pruned):
            return []  # told where it is read for somebody

    async def _chunks_from(self, position: int, last: int) -> list[Chunk]:
        """Return the chunks up to the cursor `last`, without a hole between them."""
        chunks: deque[Chunk] = deque()
        size = 0
        while position < last:
            stretch = await self.whole.read(position, EVERYTHING)
            if stretch.last <= position:
                return []
            for item in stretch.items:
                if not isinstance(item, Chunk):
                    return []
                chunks.append(item)
                size += len(item.array)
            while size > RECENT_BYTES:
                size -= len(chunks.popleft().array)
            position = stretch.last
        return list(chunks)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Seal and upload until cancelled; to be called once the log runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sealer.run)
            nursery.start_soon(self._archiver.run)
            task_status.started()

    def adapt(self) -> None:
        """Take up settings that have changed, and the bucket's keys, which may have."""
        self._archiver.adapt(log_max_bytes=self._settings.log.max_bytes)
        self.history.objects.resize(self._settings.archive.read_ahead_bytes)
        self.store.renew()

    async def finish(self) -> None:
        """Let what is quick to upload be uploaded."""
        await self._archiver.finish(FINISH_SECONDS)

    def statistics(self) -> ArchiveStatistics:
        """Return the figures of this moment."""
        return ArchiveStatistics(
            floor=self.whole.floor,
            hours=len(self.catalogue),
            sealer=self._sealer.statistics(),
            local=self._local.statistics(),
            archiver=self._archiver.statistics(),
            history=self.history.statistics(),
        )
