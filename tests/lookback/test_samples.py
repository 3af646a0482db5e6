"""What is kept of the last hours, of snapshots of a real daemon."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.one_daemon import running
from turbod.lookback.faults import faults, moments
from turbod.lookback.samples import COUNTS, KEPT, LEVELS, Samples
from turbod.report import Snapshot

SECOND = 1_000_000
replace = msgspec.structs.replace


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Snapshot]:
    """All parts of a turbod to which nothing has happened."""
    async with running(tmp_path) as daemon:
        yield daemon.snapshot()


def later(seen: Snapshot, seconds: float, **more: Any) -> Snapshot:
    return replace(seen, now_us=seen.now_us + int(seconds * SECOND), **more)


async def test_what_is_counted_comes_as_how_much_it_was_a_second(quiet: Snapshot) -> None:
    samples = Samples()
    assert quiet.log is not None
    cache = replace(quiet.cache, hits_memory=300, misses=50)
    calls = {("profiles", "ok"): 20, ("posts", "timeout"): 5}
    now = later(quiet, 10, cache=cache, appview=replace(quiet.appview, calls=calls))
    now = replace(now, log=replace(quiet.log, records=1234))
    samples.add(now, quiet)
    figures = samples.since(0)["figures"]
    assert figures["events"] == [123.4]
    assert figures["memory"] == [30]
    assert figures["asked"] == [5]
    assert figures["calls"] == [2.5]
    assert figures["failed_calls"] == [0.5]


async def test_all_columns_are_of_one_length_whenever_a_host_was_first_seen(
    quiet: Snapshot,
) -> None:
    samples = Samples()
    nowhere = replace(quiet, upstream=None)
    samples.add(later(nowhere, 10), nowhere)
    samples.add(later(quiet, 20), later(nowhere, 10))
    told = samples.since(0)
    assert told["figures"].keys() == LEVELS.keys() | COUNTS.keys()
    (host,) = told["hosts"].values()
    assert [len(column) for column in (*told["figures"].values(), *host.values())] == [2] * (
        len(told["figures"]) + 2
    )
    assert host["events"] == [None, 0]


async def test_the_oldest_go_and_only_newer_ones_are_told_to_who_has_the_others(
    quiet: Snapshot,
) -> None:
    samples = Samples()
    for number in range(KEPT + 5):
        samples.add(later(quiet, 10 * number + 10), later(quiet, 10 * number))
    assert len(samples) == KEPT
    seconds = samples.since(0)["seconds"]
    assert len(seconds) == KEPT
    newer = samples.since(seconds[-3])
    assert newer["seconds"] == seconds[-2:]
    assert {len(column) for column in newer["figures"].values()} == {2}
    assert samples.since(seconds[-1])["seconds"] == []


async def test_each_fault_has_its_words(quiet: Snapshot) -> None:
    assert quiet.upstream is not None
    assert quiet.archive is not None
    archiver = replace(quiet.archive.archiver, state="failing", fault="refused")
    sealer = replace(quiet.archive.sealer, fault="no room")
    host = replace(quiet.upstream.hosts[0], state="waiting", last_error="HTTP 502")
    broken = replace(
        quiet,
        log_fault="disk full",
        cache_fault="disk full",
        upstream=replace(quiet.upstream, hosts=(host,)),
        appview=replace(quiet.appview, down=True, last_error="timeout"),
        archive=replace(quiet.archive, archiver=archiver, sealer=sealer),
    )
    found = faults(broken, quiet)
    assert found["log"] == "Nothing can be written: disk full"
    assert found[f"host {host.url}"] == f"{host.url} is away: HTTP 502"
    assert found["appview"].endswith(": timeout")
    assert found["archive failing"].endswith(": refused")
    assert {"cache", "sealing"} < found.keys()


async def test_what_has_happened_is_told_of_what_was_counted(quiet: Snapshot) -> None:
    assert quiet.upstream is not None
    now = replace(
        quiet,
        upstream=replace(quiet.upstream, gaps=1),
        hydration=replace(quiet.hydration, unresolved=3),
    )
    assert moments(now, quiet) == {
        "gap": "1 gap in the stream: no host had what came in between",
    }
    assert faults(now, quiet).keys() - faults(quiet, quiet).keys() == {"unresolved"}
    assert "unresolved" not in faults(now, now)
    assert moments(now, now) == {}


async def test_a_clock_that_is_set_back_begins_the_samples_anew(quiet: Snapshot) -> None:
    """A page that asks for what is above its newest gets each once, and no rate is made up."""
    samples = Samples()
    assert quiet.log is not None
    before = quiet
    for number, seconds in enumerate((7200, 7210, 10, 20, 30)):
        seen = later(quiet, seconds, log=replace(quiet.log, records=100 * number))
        samples.add(seen, before)
        before = seen
    told = samples.since(0)
    assert len(told["seconds"]) == 2
    assert told["figures"]["events"] == [10, 10]
    assert {len(column) for host in told["hosts"].values() for column in host.values()} == {2}
    assert samples.since(told["seconds"][-1])["seconds"] == []
