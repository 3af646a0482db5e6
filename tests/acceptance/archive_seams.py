"""Hours raced through a real turbod, and subscribers who ask for any place in them.

The clock is the test's: an hour passes when it says so, for turbod and the network alike. Frames
are small, so that an hour has many; few bytes of hours stay on the disk, so that most are read
from the archive.
"""

import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import groupby
from pathlib import Path
from typing import Literal

import trio
import zstandard
from websockets.frames import Frame, Opcode

from tests.acceptance.archive_clock import HOUR_US, Clock, archive_place, location
from tests.acceptance.archive_places import Place
from tests.acceptance.archive_plain import take_apart
from tests.acceptance.follower import MAX_MESSAGE_BYTES, Follower, Wish, cursor_of
from tests.acceptance.plain_scan import differences, events_of, is_wanted, logged, sent
from tests.acceptance.process import Turbod, serving
from tests.acceptance.restless import Restless
from tests.acceptance.settling import until
from tests.archive.faulty_s3 import FaultyS3
from tests.archive.s3_servers import rclone_server
from turbod.simulation.world import Simulation, simulated

Kind = Literal["folder", "rclone"]

BURST = 60
FRAME_BYTES = 64 * 1024  # some 20 records
ANSWER_SECONDS = 3.0
SLOP_US = 5_000_000  # between reading the cursor and the first message
# It looks every half second whether an hour ended quietly, makes small frames, keeps fewer bytes of
# them in memory than can be set, and does not wait long for an answer of its store.
PROGRAM = f"""
from turbod.archive.upload import archiver
from turbod.archive.reading import history
from turbod.archive import sealer, sealing
sealer.CHECK_SECONDS = 0.5
sealing.seal.__kwdefaults__["frame_bytes"] = {FRAME_BYTES}
kept_in_memory = history.History.__init__
def remember_less(self, *arguments, read_ahead_bytes, **more):
    kept_in_memory(self, *arguments, read_ahead_bytes={4 * FRAME_BYTES}, **more)
history.History.__init__ = remember_less
archiver.RELIST_SECONDS = 1.0
history.LONGEST_RETRY_SECONDS = 2.0
if any("s3://" in word for word in sys.argv):
    from turbod.archive.stores import s3
    s3.S3Store.__init__.__kwdefaults__.update(connect_seconds=2.0, answer_seconds={ANSWER_SECONDS})
cli.main()
"""


@dataclass(frozen=True)
class Asked:
    """A cursor as a client writes it, and the position that it stands for.

    Attributes:
        text: what goes behind `cursor=`.
        position: before floor and head bound it.
        ago: instead of a position, so many microseconds before the server's clock.
    """

    text: str
    position: int = 0
    ago: int = 0

    def range(self, now: int) -> tuple[int, int]:
        """Return the least and the greatest position, where the first `#cursor` says `now`."""
        if self.ago:
            return now - self.ago - SLOP_US, now - self.ago
        return self.position, self.position


class Seeker(Restless):
    """Begins anywhere, and checks that it is where it asked to be.

    Attributes:
        asked: where.
        most_records: that came in one message.
    """

    def __init__(
        self,
        port: int,
        asked: Asked,
        *,
        wish: Wish | None = None,
        batch: int = 0,
        compress: bool = False,
        read_bytes: int = 65536,
        pause_seconds: float = 0.0,
    ) -> None:
        super().__init__(
            port,
            wish=wish,
            cursor=asked.text,
            extra=[
                *([("batch", str(batch))] if batch else []),
                *([("compress", "zstd")] if compress else []),
            ],
            read_bytes=read_bytes,
            pause_seconds=pause_seconds,
        )
        self.asked = asked
        self.most_records = 0
        self._batch = batch or 100
        self._opcode = Opcode.BINARY if compress else Opcode.TEXT

    def check(self) -> None:
        """Fail unless it began where it asked to, was told so, and no message held too much."""
        first = self.news[0]
        floor, head = first["floor"], first["head"]
        low, high = self.asked.range(first["now"])
        bounded = [min(max(at, floor), head) for at in (low, high)]
        assert bounded[0] <= first["cursor"] <= bounded[1], (self.asked, first)
        is_outdated = any(told.get("name") == "OutdatedCursor" for told in self.news[:2])
        assert is_outdated in {0 < low < floor, 0 < high < floor}, (self.asked, self.news[:2])
        assert self.most_records <= self._batch

    def _whole(self, frame: Frame) -> bytes | None:
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            assert frame.opcode == self._opcode
            frame = Frame(Opcode.TEXT, frame.data, frame.fin)
        message = super()._whole(frame)
        if message is None or self._opcode == Opcode.TEXT:
            return message
        return zstandard.ZstdDecompressor().decompress(message, max_output_size=MAX_MESSAGE_BYTES)

    def _take(self, message: bytes, *, is_first: bool) -> None:
        before = len(self.lines)
        super()._take(message, is_first=is_first)
        self.most_records = max(self.most_records, len(self.lines) - before)


