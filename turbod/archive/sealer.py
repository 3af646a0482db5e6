"""Brings every finished hour of the log into an object, in a thread, and lets the log forget it."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from turbod import heartbeat
from turbod.archive.catalogue import Catalogue
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.names import Name
from turbod.archive.local import Local, delete_plain
from turbod.archive.sealing import seal
from turbod.backoff import Backoff
from turbod.cursor import HOUR_US, SECOND_US
from turbod.eventlog.appender import DiskFull
from turbod.eventlog.hour_file import hour_of
from turbod.eventlog.log import EventLog, PlainHour
from turbod.eventlog.opening import plain_hours
from turbod.histogram import LONG_SECONDS, Distribution, Histogram

# An object takes some seventh of its hour. Where a quarter is not free it is not begun, since it
# would take, for a moment, what room the live log has left.
OBJECT_SHARE: Final = 4
QUIET_SECONDS: Final = 60.0  # how long an hour is over before silence is taken for its end
CHECK_SECONDS: Final = 20.0
FIRST_RETRY_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 60.0

log = structlog.get_logger()


class SealerStatistics(msgspec.Struct, frozen=True):
    """What was sealed since the process started.

    Attributes:
        waiting: hours that are finished and still plain.
        sealed_bytes: of the objects.
        last_seconds: how long the last hour took; `seconds`: all of them.
        fault: what keeps it from sealing, in words, or None.
    """

    sealed: int
    waiting: int
    sealed_bytes: int
    last_seconds: float
    seconds: Distribution
    fault: str | None


class Sealer:
    """Seals oldest first. An hour is plain, or an object, or for a moment both; never neither."""

    def __init__(
        self,
        event_log: EventLog,
        local: Local,
        *,
        instance: Callable[[], str],
        upstreams: Sequence[str],
        upstream_state: Callable[[], str],
        sealed: Callable[[Name], None],
        now_us: Callable[[], int],
    ) -> None:
        """Give it what it works with.

        Args:
            event_log: whose hours are sealed.
            local: takes the objects.
            instance: who gives the cursors.
            upstreams: the hosts that are read.
            upstream_state: `live` where silence means that nothing happened.
            sealed: is told of every new object.
            now_us: the clock.
        """
        self._log = event_log
        self._local = local
        self._instance = instance
        self._upstreams = upstreams
        self._upstream_state = upstream_state
        self._tell = sealed
        self._now_us = now_us
        self._sealed = self._sealed_bytes = 0
        self._last_seconds = 0.0
        self._seconds = Histogram(LONG_SECONDS)
        self._attempts = _Attempts()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Seal until cancelled. An object that is being made then is given up, nothing is left."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_quiet_hours)
            task_status.started()
            with heartbeat.beating("sealer"):
                while True:
                    await self._log.wait_finished()
                    for hour in self._log.finished_hours():
                        await self._seal(hour)

    def statistics(self) -> SealerStatistics:
        """Return the figures of this moment."""
        return SealerStatistics(
            sealed=self._sealed,
            waiting=len(self._log.finished_hours()),
            sealed_bytes=self._sealed_bytes,
            last_seconds=self._last_seconds,
            seconds=self._seconds.distribution(),
            fault=self._attempts.fault,
        )

    async def _end_quiet_hours(self) -> None:
        """End an hour in which nothing comes any more, since no event of a later one does it."""
        with heartbeat.beating("quiet_hours"):
            while True:
                await heartbeat.sleep(CHECK_SECONDS)
                quiet_from = hour_of(self._log.head) + HOUR_US + round(QUIET_SECONDS * SECOND_US)
                if self._upstream_state() == "live" and self._now_us() >= quiet_from:
                    await self._log.end_hour()

    async def _seal(self, hour: PlainHour) -> None:
        started = trio.current_time()
        name, size = await self._attempts.make(
            hour,
            folder=self._local.sealed_folder,
            previous=self._log.lost,
            instance=self._instance(),
            upstreams=self._upstreams,
        )
        if name is not None:
            self._local.add(name, size)
        await self._log.release(hour.hour)
        if name is not None:
            self._count(name, size, trio.current_time() - started)
            self._tell(name)

    def _count(self, name: Name, size: int, seconds: float) -> None:
        self._sealed += 1
        self._sealed_bytes += size
        self._last_seconds = seconds
        self._seconds.add(seconds)
        log.info("hour_sealed", object=name.key, bytes=size, seconds=round(seconds, 1))


async def seal_leftovers(
    local: Local, catalogue: Catalogue, *, instance: str, upstreams: Sequence[str]
) -> list[Name]:
    """Seal the plain hours that the archive has passed over, so that the log begins behind it.

    They are there where a snapshot of the disk was restored, or another machine went on. Call it
    before the log is opened. What keeps it from sealing is waited out.
    """
    sealed: list[Name] = []
    attempts = _Attempts()
    end = catalogue.end
    for hour in await trio.to_thread.run_sync(plain_hours, local.live_folder):
        if hour.hour >= end:
            break
        before = catalogue.before(hour.first)
        name, size = await attempts.make(
            hour,
            folder=local.sealed_folder,
            previous=before.name.last if before else 0,
            instance=instance,
            upstreams=upstreams,
        )
        if name is not None:
            local.add(name, size)
            sealed.append(name)
        await trio.to_thread.run_sync(delete_plain, hour)
        log.warning("hour_left_behind", file=hour.path.name, object=name.key if name else None)
    return sealed


class _Attempts:
    """Makes objects, each as often as it takes.

    Attributes:
        fault: what keeps it from that, in words, or None.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self._backoff = Backoff(
            first_seconds=FIRST_RETRY_SECONDS, longest_seconds=LONGEST_RETRY_SECONDS
        )

    async def make(
        self,
        hour: PlainHour,
        *,
        folder: Path,
        previous: int,
        instance: str,
        upstreams: Sequence[str],
    ) -> tuple[Name | None, int]:
        """Make an hour's object; return its name and size, None where the hour has no record."""
        make = partial(
            seal,
            hour,
            folder=folder,
            previous=previous,
            instance=instance,
            upstreams=upstreams,
            cancelled=partial(_is_cancelled, heartbeat.heart()),
        )
        while True:
            try:
                made = await trio.to_thread.run_sync(_make, hour, folder, make)
            except (DiskFull, Damaged, OSError) as error:
                self._note(hour, str(error))
                await heartbeat.sleep(self._backoff.next_seconds())
            else:
                self._note_success()
                return made

    def _note(self, hour: PlainHour, fault: str) -> None:
        if self.fault is None:
            log.error("hour_not_sealed", file=hour.path.name, error=fault, todo="it is tried again")
        self.fault = fault

    def _note_success(self) -> None:
        if self.fault is not None:
            log.info("sealing_again", was=self.fault)
            self.fault = None
        self._backoff.reset()


def _make(
    hour: PlainHour, folder: Path, make: Callable[[], Name | None]
) -> tuple[Name | None, int]:
    if not hour.path.exists():
        log.error("hour_missing", file=hour.path.name, todo="restore it from a copy")
        return None, 0
    free = shutil.disk_usage(folder).free
    if free < hour.size // OBJECT_SHARE:
        raise DiskFull(f"disk full: {free} bytes are free, an hour of {hour.size} is to be sealed")
    name = make()
    if name is None:
        log.error("hour_unreadable", file=hour.path.name, todo="restore it from a copy")
        return None, 0
    return name, (folder / name.file).stat().st_size


def _is_cancelled(heart: heartbeat.Heart) -> bool:
    """Raise trio.Cancelled in the thread as soon as the task that waits for it is cancelled."""
    heart.beat()
    trio.from_thread.check_cancelled()
    return False
