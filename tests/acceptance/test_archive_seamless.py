"""From any position, while the archive grows and moves: what a plain scan selects, once each."""

import random
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.acceptance.archive_plain import take_apart
from tests.acceptance.archive_seams import (
    Asked,
    Kind,
    Seams,
    Seeker,
    has_all_but_gaps,
    lost_in_gaps,
    seams,
)
from tests.acceptance.follower import Wish, cursor_of
from tests.acceptance.restless import wish
from tests.acceptance.settling import caught_up, until

pytestmark = pytest.mark.timeout(90)

HOURS = 4
EVENTS = 120  # an hour
SEEKERS = 6  # an hour
WANDER_SECONDS = 4.0
KEPT_BYTES = 200_000  # three objects
SLOW_SEEDS = [
    pytest.param(kind, seed, marks=pytest.mark.slow)
    for seed in (2, 3)
    for kind in ("folder", "rclone")
]
KINDS = ["folder", pytest.param("rclone", marks=pytest.mark.slow)]


def seeker(how: random.Random, race: Seams, asked: Asked) -> Seeker:
    """Draw one with a filter and a pace."""
    chosen = wish(how, race.simulation)
    if how.random() < 0.4:
        chosen = Wish(shard=(how.randrange(3), 3) if how.random() < 0.3 else None)
    return Seeker(
        race.turbod.port,
        asked,
        wish=chosen,
        batch=how.choice((0, 0, 1, 7)),
        compress=how.random() < 0.3,
        read_bytes=how.choice((2000, 65536)),
    )


@pytest.mark.parametrize(("kind", "seed"), [("rclone", 1), *SLOW_SEEDS])
async def test_from_anywhere_everybody_gets_what_a_plain_scan_selects(
    tmp_path: Path, kind: Kind, seed: int
) -> None:
    """While hours are sealed, stored and pruned, with every filter, at every pace."""
    how = random.Random(seed)
    options = {"server-max-history-readers": 30}
    async with seams(tmp_path, kind, seed=seed, kept_bytes=KEPT_BYTES, options=options) as race:
        if kind == "rclone":
            race.proxy.only, race.proxy.bytes_per_second = "PUT", 40_000
        seekers: list[Seeker] = []
        for _ in range(2):
            await race.pass_hour(EVENTS)
        async with trio.open_nursery() as wandering:
            for hour in range(HOURS):
                for asked in race.positions(how)[:SEEKERS]:
                    each = await race.seek(seeker(how, race, asked))
                    seekers.append(each)
                    moods = random.Random(how.random())
                    wandering.start_soon(
                        partial(each.wander, moods, race.simulation, seconds=WANDER_SECONDS)
                    )
                if hour == HOURS // 2:
                    await race.end_quietly()
                await race.pass_hour(EVENTS)
        race.proxy_is_good()
        await race.archived()
        log = race.everything()
        assert log == race.lines
        await caught_up(seekers, log)
        for each in seekers:
            each.check()
        assert "event=hours_pruned" in race.turbod.output


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_gone_or_damaged_is_a_gap_at_its_place(tmp_path: Path, kind: Kind) -> None:
    """An object removed and one spoiled behind turbod's back; everything else is served."""
    how = random.Random(9)
    async with seams(tmp_path, kind, seed=9) as race:
        for _ in range(6):
            await race.pass_hour(EVENTS)
        await race.archived()
        gone, spoiled = race.keys[1], race.keys[3]
        places = race.positions(how)[: 2 * SEEKERS]
        frames = take_apart(race.place.read(spoiled)).parts
        damaged = frames[1].split(b"\n")[:-1]
        race.place.remove(gone)
        race.place.write(spoiled, _spoiled(race.place.read(spoiled), number=1))
        hours, lines = race.hours, race.lines
        missing = {*hours[1], *damaged}
        inside = [hours[0][60], hours[1][0], hours[1][60], hours[2][0], damaged[3], damaged[-1]]
        seekers = [await race.seek(seeker(how, race, asked)) for asked in places]
        plain = [Seeker(race.turbod.port, Asked("0"))]
        plain += [Seeker(race.turbod.port, _at(line)) for line in inside]
        for each in plain:
            await race.seek(each)
        seekers += plain
        await until(
            lambda: all(has_all_but_gaps(each, lines) for each in seekers),
            seconds=30,
            what="all have what is there",
        )
        for each in seekers:
            each.check()
            assert not each.ends or each.refusals
            assert set(lost_in_gaps(each, lines)) <= missing
        for each in plain:
            asked = max(each.start or 0, cursor_of(lines[0]) - 1)
            assert each.lines == [
                line for line in lines if line not in missing and cursor_of(line) > asked
            ]
        assert [(gap["after"], gap["before"]) for gap in plain[0].gaps] == [
            (cursor_of(hours[0][-1]), cursor_of(hours[2][0])),
            (cursor_of(frames[0].split(b"\n")[-2]), cursor_of(frames[2].split(b"\n")[0])),
        ]


