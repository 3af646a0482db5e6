"""A full archive lets its oldest hours go: who is too slow is told so, nobody else notices."""

from pathlib import Path

import pytest

from tests.acceptance.archive_seams import seams
from tests.acceptance.follower import Follower, cursor_of
from tests.acceptance.plain_scan import differences, events_of, sent
from tests.acceptance.settling import caught_up, until

HOURS = 7
EVENTS_AN_HOUR = 1500  # some 4 MB, and an object of 700 KB
OPTIONS = {"archive-max-bytes": 1_500_000, "archive-when-full": "drop_oldest"}


def losses(follower: Follower) -> list[tuple[int, int]]:
    """Return between which positions something is lost, as it was told at either end."""
    errors = [n for n, told in enumerate(follower.news) if told["$type"] == "#error"]
    found = []
    for place in errors:
        error, connected, outdated = follower.news[place : place + 3]
        assert (error["error"], outdated["name"]) == ("ConsumerTooSlow", "OutdatedCursor")
        found.append((error["cursor"], connected["cursor"]))
    assert len(found) == len(follower.ends)
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_reader_that_is_too_slow_for_the_archive_is_told_what_it_lost(
    tmp_path: Path,
) -> None:
    """`ConsumerTooSlow` where it stands, then `OutdatedCursor`; between them lies what is lost."""
    async with seams(tmp_path, seed=71, options=OPTIONS) as race:
        slow = Follower(race.turbod.port, read_bytes=4096, pause_seconds=0.05)
        await race.nursery.start(slow.run)
        await slow.connected.wait()
        for _ in range(HOURS):
            await race.pass_hour(EVENTS_AN_HOUR, burst=EVENTS_AN_HOUR)
        await until(lambda: "archive_hour_dropped" in race.turbod.output, seconds=20, what="full")
        assert differences(sent(race.simulation), events_of(race.lines)) == ""
        slow.pause_seconds = 0.0
        await until(lambda: slow.lines[-1:] == race.lines[-1:], seconds=20, what="the end")
        archive = (await race.turbod.status())["archive"]
        assert archive["archiver"]["stored_bytes"] <= OPTIONS["archive-max-bytes"]
        kept = Follower(race.turbod.port)
        await race.nursery.start(kept.run)
        await caught_up([kept], race.lines)
        assert set(slow.ends) == {1008}
        lost_between = losses(slow)
    assert kept.start == archive["floor"]
    lost = [
        line
        for after, last in lost_between
        for line in race.lines
        if after < cursor_of(line) <= last
    ]
    assert lost
    assert slow.lines == [line for line in race.lines if line not in set(lost)]
    assert not slow.gaps
