"""Hours raced through a real turbod while something is wrong with its archive, and the reckoning.

The clock is the test's: an hour passes when it says so, for turbod and the network alike.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import trio

from tests.acceptance.archive_clock import HOUR_US, Clock, archive_place, location
from tests.acceptance.archive_places import Place
from tests.acceptance.archive_plain import take_apart
from tests.acceptance.archive_trace import run
from tests.acceptance.follower import Follower, cursor_of
from tests.acceptance.plain_scan import (
    Key,
    differences,
    events_of,
    is_wanted,
    key_of,
    line_differences,
    logged,
    sent,
)
from tests.acceptance.process import Turbod, serving
from tests.acceptance.settling import until
from tests.archive.faulty_s3 import FaultyS3
from tests.archive.s3_servers import S3Server, moto_server, rclone_server
from turbod.simulation.world import Simulation, simulated

Kind = Literal["folder", "rclone", "moto"]

EVENTS = 60  # an hour
BURST = 20
STALL_SECONDS = 3.0  # what live may take at most, on a loaded machine
DELIVERY_SECONDS = 30.0
# It waits less for a store that does not answer. Where few hours are kept, what takes a millisecond
# takes twenty more, so that whoever kills it hits that as well.
RACED = """
import trio
from turbod.archive import archive
from turbod.archive.upload import archiver
archiver.LONGEST_RETRY_SECONDS = 2.0
archive.FIRST_OPEN_SECONDS = archive.OPEN_SECONDS = 3.0
if kept:
    from turbod.archive import sealing
    read_back, put_away = sealing._read_back, archiver.Archiver._put_away
    def read_back_late(*given):
        time.sleep(0.02)
        read_back(*given)
    async def put_away_late(*given, **more):
        await trio.sleep(0.02)
        await put_away(*given, **more)
    sealing._read_back, archiver.Archiver._put_away = read_back_late, put_away_late
if any("s3://" in word for word in sys.argv):
    from turbod.archive.stores import s3
    s3.S3Store.__init__.__kwdefaults__.update(connect_seconds=2.0, answer_seconds=3.0)
