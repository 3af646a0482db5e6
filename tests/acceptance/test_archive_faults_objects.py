"""Foreign, damaged and missing objects: named, counted, never deleted; a gap where records were."""

from pathlib import Path

import pytest

from tests.acceptance.archive_faults import Kind, Race, racing
from tests.acceptance.archive_plain import take_apart
from tests.acceptance.follower import Follower, cursor_of
from tests.acceptance.settling import until

FOREIGN = ("notes.txt", "dt=2026-01-01/hour=00/part-0000.parquet", "dt=x/hour=99/1-2.jsonl.zst")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def seven_hours(race: Race) -> list[str]:
    """Let hours be stored; return the keys of their objects, oldest first."""
    await race.hours(8)
    await race.stored()
    return [key for key in race.place.listing() if key.endswith(".zst")]


async def restarted(race: Race) -> Follower:
    """Start turbod anew, so that it lists its archive; return one who reads it all."""
    if race.turbod.starts == 1:
        assert await race.turbod.stop() == 0
    await race.turbod.start()
    late = await race.follow()
    await until(lambda: late.lines[-1:] == race.lines[-1:], seconds=30, what="the end")
    return late


def lines_of(race: Race, key: str) -> list[bytes]:
    return take_apart(race.place.read(key)).lines


@pytest.mark.parametrize("kind", ["folder", "rclone"])
async def test_foreign_objects_are_named_and_left_alone(tmp_path: Path, kind: Kind) -> None:
    """They are counted, one line names them, and hours go on beside them."""
    async with racing(tmp_path, kind) as race:
        await seven_hours(race)
        for key in FOREIGN:
            race.place.write(key, b"none of ours")
        late = await restarted(race)
        assert late.lines == race.lines
        assert not late.gaps
        await race.hours(2)
        await race.stored()
        assert (await race.archiver())["foreign"] == len(FOREIGN)
        [line] = race.told("archive_foreign")
        assert all(key in line for key in FOREIGN)
        assert all(race.place.read(key) == b"none of ours" for key in FOREIGN)
        race.check_delivered()


@pytest.mark.parametrize("kind", ["folder", "rclone"])
async def test_damaged_and_missing_objects_are_gaps_in_their_places(
    tmp_path: Path, kind: Kind
) -> None:
    """Everything else is served, each is told of and counted once, and nothing is touched."""
    async with racing(tmp_path, kind, kept_bytes=1) as race:
        keys = await seven_hours(race)
        flipped, cut, gone = keys[1], keys[3], keys[5]
        lost = [line for key in (flipped, cut, gone) for line in lines_of(race, key)]
        data = bytearray(race.place.read(flipped))
        data[100] ^= 1
        assert await race.turbod.stop() == 0
        race.place.write(flipped, bytes(data))
        race.place.write(cut, race.place.read(cut)[:-1000])
        race.place.remove(gone)
        before = {key: race.place.read(key) for key in race.place.listing()}
        race.turbod.starts += 1  # it was stopped already
        late = await restarted(race)
        assert late.lines == [line for line in race.lines if line not in set(lost)]
        check_gaps(race, late, lost, count=3)
        again = await race.follow()
        await until(lambda: again.lines[-1:] == race.lines[-1:], seconds=30, what="the end")
        assert again.lines == late.lines
        assert again.gaps == late.gaps
        history = (await race.archive())["history"]
        assert history["damaged"] == 2
        assert history["holes"] == 1
        assert len(race.told("archive_damaged")) == 2
        assert len(race.told("archive_hole")) == 1
        await race.hours(2)
        race.check_delivered()
        assert {key: race.place.read(key) for key in before} == before


def check_gaps(race: Race, late: Follower, lost: list[bytes], *, count: int) -> None:
    """Fail unless every lost record lies in a gap, and no other."""
    spans = [(gap["after"], gap["before"]) for gap in late.gaps]
    missing = set(map(cursor_of, lost))
    for line in race.lines:
        cursor = cursor_of(line)
        assert any(after < cursor < before for after, before in spans) == (cursor in missing)
    assert len(spans) == count


async def test_a_newest_object_that_is_damaged_here_is_read_from_the_bucket(
    tmp_path: Path,
) -> None:
    """A start reads it too, for those who resume; nothing is lost to anybody."""
    async with racing(tmp_path, "rclone") as race:
        await seven_hours(race)
        await restart_with_newest_damaged(race)
        await race.hours(2)
        await race.stored()
        race.check_delivered()
        await race.check_archive()
        await race.check_history()


async def test_a_newest_object_that_nobody_can_read_keeps_nothing_from_starting(
    tmp_path: Path,
) -> None:
    """It is a gap, and live goes on."""
    async with racing(tmp_path) as race:
        keys = await seven_hours(race)
        lost = lines_of(race, keys[-1])
        await restart_with_newest_damaged(race)
        await race.hours(2)
        await race.stored()
        race.check_delivered()
        late = await race.follow()
        await until(lambda: late.lines[-1:] == race.lines[-1:], seconds=30, what="the end")
        assert late.lines == [line for line in race.lines if line not in set(lost)]
        check_gaps(race, late, lost, count=1)


async def restart_with_newest_damaged(race: Race) -> None:
    """Flip a bit of the newest object on this disk, and of that in a folder: it is one file."""
    assert await race.turbod.stop() == 0
    newest = max(race.turbod.data.glob("verified/*.zst"))
    data = bytearray(newest.read_bytes())
    data[100] ^= 1
    newest.write_bytes(data)
    await race.turbod.start()