async def test_a_walk_waits_for_an_archive_that_is_away_and_goes_on(tmp_path: Path) -> None:
    """It is told by `#cursor` meanwhile; whoever is live notices nothing."""
    async with seams(tmp_path, "rclone", seed=10) as race:
        for _ in range(4):
            await race.pass_hour(EVENTS)
        await race.archived()
        race.proxy.only, race.proxy.bytes_per_second = "GET", 50_000
        walker = await race.seek(Seeker(race.turbod.port, Asked("0")))
        await until(lambda: len(walker.lines) >= 50, seconds=20, what="on its way")
        race.proxy.stalls = True
        await trio.sleep(3)  # for what was on its way
        told, there = len(walker.news), len(walker.lines)
        await until(lambda: len(walker.news) > told, seconds=8, what="told that it waits")
        await race.pass_hour(30)
        assert len(walker.lines) == there
        race.proxy.be_good()
        await race.archived()
        await caught_up([walker], race.everything())
        assert not walker.ends
        assert not walker.gaps


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_walk_ends_where_the_archive_is_away_for_a_minute(tmp_path: Path) -> None:
    """`HistoryUnavailable` where it stands and 1011; coming again, it goes on from there."""
    async with seams(tmp_path, "rclone", seed=11) as race:
        for _ in range(5):
            await race.pass_hour(EVENTS)
        await race.archived()
        race.proxy.only, race.proxy.bytes_per_second = "GET", 50_000
        walker = await race.seek(Seeker(race.turbod.port, Asked("0")))
        await until(lambda: len(walker.lines) >= 50, seconds=20, what="on its way")
        race.proxy.stalls = True
        began = trio.current_time()
        await until(lambda: bool(walker.ends), seconds=90, what="the end")
        assert 50 < trio.current_time() - began < 75
        (error,) = (told for told in walker.news if told["$type"] == "#error")
        assert error["error"] == "HistoryUnavailable"
        assert error["cursor"] == cursor_of(walker.lines[-1])
        race.proxy.be_good()
        await caught_up([walker], race.everything())
        assert walker.ends == [1011]
        assert not walker.gaps


async def test_more_readers_than_places_come_again(tmp_path: Path) -> None:
    """429 while eight are served from the archive; each is let in later and has it all."""
    async with seams(tmp_path, "rclone", seed=12) as race:
        for _ in range(5):
            await race.pass_hour(EVENTS)
        await race.archived()
        race.proxy.only, race.proxy.bytes_per_second = "GET", 150_000
        crowd = [
            await race.seek(Seeker(race.turbod.port, asked))
            for asked in [Asked("0")] * 10 + [_at(hour[0]) for hour in race.hours[1:4]] * 4
        ]
        await until(lambda: any(each.refusals for each in crowd), seconds=20, what="refused")
        assert (await race.turbod.status())["server"]["archive_readers"] <= 8
        prompt = await race.seek(Seeker(race.turbod.port, _at(race.lines[-20])))
        await caught_up([prompt], race.lines, seconds=10)
        assert not prompt.refusals
        await caught_up(crowd, race.lines)
        assert all("TooManyConnections" in text for each in crowd for text in each.refusals)
        for each in crowd:
            each.check()


def _at(line: bytes) -> Asked:
    return Asked(str(cursor_of(line)), cursor_of(line))


def _spoiled(data: bytes, *, number: int) -> bytes:
    """Return an object in one of whose frames a bit is another one."""
    frames = take_apart(data).frames
    place = sum(map(len, frames[:number])) + len(frames[number]) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