cli.main()
"""


class Race:
    """One turbod, its archive, and whoever was there live from the beginning.

    Attributes:
        simulation: the network.
        turbod: what is tried.
        live: subscribers from the first event on.
        place: where the archive is, behind turbod's back.
        proxy: what stands between turbod and its bucket, where that is one.
        slowest_seconds: the longest that a burst took to everybody.
    """

    def __init__(
        self,
        simulation: Simulation,
        turbod: Turbod,
        place: Place,
        clock: Clock,
        proxy: FaultyS3 | None,
        nursery: trio.Nursery,
    ) -> None:
        self.simulation = simulation
        self.turbod = turbod
        self.place = place
        self.clock = clock
        self.live: list[Follower] = []
        self.slowest_seconds = 0.0
        self._keys: set[Key] = set()  # two of these may be one event
        self._nursery = nursery
        self._scopes: dict[Follower, trio.CancelScope] = {}
        self._proxy = proxy

    @property
    def proxy(self) -> FaultyS3:
        """What stands between turbod and its bucket."""
        assert self._proxy is not None
        return self._proxy

    @property
    def expected(self) -> int:
        """How many records everybody live has, once all is delivered."""
        return len(self._keys)

    @property
    def lines(self) -> list[bytes]:
        """The records that were delivered live."""
        return self.live[0].lines

    async def follow(self, turbod: Turbod | None = None, *, cursor: str = "0") -> Follower:
        """Return a new subscriber that is connected."""
        follower = Follower((turbod or self.turbod).port, cursor=cursor)
        self._scopes[follower] = trio.CancelScope()
        await self._nursery.start(self._run, follower)
        await until(lambda: follower.start is not None, seconds=20, what="connected")
        return follower

    def leave(self, *followers: Follower) -> None:
        """Let subscribers hang up for good."""
        for follower in followers:
            self._scopes.pop(follower).cancel()
        self.live = [each for each in self.live if each not in followers]

    def happen(self, events: int = EVENTS) -> None:
        """Let so many events happen; nobody waits."""
        emitted = map(json.loads, self.simulation.emit(events))
        self._keys |= {key_of(event) for event in emitted if is_wanted(event)}

    async def delivered(self) -> None:
        """Wait until everybody live has everything."""
        try:
            await until(
                lambda: all(len(each.lines) >= self.expected for each in self.live),
                seconds=DELIVERY_SECONDS,
                what=f"{self.expected} records delivered",
            )
        except AssertionError as error:
            counts = [len(each.lines) for each in self.live]
            words = differences(sent(self.simulation), events_of(self.lines))
            status = json.dumps(await self.turbod.status())
            raise AssertionError(f"{error}, but {counts}: {words}\n{status}") from None

    async def hours(self, count: int = 1, *, events: int = EVENTS) -> None:
        """Let hours pass, each full of events, everybody having one burst before the next."""
        for _ in range(count):
            self.clock.advance()
            for _ in range(0, events, BURST):
                began = trio.current_time()
                self.happen(min(BURST, events))
                await self.delivered()
                self.slowest_seconds = max(self.slowest_seconds, trio.current_time() - began)

    async def archive(self) -> dict[str, Any]:
        """Return what /status says of the archive."""
        found: dict[str, Any] = (await self.turbod.status())["archive"]
        return found

    async def archiver(self) -> dict[str, Any]:
        """Return what /status says of what goes to the archive."""
        found: dict[str, Any] = (await self.archive())["archiver"]
        return found

    async def waits(self, hours: int) -> None:
        """Wait until at least so many hours wait for the archive."""

        async def do_they() -> bool:
            return bool((await self.archiver())["hours_waiting"] >= hours)

        await until(do_they, seconds=20, what=f"{hours} hours wait")

    async def stored(self, *, seconds: float = 30.0) -> None:
        """Wait until every hour but the newest is in the archive, and all is well."""
        hours = len({cursor_of(line) // HOUR_US for line in self.lines}) - 1

        async def are_they() -> bool:
            archiver = await self.archiver()
            is_all = archiver["stored_hours"] >= hours and not archiver["hours_waiting"]
            return bool(is_all and archiver["state"] == "ok" and archiver["fault"] is None)

        try:
            await until(are_they, seconds=seconds, what=f"{hours} hours stored")
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.archiver()}") from None

    def told(self, event: str) -> list[str]:
        """Return the lines of turbod's log that tell of this."""
        return [
            line for line in self.turbod.output.splitlines() if f" event={event} " in f"{line} "
        ]

    def check_delivered(self) -> None:
        """Fail unless everybody live had all that was sent, once, in time and without a gap."""
        for follower in self.live:
            _none(differences(sent(self.simulation), events_of(follower.lines)))
            assert not follower.gaps, follower.gaps
        assert self.slowest_seconds < STALL_SECONDS, self.slowest_seconds

    def check_kept(self) -> None:
        """Fail unless disk and archive together have what was delivered, to the byte."""
        _none(line_differences(self.lines, everything(self.turbod.data, self.place)))

    async def check_history(self) -> None:
        """Fail unless one who comes now is served it all, to the byte."""
        late = await self.follow()
        await until(lambda: len(late.lines) >= len(self.lines), seconds=30, what="all served again")
        _none(line_differences(self.lines, late.lines))
        assert not late.gaps, late.gaps
        self.leave(late)

    async def check_archive(self) -> None:
        """Fail unless `turbod archive verify` is content."""
        verified = await trio.to_thread.run_sync(run, "verify", *self.place.words)
        assert verified.returncode == 0, (verified.stdout, verified.stderr)

    async def check(self) -> None:
        """Fail unless nothing was lost, nothing is twice, all is stored and served again."""
        await self.stored()
        self.check_delivered()
        self.check_kept()
        await self.check_archive()
        await self.check_history()

    async def _run(
        self, follower: Follower, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with self._scopes[follower]:
            await follower.run(task_status=task_status)


def _none(differences: str) -> None:
    if differences:
        raise AssertionError(differences)


def everything(data: Path, place: Place) -> list[bytes]:
    """Return every record on disk and in the archive; each cursor has one line."""
    found = {cursor_of(line): line for line in logged(data)}
    for line in stored_lines(place):
        assert found.setdefault(cursor_of(line), line) == line, f"two records of {cursor_of(line)}"
    return [found[cursor] for cursor in sorted(found)]


def stored_lines(place: Place) -> list[bytes]:
    """Return every record in the archive, read plainly, in order of its keys."""
    keys = [key for key in place.listing() if key.endswith(".jsonl.zst")]
    return [line for key in keys for line in take_apart(place.read(key)).lines]


@asynccontextmanager
async def racing(
    folder: Path,
    kind: Kind = "folder",
    *,
    seed: int = 3,
    start: bool = True,
    kept_bytes: int = 0,
    options: Mapping[str, object] | None = None,
    data: Path | None = None,
    expected_fault: str = "",
) -> AsyncIterator[Race]:
    """Run a turbod with an archive of this kind, followed by one subscriber.

    Args:
        folder: where all files go.
        kind: a folder beside the data, or a bucket on a real server behind a proxy.
        seed: of the network.
        start: whether turbod runs, and is followed, already when the block begins.
        kept_bytes: of hours on its disk; 0 for the default.
        options: settings by the names of their options.
        data: the data folder, where it is not in `folder`.
        expected_fault: a line of the log that would otherwise fail the test.
    """
    data = data or folder / "data"
    clock = Clock(folder / "clock")
    with ExitStack() as stack:
        server: S3Server | None = None
        if kind != "folder":
            make = {"rclone": rclone_server, "moto": moto_server}[kind]
            server = stack.enter_context(make())
        async with trio.open_nursery() as nursery:
            proxy, place = await archive_place(server, data, nursery)
            settings = {"hydration-calls-per-second": 1000, **location(proxy, place)}
            async with (
                simulated(seed=seed, now_us=clock.now_us) as simulation,
                serving(
                    simulation,
                    data,
                    options={**settings, **(options or {})},
                    start=start,
                    program=clock.program(RACED, kept_bytes=kept_bytes),
                    expected_fault=expected_fault,
                ) as turbod,
            ):
                race = Race(simulation, turbod, place, clock, proxy, nursery)
                if start:
                    race.live.append(await race.follow())
                yield race
            nursery.cancel_scope.cancel()