class Seams:
    """One turbod, its archive, and one who followed it from its first event on.

    Attributes:
        proxy: what stands between turbod and its bucket, where that is one.
    """

    def __init__(
        self,
        simulation: Simulation,
        turbod: Turbod,
        *,
        place: Place,
        clock: Clock,
        proxy: FaultyS3 | None,
        nursery: trio.Nursery,
    ) -> None:
        self.simulation = simulation
        self.turbod = turbod
        self.place = place
        self.clock = clock
        self.nursery = nursery
        self.live = Follower(turbod.port)
        self._expected = 0
        self._proxy = proxy

    @property
    def proxy(self) -> FaultyS3:
        """What stands between turbod and its bucket."""
        assert self._proxy is not None
        return self._proxy

    @property
    def lines(self) -> list[bytes]:
        """What was delivered live."""
        return self.live.lines

    @property
    def hours(self) -> list[list[bytes]]:
        """The same by hours."""
        return [list(each) for _, each in groupby(self.lines, hour_of)]

    @property
    def keys(self) -> list[str]:
        """The objects in the archive, oldest first."""
        return [key for key in self.place.listing() if key.endswith(".zst")]

    async def happen(self, events: int, *, burst: int = BURST) -> None:
        """Let so many events happen, each burst once the one before was delivered."""
        for begun in range(0, events, burst):
            emitted = self.simulation.emit(min(burst, events - begun))
            self._expected += sum(is_wanted(json.loads(message)) for message in emitted)
            await until(
                lambda: len(self.lines) >= self._expected, seconds=30, what="delivered live"
            )

    async def pass_hour(self, events: int, *, burst: int = BURST) -> None:
        """Let an hour pass, and so many events happen in the new one."""
        self.clock.advance()
        await self.happen(events, burst=burst)

    async def end_quietly(self) -> None:
        """Let the hour end though nothing happens."""
        newest = hour_of(self.lines[-1])
        self.clock.advance(2)

        async def is_over() -> bool:
            return not (self.turbod.data / "live" / f"{hour_name(newest)}.jsonl").exists()

        await until(is_over, seconds=20, what="an hour that ended quietly is sealed")

    async def archived(self) -> None:
        """Wait until every hour but the newest is in the archive."""
        hours = len({hour_of(line) for line in self.lines}) - 1

        async def are_they() -> bool:
            archiver = (await self.turbod.status())["archive"]["archiver"]
            return bool(archiver["stored_hours"] >= hours and not archiver["hours_waiting"])

        await until(are_they, seconds=40, what=f"{hours} hours stored")

    async def seek(self, seeker: Seeker) -> Seeker:
        """Let one begin, whether it is let in at once or not."""
        await self.nursery.start(seeker.run)
        return seeker

    def proxy_is_good(self) -> None:
        """Let the bucket be as good as it can."""
        if self._proxy is not None:
            self._proxy.be_good()

    def everything(self) -> list[bytes]:
        """Return every record on disk and in the archive, read plainly."""
        found = {cursor_of(line): line for line in logged(self.turbod.data)}
        for key in self.keys:
            for line in take_apart(self.place.read(key)).lines:
                assert found.setdefault(cursor_of(line), line) == line
        lines = [found[cursor] for cursor in sorted(found)]
        assert differences(sent(self.simulation), events_of(lines)) == ""
        return lines

    def frames(self) -> list[tuple[int, int]]:
        """Return the first and last cursor of each frame in the archive."""
        parts = [part for key in self.keys for part in take_apart(self.place.read(key)).parts]
        lines = [part.split(b"\n")[:-1] for part in parts]
        return [(cursor_of(each[0]), cursor_of(each[-1])) for each in lines]

    def positions(self, how: random.Random) -> list[Asked]:
        """Return positions of every kind, in no order."""
        ends = [(cursor_of(hour[0]), cursor_of(hour[-1])) for hour in self.hours]
        frames = self.frames()
        some = [cursor_of(line) for line in how.sample(self.lines, 12)]
        at = [
            *(cursor for first, last in ends for cursor in (first - 1, first, last, last + 1)),
            *(cursor for pair in how.sample(frames, min(6, len(frames))) for cursor in pair),
            *some,
            *(how.randrange(ends[0][0], ends[-1][1]) for _ in range(6)),
            ends[0][0] - 5 * HOUR_US,
            self.clock.now_us() + 30_000_000,
        ]
        found = [Asked("0"), *(Asked(str(cursor), cursor) for cursor in at)]
        found += [Asked(f"-{minutes}m", ago=minutes * 60_000_000) for minutes in (1, 150, 1500)]
        found.append(Asked("-3h", ago=3 * HOUR_US))
        found += [_time(cursor, zone) for cursor, zone in zip(some, (0, 2, -5), strict=False)]
        how.shuffle(found)
        return found


