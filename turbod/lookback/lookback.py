"""Looks at the parts every ten seconds, and answers the page with what was seen."""

import re
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from turbod import heartbeat
from turbod.archive.archive import Archive
from turbod.archive.catalogue import Held
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.names import Name
from turbod.archive.stores.store import StoreFault
from turbod.eventlog.log import PlainHour
from turbod.lookback import calendar
from turbod.lookback.calendar import Contents
from turbod.lookback.faults import faults, moments
from turbod.lookback.incidents import Incidents
from turbod.lookback.samples import SAMPLE_SECONDS, Samples
from turbod.report import Snapshot

INDEX_SECONDS: Final = 60.0  # longest wait for what one object says of itself
WANTED_SECONDS: Final = 60.0  # for which hours are looked into after somebody asked
RETRY_SECONDS: Final = 30.0
HOURS_SECONDS: Final = 2.0  # for which the calendar is told as it was: it takes 10 ms

_after = re.compile(r"after=([0-9]{1,12})", re.ASCII).fullmatch
_encode = msgspec.json.Encoder().encode


class Lookback:
    """What was lately. It only looks: nothing depends on it.

    Args:
        snapshot: of all parts.
        archive: whose hours are shown, once it is open.
        plain_hours: those in the log's own files.
        now_us: our clock.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        archive: Archive,
        *,
        plain_hours: Callable[[], list[PlainHour]],
        now_us: Callable[[], int],
    ) -> None:
        self._snapshot = snapshot
        self._archive = archive
        self._plain_hours = plain_hours
        self._now_us = now_us
        self._samples = Samples()
        self._incidents = Incidents()
        self._before: Snapshot | None = None
        self._all: bytes | None = None
        self._contents: dict[Name, Contents | None] = {}
        self._hours = b""
        self._hours_until = float("-inf")
        self._wanted = trio.Event()
        self._wanted_until = float("-inf")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample)
            nursery.start_soon(self._look_into_hours)
            task_status.started()

    def samples(self, query: str) -> bytes | None:
        """Return the samples as JSON, those after a second if one is given; None if it is none."""
        match = _after(query)
        if query and match is None:
            return None
        if match is not None:
            return self._told(int(match[1]))
        if self._all is None:
            self._all = self._told(0)
        return self._all

    def hours(self, query: str) -> bytes | None:
        """Return the calendar as JSON; None for a query, as it takes none."""
        if query:
            return None
        self._wanted_until = trio.current_time() + WANTED_SECONDS
        self._wanted.set()
        if trio.current_time() >= self._hours_until:
            self._hours = self._told_hours()
            self._hours_until = trio.current_time() + HOURS_SECONDS
        return self._hours

    def _told_hours(self) -> bytes:
        now_us, catalogue = self._now_us(), self._archive.catalogue
        objects = self._shown()
        shown = calendar.hours(
            objects,
            self._plain_hours(),
            self._contents,
            conflicts={held.name.hour for held in objects if catalogue.is_in_conflict(held)},
            now_us=now_us,
        )
        is_whole = all(held.name in self._contents for held in objects)
        return _encode({"now": now_us, "is_whole": is_whole, "hours": shown})

    def look(self) -> None:
        """Take a sample; the first look has none to compare with."""
        seen, before = self._snapshot(), self._before
        if before is not None:
            self._samples.add(seen, before)
            for what, words in moments(seen, before).items():
                self._incidents.happened(what, words, now_us=seen.now_us)
        self._incidents.look(faults(seen, before or seen), now_us=seen.now_us)
        self._before, self._all = seen, None

    def _told(self, after: int) -> bytes:
        return _encode(
            {
                "step_seconds": SAMPLE_SECONDS,
                **self._samples.since(after),
                "incidents": self._incidents.newest_first(),
            }
        )

    async def _sample(self) -> None:
        with heartbeat.beating("samples"):
            while True:
                self.look()
                await heartbeat.sleep(SAMPLE_SECONDS)

    async def _look_into_hours(self) -> None:
        """Read, while somebody looks, what objects say of themselves: the newest first."""
        with heartbeat.beating("calendar"):
            while True:
                await heartbeat.wait(self._wanted)
                self._wanted = trio.Event()
                while trio.current_time() < self._wanted_until and await self._look_into_one():
                    heartbeat.beat()

    async def _look_into_one(self) -> bool:
        """Read the next one's index; False where all is known, or the store does not answer."""
        shown = self._shown()
        self._forget({held.name for held in shown})
        held = next((each for each in shown if each.name not in self._contents), None)
        if held is None:
            return False
        try:
            with heartbeat.allowing(INDEX_SECONDS), trio.fail_after(INDEX_SECONDS):
                index = await self._archive.history.index(held)
        except Damaged:
            self._contents[held.name] = None
        except (StoreFault, trio.TooSlowError):
            await heartbeat.sleep(RETRY_SECONDS)
            return False
        else:
            gaps = index.gaps[: calendar.MAX_GAPS]
            self._contents[held.name] = Contents(index.records, index.previous, gaps)
        return True

    def _shown(self) -> list[Held]:
        return self._archive.catalogue.since(calendar.shown_since(self._now_us()))

    def _forget(self, shown: set[Name]) -> None:
        """Keep nothing of objects that are shown no longer."""
        for name in self._contents.keys() - shown:
            del self._contents[name]
