"""How late records are delivered, to whom that means something; how far behind subscribers are."""

from pathlib import Path

from tests.server.harness import open_stream, serving
from turbod.eventlog.log import CHUNKS_PER_SAMPLE
from turbod.histogram import BEHIND_SECONDS

SAMPLES = 5


async def test_one_chunk_of_eight_is_timed_to_each_who_had_all_before(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, harness.subscribe() as one, harness.subscribe() as two:
        for client in (one, two):
            await client.news()
        for _ in range(SAMPLES * CHUNKS_PER_SAMPLE):
            await harness.fill(1)
            await one.records(1)
            await two.records(1)
        found = harness.server.statistics().delivery_seconds
        assert found.count == 2 * SAMPLES
        assert found.counts[-1] == 0


async def test_who_resumes_is_no_late_delivery(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        for _ in range(SAMPLES * CHUNKS_PER_SAMPLE):
            await harness.fill(1)
        async with harness.subscribe("cursor=0") as late:
            await late.news()
            await late.records(SAMPLES * CHUNKS_PER_SAMPLE)
            assert harness.server.statistics().delivery_seconds.count == 0


async def test_who_takes_nothing_is_behind(tmp_path: Path) -> None:
    """By the time of the records, whoever else keeps up."""
    async with (
        serving(tmp_path) as harness,
        await open_stream(harness),
        harness.subscribe() as other,
    ):
        await other.news()
        for _ in range(30):
            await harness.fill(10, padding=50_000)
            await other.records(10)
        seen = harness.server.statistics()
        behind = seen.behind_seconds
        assert (behind.bounds, behind.count, seen.subscribers) == (BEHIND_SECONDS, 2, 2)
        assert seen.farthest_behind_seconds > 0