def hour_of(line: bytes) -> int:
    """Return the first microsecond of a record's hour."""
    return cursor_of(line) // HOUR_US * HOUR_US


def hour_name(hour: int) -> str:
    """Return an hour's name."""
    return datetime.fromtimestamp(hour // 1_000_000, UTC).strftime("%Y-%m-%dT%H")


def within(lines: Sequence[bytes], gap: Mapping[str, int]) -> list[bytes]:
    """Return the records in a gap."""
    return [line for line in lines if gap["after"] < cursor_of(line) < gap["before"]]


def lost_in_gaps(follower: Follower, lines: Sequence[bytes]) -> list[bytes]:
    """Return what the gaps cover that it was told of; fail where two of them overlap."""
    lost = [line for gap in follower.gaps for line in within(lines, gap)]
    assert len(lost) == len(set(lost)), "gaps do not overlap"
    return lost


def has_all_but_gaps(follower: Follower, lines: Sequence[bytes]) -> bool:
    """Tell whether it has what it asked for, and nothing else, but for what its gaps cover."""
    lost = set(lost_in_gaps(follower, lines))
    return follower.start is not None and follower.lines == [
        line for line in follower.expected(lines) if line not in lost
    ]


@asynccontextmanager
async def seams(
    folder: Path,
    kind: Kind = "folder",
    *,
    seed: int = 3,
    kept_bytes: int = 1,
    options: Mapping[str, object] | None = None,
    expected_fault: str = "",
) -> AsyncIterator[Seams]:
    """Run a turbod with an archive of this kind, followed by one subscriber.

    Args:
        folder: where all files go.
        kind: a folder beside the data, or a bucket on a real server behind a proxy.
        seed: of the network.
        kept_bytes: of hours on turbod's disk.
        options: settings by the names of their options.
        expected_fault: a line of the log that would otherwise fail the test.
    """
    data, clock = folder / "data", Clock(folder / "clock")
    with ExitStack() as stack:
        server = stack.enter_context(rclone_server()) if kind == "rclone" else None
        async with trio.open_nursery() as nursery:
            proxy, place = await archive_place(server, data, nursery)
            settings = {"hydration-calls-per-second": 1000, "log-memory-bytes": 2**20}
            async with (
                simulated(seed=seed, now_us=clock.now_us) as simulation,
                serving(
                    simulation,
                    data,
                    options={**settings, **location(proxy, place), **(options or {})},
                    program=clock.program(PROGRAM, kept_bytes=kept_bytes),
                    expected_fault=expected_fault,
                ) as turbod,
            ):
                found = Seams(
                    simulation,
                    turbod,
                    place=place,
                    clock=clock,
                    proxy=proxy,
                    nursery=nursery,
                )
                await nursery.start(found.live.run)
                await found.live.connected.wait()
                yield found
                assert not found.live.ends, "one connection saw it all"
                assert not found.live.gaps
            nursery.cancel_scope.cancel()


def _time(cursor: int, offset_hours: int) -> Asked:
    """Return a time with a zone, at or after which the record of this cursor is."""
    zone = timezone(timedelta(hours=offset_hours))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=cursor)
    return Asked(moment.astimezone(zone).isoformat(), cursor - 1)
