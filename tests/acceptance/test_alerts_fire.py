"""Each alert fires under the fault that it is for, on what a real turbod says, and not before."""

import resource
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from tests.acceptance.alerting import WELL_SECONDS, firing, stretch
from tests.acceptance.process import Turbod, serving
from tests.acceptance.scrape import Scrape, scrape
from tests.acceptance.settling import until
from turbod.simulation.world import Simulation, simulated

RATE = 200
# `turbod` in which what a file in a folder names goes wrong while that is there.
FRAIL = """
import os, pathlib, sys, time
from turbod import cli, heartbeat
from turbod.hydration.hydrator import Hydrator
from turbod.server.connection import Connections
folder = pathlib.Path(sys.argv.pop(1))
heartbeat.TICK_SECONDS, heartbeat.SILENT_SECONDS, heartbeat.LOOKS_PER_TICK = 1.0, 3.0, 4
sync, watch, serve = os.fdatasync, Hydrator._watch_lag, Connections._serve
def is_on(name):
    return (folder / name).exists()
def sync_or_hang(descriptor):
    time.sleep(1.5 * is_on("slow"))
    while is_on("hang"):
        time.sleep(0.01)
    sync(descriptor)
def watch_or_block(hydrator):
    time.sleep(1.0 * is_on("block"))
    watch(hydrator)
def serve_or_fail(connections, *given):
    if is_on("fail"):
        (folder / "fail").unlink()
        raise RuntimeError("made to fail")
    return serve(connections, *given)
os.fdatasync, Hydrator._watch_lag, Connections._serve = sync_or_hang, watch_or_block, serve_or_fail
cli.main()
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@dataclass
class Place:
    """What a fault may touch."""

    simulation: Simulation
    turbod: Turbod
    folder: Path
    nursery: trio.Nursery

    def switch(self, name: str) -> None:
        """Let it go wrong."""
        (self.folder / name).touch()

    async def sees(self, what: str, condition: Callable[[Scrape], bool]) -> None:
        """Wait until /metrics says so."""

        async def does_it() -> bool:
            return condition(await scrape(self.turbod))

        await until(does_it, seconds=30, what=what)


Act = Callable[[Place], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """How it comes about, and the alerts that fire."""

    act: Act
    alerts: set[str]
    options: Mapping[str, object] = field(default_factory=dict)
    expected_fault: str = ""


async def all_hosts_go_down(place: Place) -> None:
    for host in place.simulation.jetstreams:
        host.go_down()
    await place.sees("stalled", lambda seen: seen("turbod_upstream_state", state="stalled") == 1)


async def one_host_goes_down(place: Place) -> None:
    place.simulation.jetstreams[1].go_down()
    await trio.sleep(1)


async def one_host_hangs_up(place: Place) -> None:
    """Once between two looks, and so a thousand times in the half hour that this stands for."""

    async def drop() -> None:
        await trio.sleep(0.5)
        place.simulation.jetstreams[1].drop_connections()

    place.nursery.start_soon(drop)


async def one_host_is_blind(place: Place) -> None:
    place.simulation.jetstreams[1].faults.blind_fraction = 0.4


async def one_host_is_late(place: Place) -> None:
    place.simulation.jetstreams[1].stamp(-60)
    await trio.sleep(1)


async def all_hosts_are_late(place: Place) -> None:
    for host in place.simulation.jetstreams:
        host.stamp(-300)
    await trio.sleep(1)


async def one_host_sends_rubbish(place: Place) -> None:
    place.simulation.jetstreams[1].faults.poison_every = 5
    await trio.sleep(1)


async def events_are_lost(place: Place) -> None:
    await trio.sleep(2)  # for positions to be saved
    await place.turbod.kill()
    place.simulation.emit(200)
    for host in place.simulation.jetstreams:
        host.lose_history()
    await place.turbod.start()
    await place.sees("a gap", lambda seen: seen("turbod_upstream_gaps_total") > 0)


async def the_appview_goes_down(place: Place) -> None:
    place.simulation.appview.go_down()
    await place.sees("down", lambda seen: seen("turbod_appview_down") == 1)
    await trio.sleep(2)


async def the_appview_is_silent(place: Place) -> None:
    place.simulation.appview.failures = {"silent": 1.0}
    await trio.sleep(1)


async def the_disk_is_full(place: Place) -> None:
    """As full as a limit on the size of files makes it, which nobody need be root for."""
    head = max((place.turbod.data / "live").glob("*.jsonl"))
    limit = head.stat().st_size
    resource.prlimit(place.turbod.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    await place.sees("a fault", lambda seen: seen("turbod_log_fault") == 1)


async def the_cache_is_locked(place: Place) -> None:
    connection = sqlite3.connect(place.turbod.data / "cache.sqlite", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    await place.sees("a fault", lambda seen: seen("turbod_cache_fault") == 1)
    place.nursery.start_soon(_keep, connection)


async def _keep(connection: sqlite3.Connection) -> None:
    try:
        await trio.sleep_forever()
    finally:
        connection.close()


async def a_sync_hangs(place: Place) -> None:
    place.switch("hang")
    await place.sees("late", lambda seen: bool(list(seen.of("turbod_heart_late_seconds"))))


async def syncs_are_slow(place: Place) -> None:
    place.switch("slow")
    await trio.sleep(3)


async def something_blocks(place: Place) -> None:
    place.switch("block")
    await trio.sleep(2)


async def a_connection_fails(place: Place) -> None:
    place.switch("fail")
    with pytest.raises((OSError, IndexError)):
        await place.turbod.get("/healthz")


async def too_many_come(place: Place) -> None:
    async def come() -> None:
        while True:
            with ExitStack() as stack:
                for _ in range(4):
                    address = ("127.0.0.1", place.turbod.port)
                    stack.enter_context(socket.create_connection(address))
                await trio.sleep(0.3)
            await trio.sleep(0.3)

    place.nursery.start_soon(come)
    await trio.sleep(1)


async def few_files_may_be_open(place: Place) -> None:
    used = int((await scrape(place.turbod))("turbod_bound_used_items", what="open_files"))
    limit = used + 2
    resource.prlimit(place.turbod.process.pid, resource.RLIMIT_NOFILE, (limit, limit))


FAULTS = {
    fault.act.__name__: fault
    for fault in (
        Fault(all_hosts_go_down, {"TurbodNoHost", "TurbodHostDown", "TurbodUpstreamLate"}),
        Fault(one_host_goes_down, {"TurbodHostDown"}),
        Fault(one_host_hangs_up, {"TurbodHostReconnects"}),
        Fault(one_host_is_blind, {"TurbodHostBlind"}),
        Fault(one_host_is_late, {"TurbodHostLate"}),
        Fault(all_hosts_are_late, {"TurbodUpstreamLate"}),
        Fault(one_host_sends_rubbish, {"TurbodHostMalformed"}),
        Fault(events_are_lost, {"TurbodGap"}),
        Fault(
            the_appview_goes_down,
            {"TurbodAppViewDown", "TurbodUnresolved"},
            {"hydration-deadline-seconds": 0.5},
        ),
        Fault(
            the_appview_is_silent,
            {"TurbodHydrationBehind"},
            {"hydration-deadline-seconds": 300},
        ),
        Fault(the_disk_is_full, {"TurbodLogNotWritten", "TurbodBehind"}),
        Fault(the_cache_is_locked, {"TurbodCacheNotWritten"}),
        Fault(a_sync_hangs, {"TurbodTaskHangs", "TurbodBehind"}),
        Fault(syncs_are_slow, {"TurbodLogSlow"}),
        Fault(something_blocks, {"TurbodEventLoopLate"}),
        Fault(a_connection_fails, {"TurbodOwnFault"}, expected_fault="connection_failed"),
        Fault(too_many_come, {"TurbodRefusesConnections"}, {"server-max-connections": 3}),
        Fault(few_files_may_be_open, {"TurbodFilesRunOut"}),
    )
}


@pytest.mark.parametrize("name", FAULTS)
async def test_alerts_fire_under_their_fault_and_no_others(tmp_path: Path, name: str) -> None:
    """Before, nothing fires."""
    fault = FAULTS[name]
    async with (
        simulated(seed=81) as simulation,
        serving(
            simulation,
            tmp_path / "data",
            options={"hydration-calls-per-second": 1000, **fault.options},
            program=("-c", FRAIL, str(tmp_path)),
            expected_fault=fault.expected_fault,
        ) as turbod,
        trio.open_nursery() as nursery,
    ):
        simulation.rate = RATE
        await trio.sleep(1.5)
        well = await stretch(turbod, seconds=WELL_SECONDS)
        await fault.act(Place(simulation, turbod, tmp_path, nursery))
        ill = await stretch(turbod)
        for switch in ("hang", "slow", "block"):
            (tmp_path / switch).unlink(missing_ok=True)
        nursery.cancel_scope.cancel()
    firing([well, ill], tmp_path, [set(), fault.alerts])
