"""Sealing under kill -9, at any moment."""

import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.archive.sealing_log import lines_in, objects, opened
from tests.eventlog.samples import HOUR, T0, plain_scan
from turbod.archive.sealing import check

LIVES = 10
TOLD = re.compile(r"(\d+):(\d+)\n")
SEALING = """
import sys
from pathlib import Path

import trio

from tests.archive.sealing_log import sealing_hours
from tests.eventlog.samples import HOUR, T0, Clock, record

async def main():
    data, first = Path(sys.argv[1]), int(sys.argv[2])
    async with sealing_hours(data, clock=Clock(T0 + 10**6 * HOUR)) as running:
        log, told = running.log, 0
        time_us = max(log.head, T0)
        for number in range(first, first + 10**6):
            time_us += HOUR // 300
            if number % 211 == 0:
                log.mark_gap(f"gap before {number}")
            log.append(record(number, time_us=time_us, padding=number % 2999))
            if number % 50 == 0:
                await log.room()
                await trio.sleep(0.001)
                if number % 950 == 0:
                    await log.end_hour()
                for each in running.published[told:][-1:]:
                    print(f"{each}:{log.head}", flush=True)
                told = len(running.published)

trio.run(main)
"""


def is_marked(number: int) -> bool:
    """Tell whether a gap stands before this record: there is none before the very first."""
    return number % 211 == 0 and number > 0


def live_and_die(data: Path, first: int, seconds: float) -> dict[int, int]:
    """Write and seal in another process until it is killed; return what it told."""
    process = subprocess.Popen(
        [sys.executable, "-c", SEALING, str(data), str(first)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as output:
        while not TOLD.fullmatch(text := output.readline()):
            assert process.poll() is None, text
        signal.sigtimedwait([], seconds)
        process.send_signal(signal.SIGKILL)
        lines = [text, *output]
    process.wait()
    return {int(each[1]): int(each[2]) for each in map(TOLD.fullmatch, lines) if each}


@pytest.mark.slow
def test_kill_9_while_sealing_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    draw = random.Random(9)
    told: dict[int, int] = {}
    interrupted = 0
    for life in range(LIVES):
        told |= live_and_die(tmp_path, life * 10**6, draw.uniform(0.05, 0.4))
        names = [path.name for path in (tmp_path / "sealed").iterdir()]
        interrupted += any(name.endswith(".making") for name in names)

    async def open_once_more() -> None:
        async with opened(tmp_path) as running:
            assert running.log.head >= max(told.values())
            assert running.log.lost == running.catalogue.last

    trio.run(open_once_more)
    found = objects(tmp_path)
    sealed = [one for _, path in found for one in lines_in(path)]
    seen = sealed + plain_scan(tmp_path)
    cursors = [cursor for cursor, _ in seen]
    assert cursors == sorted(set(cursors)), "each in one place"
    hours = [(cursor - T0) // HOUR for cursor, _ in plain_scan(tmp_path)]
    assert not set(hours) & {(name.hour - T0) // HOUR for name, _ in found}
    by_cursor = dict(seen)
    for number, cursor in told.items():
        assert f'"rkey":"3k{number}"'.encode() in by_cursor[cursor]
    numbers = [int(text.split(b'"rkey":"3k')[1].split(b'"')[0]) for _, text in seen]
    for life in range(LIVES):
        mine = [number for number in numbers if number // 10**6 == life]
        assert mine == list(range(life * 10**6, life * 10**6 + len(mine))), "none missing"
    indexes = [check(path, name) for name, path in found]
    assert [index.previous for index in indexes] == [0, *(index.last for index in indexes[:-1])]
    gaps = {gap.before for index in indexes for gap in index.gaps}
    marked = {cursor for cursor, number in zip(cursors, numbers, strict=True) if is_marked(number)}
    assert marked & {cursor for cursor, _ in sealed} <= gaps
    assert len(gaps - marked) <= LIVES, "one whose record was never written stands before the next"
    assert len(found) > LIVES
    assert interrupted > 1, "some died in the middle of it"
