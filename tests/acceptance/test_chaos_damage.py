"""Files that are damaged or gone, a process that was suspended: repeats at most, no loss."""

import os
import signal
from pathlib import Path

import pytest
import trio

from tests.acceptance.follower import Follower
from tests.acceptance.plain_scan import disorder, events_of, sent
from tests.acceptance.process import serving
from tests.acceptance.settling import caught_up, settled, until
from turbod.simulation.world import simulated


def damage(file: Path, how: str) -> None:
    """Make of a file what a bad disk, a slip or a restored backup makes of it."""
    if how == "gone":
        file.unlink()
    elif how == "garbage":
        file.write_bytes(os.urandom(20_000))
    elif how == "empty":
        file.write_bytes(b"")
    else:
        size = file.stat().st_size
        with file.open("r+b") as middle:
            middle.seek(size // 3)
            middle.write(bytes(size // 3))


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_damaged_cache_file_costs_repeats_and_no_event(tmp_path: Path) -> None:
    """It holds the positions too: without them an hour is read again, and known."""
    async with (
        simulated(seed=61) as simulation,
        serving(simulation, tmp_path / "data") as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        await until(lambda: follower.start is not None, seconds=10, what="connected")
        simulation.rate = 100
        for how in ("gone", "garbage", "empty", "zeros in the middle"):
            await trio.sleep(1.5)
            await turbod.kill()
            for suffix in ("-wal", "-shm"):
                (turbod.data / f"cache.sqlite{suffix}").unlink(missing_ok=True)
            damage(turbod.data / "cache.sqlite", how)
            await turbod.start()
        simulation.rate = 0
        log = await settled(simulation, turbod.data)
        assert disorder(sent(simulation), events_of(log)) == ""
        await caught_up([follower], log)
        assert not follower.gaps
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_suspended_process_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGSTOP, hosts that cut whoever is silent meanwhile, SIGCONT: every event once."""
    options = {"jetstream-silence-seconds": 1, "jetstream-longest-backoff-seconds": 0.5}
    async with (
        simulated(seed=62, version="v2") as simulation,
        serving(simulation, tmp_path / "data", options=options) as turbod,
        trio.open_nursery() as nursery,
    ):
        follower = Follower(turbod.port)
        await nursery.start(follower.run)
        await until(lambda: follower.start is not None, seconds=10, what="connected")
        simulation.rate = 100
        for number in range(3):
            await trio.sleep(1)
            turbod.process.send_signal(signal.SIGSTOP)
            await trio.sleep(1.5)
            simulation.jetstreams[number % 2].drop_connections()
            if number == 2:
                simulation.jetstreams[1 - number % 2].drop_connections()
            await trio.sleep(0.5)
            turbod.process.send_signal(signal.SIGCONT)
        await trio.sleep(1)
        simulation.rate = 0
        log = await settled(simulation, turbod.data)
        assert disorder(sent(simulation), events_of(log)) == ""
        await caught_up([follower], log)
        assert not follower.gaps
        assert not follower.ends
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_damaged_page_in_the_log_is_told_as_a_gap(tmp_path: Path) -> None:
    """What a bad disk took is passed over, with a `Gap` in its place; the rest is served."""
    async with (
        simulated(seed=63, mix={"post": 1.0}) as simulation,
        serving(
            simulation,
            tmp_path / "data",
            options={"log-memory-bytes": 2**20},
            expected_fault="log_damaged",
        ) as turbod,
        trio.open_nursery() as nursery,
    ):
        first = Follower(turbod.port)
        await nursery.start(first.run)
        await until(lambda: first.start is not None, seconds=10, what="connected")
        simulation.emit(1500)
        log = await settled(simulation, turbod.data)
        await caught_up([first], log)
        file = next((turbod.data / "live").glob("*.jsonl"))
        page = len(b"\n".join(log[:200]))
        with file.open("r+b") as disk:
            disk.seek(page)
            disk.write(b"\xff" * 4096)
        late = Follower(turbod.port)
        await nursery.start(late.run)
        await until(lambda: late.lines[-1:] == log[-1:], seconds=20, what="the end")
        nursery.cancel_scope.cancel()
    lost = len(log) - len(late.lines)
    assert 0 < lost < 10
    assert set(late.lines) < set(log)
    assert len(late.gaps) == 1
    gap = late.gaps[0]
    between = [line for line in log if gap["after"] < int(line[10:26]) < gap["before"]]
    assert len(between) == lost
    assert not first.gaps
