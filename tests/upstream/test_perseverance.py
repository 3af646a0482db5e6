"""However often a host fails, it is tried again; each time later, up to the bound."""

from tests.upstream.fake_jetstream import BASE_US, FakeJetstream, post, reading
from turbod.config import UpstreamSettings

FAILURES = 25


async def test_after_many_failed_connects_the_stream_goes_on_when_the_host_is_back() -> None:
    host = FakeJetstream()
    host.answer = "hang up"
    settings = UpstreamSettings(longest_backoff_seconds=0.1)
    async with reading(host, settings=settings) as read:
        await read.until(lambda: host.connects >= FAILURES)
        host.answer = "serve"
        await read.until(lambda: bool(host.requests))
        host.emit(post(1, at=BASE_US))
        await read.until_taken(1)
        assert read.rkeys == ["r1"]
