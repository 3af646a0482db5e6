"""Alerts about the archive, and about restarts, under their faults; each alert has its test."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.acceptance import test_alerts_fire
from tests.acceptance.alerting import RULES, WELL_SECONDS, Stretch, changed, firing, moment, stretch
from tests.acceptance.archive_faults import Kind, Race, racing
from tests.acceptance.follower import Follower
from tests.acceptance.process import Turbod, serving
from tests.acceptance.scrape import Scrape, scrape
from tests.acceptance.settling import until
from turbod.simulation.world import simulated

RATE = 100
ROOM_BYTES = 50_000  # of an archive, an hour or two


async def sees(race: Race, what: str, condition: Callable[[Scrape], bool]) -> None:
    """Wait until /metrics says so."""

    async def does_it() -> bool:
        return condition(await scrape(race.turbod))

    await until(does_it, seconds=30, what=what)


async def it_does_not_take_hours(race: Race) -> None:
    """For four of them: where it was there is something else."""
    put_aside(race)
    await race.hours(5)
    await sees(race, "failing", lambda seen: seen("turbod_archive_state", state="failing") == 1)


async def it_is_anothers(race: Race) -> None:
    assert await race.turbod.stop() == 0
    (race.turbod.data / "instance").write_text("0123456789abcdef\n")
    await race.turbod.start()
    await sees(race, "conflict", lambda seen: seen("turbod_archive_state", state="conflict") == 1)


async def it_is_full(race: Race) -> None:
    await race.hours(4)
    await sees(race, "full", lambda seen: seen("turbod_archive_state", state="full") == 1)


async def hours_cannot_be_sealed(race: Race) -> None:
    folder = race.turbod.data / "sealed"
    folder.rename(folder.with_name("elsewhere"))
    folder.write_bytes(b"")
    await race.hours(1)
    await sees(race, "a fault", lambda seen: seen("turbod_archive_seal_fault") == 1)


async def it_is_away(race: Race) -> None:
    """While somebody reads what lies nowhere else."""
    assert race.proxy is not None
    assert await race.turbod.stop() == 0  # and with it all that was in memory
    await race.turbod.start()
    race.proxy.answer = (403, "AccessDenied")
    await race.follow()
    await sees(race, "away", lambda seen: seen("turbod_history_fault") == 1)


async def hours_are_missing(race: Race) -> None:
    keys = [key for key in race.place.listing() if key.endswith(".zst")]
    assert await race.turbod.stop() == 0
    race.place.remove(keys[1])
    await race.turbod.start()
    await race.follow()
    await sees(race, "a hole", lambda seen: seen("turbod_history_holes_total") == 1)


def put_aside(race: Race) -> None:
    folder = race.turbod.data / "archive"
    folder.rename(folder.with_name("elsewhere"))
    folder.write_bytes(b"")


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and which alerts fire."""

    act: Callable[[Race], Awaitable[None]]
    alerts: set[str]
    kind: Kind = "folder"
    max_bytes: int = 0
    kept_bytes: int = 0


