"""Six hours that are over, run through a real turbod in seconds, and all that it gave out."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.acceptance.follower import Follower, cursor_of
from tests.acceptance.plain_scan import is_wanted
from tests.acceptance.process import REPOSITORY, Turbod, serving
from tests.acceptance.settling import until
from turbod.simulation.network import MOSTLY_POSTS, Network
from turbod.simulation.world import Simulation, simulated

HOUR_US = 3_600_000_000
SIZES = (300, 400, 200, 12, 1_200, 250)  # events of each hour; all of the quiet one come late
QUIET, BUSY = 3, 4
PADDING_BYTES = 8_000  # in each post of the busy hour, which so takes several frames
PAGE = 1_000


@dataclass(frozen=True)
class Raced:
    """What came out of one run.

    Attributes:
        base: the first microsecond of the six hours.
        events: all that the upstreams sent that was for the log, in order.
        delivered: to a subscriber that was there from the beginning, live.
        gaps: that it was told of.
        tailed: what `turbod tail --cursor 0` printed afterwards.
        paged: what page after page of /records had.
        fetched: what `turbod archive get` had from the running turbod.
        status: its /status at the end.
        upstreams: the hosts that it read.
    """

    base: int
    events: list[dict[str, Any]]
    delivered: list[bytes]
    gaps: list[dict[str, Any]]
    tailed: list[bytes]
    paged: list[bytes]
    fetched: subprocess.CompletedProcess[bytes]
    status: dict[str, Any]
    upstreams: list[str]

    def hour(self, number: int) -> int:
        """Return the first microsecond of one of the six hours."""
        return self.base + number * HOUR_US

    @property
    def archived(self) -> list[bytes]:
        """What was delivered of hours that are over: all but the newest record's."""
        current = cursor_of(self.delivered[-1]) // HOUR_US
        return [line for line in self.delivered if cursor_of(line) // HOUR_US < current]


async def race(data: Path, options: Mapping[str, object]) -> Raced:
    """Let six hours and then an event of now arrive; wait for the archive; read it all again."""
    async with _racing(data, options) as racing:
        for step in arrivals(racing.network, racing.base):
            await racing.arrive(step)
        return await racing.finish()


async def race_with_a_loss(data: Path) -> Raced:
    """Let an hour arrive whose middle no host has any more, the next one, and an event of now."""
    async with _racing(data, {}) as racing:
        first, second = (_hour(racing.network, racing.base + n * HOUR_US, 150) for n in range(2))
        await racing.arrive(first[:50])
        await trio.sleep(1.5)  # for the positions to be saved
        await racing.turbod.kill()
        racing.simulation.feed(first[50:100], indexed=True)
        for host in racing.simulation.jetstreams:
            host.lose_history()
        await racing.turbod.start()
        await until(racing.live.connected.is_set, seconds=20, what="back")
        await racing.arrive(first[100:])
        await racing.arrive(second)
        return await racing.finish()


@asynccontextmanager
async def _racing(data: Path, options: Mapping[str, object]) -> AsyncIterator["_Racing"]:
    """Run turbod with somebody who follows it from its beginning."""
    base = (time.time_ns() // 1000 // HOUR_US - 7) * HOUR_US
    network = Network(seed=31, accounts=200, mix=MOSTLY_POSTS, now_us=base)
    settings = {"hydration-calls-per-second": 1000, "archive-public": "true", **options}
    async with (
        simulated(network=network) as simulation,
        serving(simulation, data, options=settings) as turbod,
        trio.open_nursery() as nursery,
    ):
        live = Follower(turbod.port)
        await nursery.start(live.run)
        await live.connected.wait()
        yield _Racing(base, network, simulation, turbod, live)
        assert await turbod.stop() == 0
        nursery.cancel_scope.cancel()


@dataclass
class _Racing:
    """A run under way.

    Attributes:
        events: what arrived so far that is for the log.
    """

    base: int
    network: Network
    simulation: Simulation
    turbod: Turbod
    live: Follower
    events: list[dict[str, Any]] = field(default_factory=list)

    async def arrive(self, messages: Sequence[bytes]) -> None:
        """Let messages arrive, and wait until all are delivered."""
        self.simulation.feed(messages, indexed=True)
        self.events += [event for event in map(json.loads, messages) if is_wanted(event)]
        await until(
            lambda: len(self.live.lines) >= len(self.events), seconds=30, what="all delivered live"
        )

    async def finish(self) -> Raced:
        """Let the last hour end by an event of now, and read all that there is."""
        live, turbod = self.live, self.turbod
        await self.arrive(_now(self.network))
        await _archived(turbod, live.lines)
        raced = Raced(
            base=self.base,
            events=self.events,
            delivered=list(live.lines),
            gaps=live.gaps,
            tailed=await _tailed(turbod.port, len(live.lines)),
            paged=await _paged(turbod),
            fetched=await trio.to_thread.run_sync(run, "get", f"http://127.0.0.1:{turbod.port}"),
            status=await turbod.status(),
            upstreams=[host.url for host in self.simulation.jetstreams],
        )
        assert turbod.starts > 1 or not live.ends, "one connection saw it all"
        return raced


def arrivals(network: Network, base: int) -> list[list[bytes]]:
    """Return the messages of six hours in steps: each comes when the one before was delivered.

    Every hour keeps some back, which come during later hours, with the `time_us` that they have.
    The quiet hour keeps all back. The last microsecond of the first hour is taken, so that what
    comes late behind it begins the second.
    """
    hours = [_hour(network, base + n * HOUR_US, size) for n, size in enumerate(SIZES)]
    hours[BUSY] = [_padded(message, n) for n, message in enumerate(hours[BUSY])]
    late = [[hour.pop(len(hour) // 2) for _ in range(12)] for hour in hours]
    hours[0].append(_at(_taken(hours[0]), base + HOUR_US - 1))
    hours[1].insert(0, _at(_taken(hours[1]), base + HOUR_US))
    return [
        hours[0],
        late[0][:4],
        [*hours[1][:200], *late[0][4:8], *hours[1][200:]],
        [*late[1][:6], *hours[2]],
        [*hours[4][:9], *late[QUIET], *late[2], *hours[4][9:]],
        [*late[4], *hours[5][:99], *late[0][8:], *late[1][6:], *hours[5][99:], *late[5]],
    ]


def run(action: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `turbod archive` to its end, as a process of its own."""
    command = [sys.executable, "-m", "turbod", "archive", action, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)


def _hour(network: Network, begin: int, count: int) -> list[bytes]:
    """Return so many messages spread over an hour, its last seconds apart."""
    step = (HOUR_US - 10_000_000) // count
    return [network.next_event(begin + place * step).message() for place in range(1, count + 1)]


def _now(network: Network) -> list[bytes]:
    """Return messages of now, up to the first that is for the log."""
    messages: list[bytes] = []
    while not messages or not is_wanted(json.loads(messages[-1])):
        messages.append(network.next_event(time.time_ns() // 1000).message())
    return messages


def _padded(message: bytes, number: int) -> bytes:
    words = b" ".join(b"%x" % (number * place * 2_654_435_761) for place in range(1, 900))
    return message.replace(b'"text":"', b'"text":"%b ' % words[:PADDING_BYTES], 1)


def _taken(messages: list[bytes]) -> bytes:
    """Take the last message that is for the log."""
    place = max(n for n, message in enumerate(messages) if is_wanted(json.loads(message)))
    return messages.pop(place)


def _at(message: bytes, time_us: int) -> bytes:
    return re.sub(rb'"time_us":\d+', b'"time_us":%d' % time_us, message, count=1)


async def _archived(turbod: Turbod, lines: Sequence[bytes]) -> None:
    """Wait until every hour but the newest is in the archive."""
    hours = len({cursor_of(line) // HOUR_US for line in lines}) - 1

    async def are_stored() -> bool:
        archiver = (await turbod.status())["archive"]["archiver"]
        return bool(archiver["stored_hours"] >= hours and archiver["hours_waiting"] == 0)

    await until(are_stored, seconds=30, what=f"{hours} hours stored")


async def _tailed(port: int, count: int) -> list[bytes]:
    """Return what `turbod tail --cursor 0` prints, as far as `count` lines and a little more."""
    command = [sys.executable, "-m", "turbod", "tail", "--cursor", "0", f"ws://127.0.0.1:{port}"]
    process = await trio.lowlevel.open_process(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    printed = bytearray()
    found = 0
    with trio.move_on_after(30):
        while found < count and (piece := await process.stdout.receive_some(1 << 20)):
            printed += piece
            found += piece.count(b"\n")
    process.send_signal(signal.SIGINT)
    with trio.move_on_after(10):  # what it says beyond them would be too much
        async for piece in process.stdout:
            printed += piece
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    return bytes(printed).split(b"\n")[:-1]


async def _paged(turbod: Turbod) -> list[bytes]:
    """Return what /records has, page after page, from the oldest on."""
    lines: list[bytes] = []
    cursor = 0
    while True:
        status, body = await turbod.get(f"/records?cursor={cursor}&limit={PAGE}")
        assert status == 200, body
        page = body.split(b"\n")[:-1]
        if not page:
            return lines
        lines += page
        cursor = cursor_of(page[-1])
