"""Three acts: troubles and deaths, troubles that one process lives through, and calm."""

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio
from benchmarks.figures import Figure, claim, say

from soaking.levels import (
    MEGABYTE,
    Counted,
    Level,
    beyond_bounds,
    calm_agrees,
    count,
    level,
    level_figures,
    log_agrees,
)
from soaking.readers import Reader
from soaking.reckoning import reckon
from soaking.stage import Stage, stage
from soaking.troubles import DISORDERLY, TROUBLES, UNRESOLVED, plan
from tests.acceptance.archive_trace import run as archive_command
from tests.acceptance.restless import wish
from tests.acceptance.scrape import scrape
from tests.acceptance.settling import until
from turbod.simulation.history import entry

HOUR_EVENTS: Final = 40_000
FEWEST_HOURS: Final = 20
HOUR_SECONDS: Final = 4.0  # at least, so that what goes wrong has something to spoil
BATCH: Final = 100
WINDOW: Final = 6_000  # events under way at most: as quick as turbod takes them
DEATHS, CALM = 0.25, 0.15  # shares of the hours
VISITORS: Final = 2
QUIET_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.01


class Soak:
    """One run."""

    def __init__(self, made: Stage, *, events: int, dice: random.Random) -> None:
        self.stage = made
        self.levels: list[Level] = []
        self._dice = dice
        self._hour_number = 0
        self._hours = max(FEWEST_HOURS, events // HOUR_EVENTS)
        self._hour_events = events // self._hours
        port = made.turbod.port
        self._witness = Reader(port, name="the witness", ledger=made.ledger)
        self._restless = [Reader(port, name=f"restless {number}") for number in range(3)]
        self._readers = [self._witness, *self._restless]

    async def run(self) -> list[Figure]:
        """Run it, and return what came out."""
        begun = trio.current_time()
        made, dice = self.stage, self._dice
        deaths, calm = int(self._hours * DEATHS), int(self._hours * CALM)
        async with self._reading():
            for names in plan(dice, deaths, lethal=True, can_fill=made.can_fill):
                await self._hour(names)
            assert await made.turbod.stop() == 0
            await made.turbod.start()
            await self._quiet()
            await self._all_live()
            reborn = await self._count()
            lasting = self._hours - deaths - calm
            for names in plan(dice, lasting, lethal=False, can_fill=made.can_fill):
                await self._hour(names)
                self.levels.append(await level(made.turbod))
            await self._quiet()
            calmed = await self._count()
            for _ in range(calm):
                await self._hour([])
                self.levels.append(await level(made.turbod))
            self._happen(BATCH)  # so that the last hour is over
            await self._quiet()
            await self._stored()
            ended = await self._count()
        seconds = trio.current_time() - begun
        code = await made.turbod.stop()
        return [
            *self._told(reborn, calmed, ended),
            Figure("it took", seconds, "s"),
            Figure("events a second", made.ledger.delivered / seconds),
            claim("SIGTERM ends it with 0", holds=code == 0),
            *await self._reckoned(),
        ]

    def _told(self, reborn: Counted, calmed: Counted, ended: Counted) -> Iterator[Figure]:
        yield from level_figures(self.levels)
        yield from log_agrees(reborn, ended)
        urls = [host.url for host in self.stage.simulation.jetstreams]
        yield from calm_agrees(calmed, ended, urls)

    async def _reckoned(self) -> list[Figure]:
        """Read everything plainly, and compare it with what everybody got."""
        made = self.stage
        ledger = made.ledger
        ledger.check_nothing_left()
        records, words = await trio.to_thread.run_sync(
            reckon, made.turbod.data, made.place, self._readers
        )
        verified = await trio.to_thread.run_sync(archive_command, "verify", *made.place.words)
        for complaint in (*ledger.faults, *words):
            say(f"  ! {complaint}")
        if verified.returncode:
            say(f"  ! {verified.stdout.decode()}{verified.stderr.decode()}")
        gaps = sum(len(reader.gaps) for reader in self._readers)
        happened = sum(ledger.kinds.values())
        connections = sum(len(reader.ends) for reader in self._readers)
        return [
            Figure("events for the log", happened),
            Figure("processes", made.turbod.starts),
            Figure("readers", len(self._readers)),
            Figure("connections that ended", connections),
            Figure("records that all of them were sent", self._read()),
            Figure("views left out while the AppView was ill", ledger.excused),
            Figure("views left out otherwise", ledger.unresolved, at_most=0),
            claim("each event was delivered once, in order", holds=not ledger.faults),
            claim("disk and archive have each once", holds=records == happened),
            claim("everybody got what a plain scan selects", holds=not words),
            claim("archive verify is content", holds=not verified.returncode),
            claim("nobody was told of a gap", holds=not gaps),
        ]

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            for reader in self._readers:
                await nursery.start(reader.run)
            await self._all_connected()
            yield
            await self._quiet()
            nursery.cancel_scope.cancel()

    async def _hour(self, names: Sequence[str]) -> None:
        """Let an hour go by with troubles in it, clients coming and going; then all is quiet."""
        made = self.stage
        self._hour_number += 1
        made.ledger.is_good = UNRESOLVED.isdisjoint(names)
        made.ledger.is_ordered = DISORDERLY.isdisjoint(names)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(TROUBLES[name], made, self._dice)
            for reader in self._restless if names else ():
                nursery.start_soon(self._wander, reader)
            for _ in range(VISITORS if names else 0):
                nursery.start_soon(self._visit)
            await self._traffic()
        await self._delivered()
        seen = await scrape(made.turbod)
        for complaint in beyond_bounds(seen):
            made.ledger.complain(complaint)
        rate = self._hour_events / (trio.current_time() - begun)
        resident = seen("turbod_resident_bytes") / MEGABYTE
        words = ", ".join(names) or "calm"
        say(
            f"  hour {self._hour_number} of {self._hours}: {rate:7,.0f} events a second, "
            f"{resident:4.0f} MB  {words}"
        )
        made.clock.next_hour()

    async def _traffic(self) -> None:
        """Let the events of an hour happen, not more at once than turbod has at hand."""
        start = trio.current_time()
        for done in range(0, self._hour_events, BATCH):
            while self.stage.ledger.pending > WINDOW:  # noqa: ASYNC110 - there is no event
                await trio.sleep(POLL_SECONDS)
            await trio.sleep_until(start + HOUR_SECONDS * done / self._hour_events)
            self._happen(BATCH)

    def _happen(self, events: int) -> None:
        simulation, ledger = self.stage.simulation, self.stage.ledger
        now_us = self.stage.clock.now_us()
        for _ in range(events):
            happening = simulation.network.next_event(now_us)
            simulation.index.hear(happening)
            simulation.history.append(entry(happening))
            ledger.happened(happening)
        simulation.history.wake()

    async def _wander(self, reader: Reader) -> None:
        await reader.wander(self._dice, self.stage.simulation, seconds=HOUR_SECONDS)

    async def _visit(self) -> None:
        """Somebody comes with a filter, reads from somewhere in the past, and goes."""
        await trio.sleep(self._dice.uniform(0, HOUR_SECONDS / 2))
        cursors = ("0", self._witness.cursor, self._dice.choice(self._readers).cursor)
        visitor = Reader(
            self.stage.turbod.port,
            name=f"visitor {len(self._readers)}",
            wish=wish(self._dice, self.stage.simulation),
            cursor=self._dice.choice(cursors),
        )
        with trio.move_on_after(self._dice.uniform(0.5, HOUR_SECONDS / 2)):
            await visitor.run()
        if visitor.start is not None:
            self._readers.append(visitor)

    async def _delivered(self) -> None:
        """Wait until the witness has everything, and everybody steady is connected."""
        ledger = self.stage.ledger
        try:
            await until(lambda: not ledger.pending, seconds=QUIET_SECONDS, what="all delivered")
        except AssertionError:
            ledger.check_nothing_left()
            say("\n".join(ledger.faults))
            raise
        await self._all_connected()

    async def _quiet(self) -> None:
        """Wait until everybody has everything; whose filter finds nothing is told every 5 s."""
        await self._delivered()
        head = int(self._witness.cursor)
        await until(
            lambda: all(int(reader.cursor) >= head for reader in self._restless),
            seconds=QUIET_SECONDS,
            what="all readers at the head",
        )

    async def _all_connected(self) -> None:
        await until(
            lambda: all(reader.may_change() for reader in (self._witness, *self._restless)),
            seconds=QUIET_SECONDS,
            what="all readers connected",
        )

    async def _all_live(self) -> None:
        """Wait until no host repeats any more what was before: what is not logged counts anew."""

        async def are_live() -> bool:
            return all(host["state"] == "live" for host in (await self._status())["hosts"])

        await until(are_live, seconds=QUIET_SECONDS, what="all hosts live")

    async def _status(self) -> dict[str, Any]:
        return await self.stage.turbod.status()

    async def _stored(self) -> None:
        """Wait until every hour but the newest is in the archive."""

        async def is_stored() -> bool:
            archiver = (await self._status())["archive"]["archiver"]
            stored = archiver["stored_hours"] >= self._hours - 1
            return bool(stored and not archiver["hours_waiting"])

        await until(is_stored, seconds=400, what="all hours stored")

    async def _count(self) -> Counted:
        return await count(self.stage, self._read())

    def _read(self) -> int:
        return sum(reader.digest.count for reader in self._readers)


async def soak(folder: Path, *, events: int, seed: int) -> list[Figure]:
    """Set up, run, reckon."""
    async with stage(folder, seed=seed) as made:
        dice = random.Random(seed)  # noqa: S311 - the same seed, the same troubles
        return await Soak(made, events=events, dice=dice).run()
