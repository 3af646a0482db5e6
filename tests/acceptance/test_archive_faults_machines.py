"""More than one machine, or more than one past: one archive, nothing twice, nothing overwritten."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.acceptance.archive_faults import RACED, Kind, Race, racing, stored_lines
from tests.acceptance.follower import cursor_of
from tests.acceptance.plain_scan import (
    decompressed,
    differences,
    events_of,
    key_of,
    logged,
    sent,
)
from tests.acceptance.process import Turbod, serving
from tests.acceptance.settling import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@asynccontextmanager
async def second(race: Race, data: Path, *, start: bool = True) -> AsyncIterator[Turbod]:
    """Run another turbod against the same network and the same archive."""
    options = {
        "hydration-calls-per-second": 1000,
        **race.place.options,
        **({"archive": race.place.words[0]} if len(race.place.words) == 1 else {}),
    }
    async with serving(
        race.simulation,
        data,
        options=options,
        start=start,
        program=race.clock.program(RACED, kept_bytes=0),
    ) as turbod:
        yield turbod


def objects(race: Race) -> dict[str, bytes]:
    """Return all that the archive has."""
    return {key: race.place.read(key) for key in race.place.listing()}


def check_unchanged(before: dict[str, bytes], race: Race) -> None:
    """Fail where something in the archive is gone or holds other bytes."""
    now = objects(race)
    assert {key: now.get(key) for key in before} == before


async def is_conflict(turbod: Turbod) -> bool:
    return bool((await turbod.status())["archive"]["archiver"]["state"] == "conflict")


async def check_all_served_once(race: Race) -> None:
    """Fail unless one who comes now is served every event that was sent, once."""
    expected = sent(race.simulation)
    late = await race.follow()
    await until(lambda: len(late.lines) >= len(expected), seconds=30, what="all served")
    assert differences(expected, events_of(late.lines)) == ""
    assert not late.gaps
    race.leave(late)


@pytest.mark.parametrize("kind", ["folder", "rclone"])
async def test_a_restored_snapshot_goes_on_behind_the_archive(tmp_path: Path, kind: Kind) -> None:
    """What the archive has is not stored twice, what only the lost disk had comes again."""
    async with racing(tmp_path, kind) as race:
        data, snapshot = race.turbod.data, tmp_path / "snapshot"
        await race.hours(4)
        await race.stored()
        assert await race.turbod.stop() == 0
        shutil.copytree(data, snapshot, ignore=shutil.ignore_patterns("archive"))
        await race.turbod.start()
        await race.hours(3)
        await race.stored()
        assert await race.turbod.stop() == 0
        before = objects(race)
        end = max(map(cursor_of, stored_lines(race.place)))
        for name in ("live", "sealed", "verified"):
            shutil.rmtree(data / name)
        shutil.copytree(snapshot, data, dirs_exist_ok=True)
        race.leave(*race.live)
        await race.turbod.start()
        race.live.append(await race.follow())
        await race.delivered()
        await race.hours(2)
        await race.stored()
        check_unchanged(before, race)
        new = [line for line in logged(data) if cursor_of(line) > end]
        assert {key_of(event) for event in events_of(new)}.isdisjoint(
            key_of(event)
            for event in events_of(line for line in race.lines if cursor_of(line) <= end)
        )
        await race.check()
        await check_all_served_once(race)


@pytest.mark.parametrize("kind", ["folder", "rclone"])
async def test_an_empty_machine_goes_on_where_the_archive_ends(tmp_path: Path, kind: Kind) -> None:
    """The disk is gone and the archive is not: every event once, what the upstream has included."""
    async with racing(tmp_path, kind) as race:
        await race.hours(5)
        await race.stored()
        await race.turbod.kill()
        lose_disk(race)
        before = objects(race)
        race.clock.advance()
        race.happen(40)
        race.leave(*race.live)
        await race.turbod.start()
        race.live.append(await race.follow())
        await race.delivered()
        await race.hours(3)
        check_unchanged(before, race)
        await race.check()
        assert not race.told("archive_conflict")


async def test_an_empty_machine_tells_what_the_upstream_no_longer_has(tmp_path: Path) -> None:
    """One gap, from the end of the archive to what came first after it."""
    async with racing(tmp_path) as race:
        await race.hours(5)
        await race.stored()
        await race.turbod.kill()
        lose_disk(race)
        kept = stored_lines(race.place)
        for host in race.simulation.jetstreams:
            host.lose_history()
        race.leave(*race.live)
        await race.turbod.start()
        live = await race.follow()
        await until(lambda: len(live.lines) == len(kept), seconds=20, what="the archive is served")
        race.clock.advance()
        race.simulation.emit(60)
        await until(lambda: len(live.lines) > len(kept) + 10, seconds=60, what="live goes on")
        assert live.lines[: len(kept)] == kept
        assert [(gap["after"], gap["before"]) for gap in live.gaps] == [
            (cursor_of(kept[-1]), cursor_of(live.lines[len(kept)]))
        ]


def lose_disk(race: Race) -> None:
    """Take everything away but the archive."""
    for path in race.turbod.data.iterdir():
        if path.name != "archive":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("kind", ["folder", "rclone"])
async def test_a_machine_with_an_id_of_its_own_only_reads_what_is_anothers(
    tmp_path: Path, kind: Kind
) -> None:
    """It says so, its hours wait, the other goes on; whichever of the two is started first."""
    async with racing(tmp_path, kind) as race:
        await race.hours(3)
        await race.stored()
        other = tmp_path / "other"
        other.mkdir()
        (other / "instance").write_text("0123456789abcdef\n")
        async with second(race, other) as turbod:
            race.live.append(await race.follow(turbod))
            await until(lambda: is_conflict(turbod), seconds=20, what="it says that it may not")
            await check_other(race, turbod)
            assert await race.turbod.stop() == 0
            assert await turbod.stop() == 0
            await turbod.start()
            await race.turbod.start()
            await check_other(race, turbod)
            race.leave(race.live[1])
            assert "archive_failing" not in turbod.output
            assert turbod.output.count("event=archive_conflict") <= 2
        await race.check()
        assert not race.told("archive_conflict")


async def check_other(race: Race, turbod: Turbod) -> None:
    """Fail unless two more hours go to the archive once, and wait on the other machine."""
    theirs = (await turbod.status())["archive"]["archiver"]["hours_waiting"]
    before = objects(race)
    await race.hours(2)
    await race.stored()
    check_unchanged(before, race)
    status = (await turbod.status())["archive"]["archiver"]
    assert status["state"] == "conflict"
    assert "belongs to the turbod" in status["fault"]
    assert status["uploaded"] == 0
    assert status["hours_waiting"] >= theirs + 1


@pytest.mark.parametrize("kind", ["folder", "rclone"])
async def test_an_empty_machine_that_takes_over_while_the_other_still_runs(
    tmp_path: Path, kind: Kind
) -> None:
    """Both have the archive's id: it is noticed, both go on live, nobody's hours are lost."""
    async with racing(tmp_path, kind) as race:
        await race.hours(3)
        await race.stored()
        before = objects(race)
        async with second(race, tmp_path / "other") as turbod:
            race.live.append(await race.follow(turbod))
            await race.delivered()
            for _ in range(4):
                await race.hours(1)
                check_unchanged(before, race)
                before = objects(race)

            async def is_noticed() -> bool:
                return await is_conflict(race.turbod) or await is_conflict(turbod)

            await until(is_noticed, seconds=20, what="one of the two says so")
            race.check_delivered()
            stored = events_of(stored_lines(race.place))
            expected = {key_of(event) for event in sent(race.simulation)}
            for data in (race.turbod.data, turbod.data):
                here = events_of(line for path in hours_on(data) for line in lines_of(path))
                assert expected <= {key_of(event) for event in (*stored, *here)}
            for each in (race.turbod, turbod):
                assert each.output.count("event=archive_conflict") <= 4


def hours_on(data: Path) -> list[Path]:
    """Return what lies on a machine's disk, an archive apart."""
    plain = [path for path in data.glob("live/*.jsonl") if ".gaps" not in path.name]
    return [*plain, *data.glob("sealed/[0-9]*.zst"), *data.glob("verified/[0-9]*.zst")]


def lines_of(path: Path) -> list[bytes]:
    data = decompressed(path) if path.suffix == ".zst" else path.read_bytes()
    return data.split(b"\n")[:-1]