FAULTS = {
    fault.act.__name__: fault
    for fault in (
        Fault(it_does_not_take_hours, {"TurbodArchiveFailing", "TurbodArchiveBehind"}),
        Fault(it_is_anothers, {"TurbodArchiveConflict"}),
        Fault(
            it_is_full,
            {"TurbodArchiveFull", "TurbodArchiveSoonFull", "TurbodArchiveBehind"},
            max_bytes=ROOM_BYTES,
        ),
        Fault(hours_cannot_be_sealed, {"TurbodHourNotSealed"}),
        Fault(it_is_away, {"TurbodArchiveAway"}, kept_bytes=1, kind="rclone"),
        Fault(hours_are_missing, {"TurbodArchiveDamaged"}, kept_bytes=1),
    )
}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FAULTS)
async def test_alerts_fire_under_their_fault_and_no_others(tmp_path: Path, name: str) -> None:
    """Before, nothing fires, though hours are sealed and stored."""
    fault = FAULTS[name]
    options = {"archive-max-bytes": fault.max_bytes} if fault.max_bytes else {}
    async with racing(tmp_path, fault.kind, kept_bytes=fault.kept_bytes, options=options) as race:
        if not fault.max_bytes:
            await race.hours(4)
            await race.stored()
        race.simulation.rate = RATE
        await trio.sleep(1)
        well = await stretch(race.turbod, seconds=WELL_SECONDS)
        race.simulation.rate = 0
        await trio.sleep(0.5)
        await fault.act(race)
        race.simulation.rate = RATE
        await trio.sleep(0.5)
        ill = await stretch(race.turbod)
    firing([well, ill], tmp_path, [set(), fault.alerts])


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_many_restarts_in_an_hour_fire_and_one_does_not(tmp_path: Path) -> None:
    async with simulated(seed=82) as simulation, serving(simulation, tmp_path / "data") as turbod:
        simulation.rate = RATE
        well = [await stretch(turbod, seconds=WELL_SECONDS), await restarted(turbod, minutes=60)]
        often = [await restarted(turbod, minutes=5) for _ in range(5)]
    names: list[set[str]] = [set(), set(), *(set() for _ in often[:-1]), {"TurbodRestartsOften"}]
    names[-2] = {"TurbodRestartsOften"}
    firing([*well, *often], tmp_path, names)


async def restarted(turbod: Turbod, *, minutes: int) -> Stretch:
    await turbod.kill()
    await turbod.start()
    await trio.sleep(0.5)
    return await moment(turbod, minutes=minutes)


# What no fault of ours brings about within seconds: the figure itself is put where it would be.
MADE_UP = {
    "TurbodDiskSoonFull": ("turbod_archive_room_seconds", {"what": "disk"}, 2 * 3600),
    "TurbodAboveBound": ("turbod_bound_used_bytes", {"what": "log_memory"}, 100_000_000),
    "TurbodMemory": ("turbod_resident_bytes", {}, 2_000_000_000),
}


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_what_nothing_brings_about_in_seconds_fires_by_its_figure(tmp_path: Path) -> None:
    async with racing(tmp_path) as race:
        await race.hours(3)
        await race.stored()
        race.simulation.rate = RATE
        await trio.sleep(1)
        well = await stretch(race.turbod, seconds=WELL_SECONDS)
    for alert, (name, labels, value) in MADE_UP.items():
        firing([well, changed(well, name, labels, value)], tmp_path, [set(), {alert}])
    gone = Stretch(well.first, well.last, is_up=False)
    firing([well, gone, well], tmp_path, [set(), {"TurbodDown"}, set()])


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_deliveries_that_come_late_fire(tmp_path: Path) -> None:
    """As many as there are, moved into the bucket of what took five seconds."""
    async with simulated(seed=83) as simulation, serving(simulation, tmp_path / "data") as turbod:
        simulation.rate = RATE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Follower(turbod.port).run)
            await trio.sleep(2)
            well = await stretch(turbod, seconds=4)
            nursery.cancel_scope.cancel()
    late = well
    for bound in (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5):
        late = changed(late, "turbod_delivery_seconds_bucket", {"le": f"{bound}"}, 0)
    firing([well, late], tmp_path, [set(), {"TurbodDeliveryLate"}])


def test_every_alert_is_shown_to_fire() -> None:
    named = set(re.findall(r"(?m)^ +- alert: (\w+)$", RULES.read_text()))
    shown = set(MADE_UP) | {"TurbodDown", "TurbodRestartsOften", "TurbodDeliveryLate"}
    shown |= {alert for fault in test_alerts_fire.FAULTS.values() for alert in fault.alerts}
    shown |= {alert for fault in FAULTS.values() for alert in fault.alerts}
    assert named == shown
