"""What is not given up: a host that fails again and again, an event for which there is no room."""

import trio

from tests.upstream.fake_jetstream import BASE_US, SECOND, FakeJetstream, post, reading
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


async def test_what_comes_while_there_is_no_room_is_taken_when_there_is() -> None:
    host = FakeJetstream()
    posts = [post(number, at=BASE_US + number * SECOND) for number in range(1000)]
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        for first in range(0, len(posts), 100):
            read.has_room = False
            host.emit(*posts[first : first + 100])
            await trio.sleep(0.02)
            read.make_room()
            await trio.sleep(0.01)
        await read.until_taken(len(posts))
        assert read.rkeys == [f"r{number}" for number in range(len(posts))]
