import errno
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trio

from tests.server.harness import DID, Answer, did, post, serving
from turbod.config import ServerSettings
from turbod.filter import Filter
from turbod.server.admission import Admission, group
from turbod.server.interests import Interests, TooManyFilters
from turbod.server.request import Refusal


def test_each_bound_refuses_and_what_left_makes_room() -> None:
    admission = Admission(
        ServerSettings(max_connections=3, max_connections_per_address=2, max_handshakes=2)
    )
    first, second = admission.admit("192.0.2.1"), admission.admit("192.0.2.1")
    with pytest.raises(Refusal, match="from your address"):
        admission.admit("192.0.2.1")
    with pytest.raises(Refusal, match="whole request"):
        admission.admit("192.0.2.2")
    first.greeted()
    third = admission.admit("192.0.2.2")
    second.greeted()
    with pytest.raises(Refusal, match="3 connections are open;"):
        admission.admit("192.0.2.3")
    for ticket in (first, second, third):
        ticket.close()
    assert (admission.connections, admission.handshakes) == (0, 0)
    assert not admission._by_address
    assert not admission._silent


def test_one_address_that_says_nothing_leaves_room_for_others() -> None:
    admission = Admission(ServerSettings(max_handshakes=8, trusted_proxies=("10.0.0.1",)))
    silent = [admission.admit("192.0.2.1") for _ in range(6)]
    with pytest.raises(Refusal, match="6 connections from your address"):
        admission.admit("192.0.2.1")
    other = admission.admit("192.0.2.2")
    other.greeted()
    silent[0].greeted()
    silent.append(admission.admit("192.0.2.1"))
    for ticket in (other, *silent):
        ticket.close()
    proxied = [admission.admit("10.0.0.1") for _ in range(8)]
    for ticket in proxied:
        ticket.close()
    assert (admission.handshakes, admission._silent) == (0, {})


def test_an_ipv6_network_counts_as_one_address() -> None:
    assert group("2001:db8::1") == group("2001:db8::2") != group("2001:db8:0:1::1")
    assert group("::ffff:192.0.2.1") == group("192.0.2.1") != group("192.0.2.2")
    assert group("") == ""


def test_equal_filters_are_counted_once_and_given_back() -> None:
    interests = Interests(max_dids=3)
    one = interests.acquire(Filter(dids=frozenset({DID, did(1)})))
    other = interests.acquire(Filter(dids=frozenset({did(1), DID})))
    assert one is other
    assert (one.users, interests.dids) == (2, 2)
    with pytest.raises(TooManyFilters):
        interests.acquire(Filter(about=frozenset({DID, did(1)})))
    interests.acquire(Filter())  # takes no room
    interests.release(one)
    interests.release(other)
    assert interests.dids == 0
    again = interests.acquire(Filter(dids=frozenset({DID, did(1)})))
    assert again.serial != one.serial


async def test_above_the_bound_of_connections_there_is_429_and_room_again_later(
    tmp_path: Path,
) -> None:
    settings = ServerSettings(max_connections=2)
    async with serving(tmp_path, settings=settings) as harness:
        async with harness.subscribe() as one, harness.subscribe() as two:
            await one.news()
            await two.news()
            for _ in range(5):
                refused = await harness.upgrade()
                assert refused.error == (429, "TooManyConnections")
                assert int(refused.headers["retry-after"]) > 0
            await harness.publish(post(1))
            assert len(await one.records(1)) == len(await two.records(1)) == 1
        await harness.settled(lambda: harness.server.statistics().connections == 0)
        assert (await harness.get("/healthz")).status == 200
        assert harness.server.statistics().refused == {"TooManyConnections": 5}


async def test_above_the_bound_of_handshakes_there_is_429(tmp_path: Path) -> None:
    settings = ServerSettings(max_handshakes=3, handshake_seconds=0.3)
    async with serving(tmp_path, settings=settings) as harness, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(await harness.connect())
        await harness.settled(lambda: harness.server.statistics().handshakes == 3)
        assert (await harness.get("/healthz")).error == (429, "TooManyConnections")
        await harness.settled(lambda: harness.server.statistics().handshakes == 0)
        assert (await harness.get("/healthz")).status == 200


async def test_all_filters_together_are_bounded(tmp_path: Path) -> None:
    settings = ServerSettings(max_filter_dids=10)
    eight = urlencode([("wantedDids", did(n)) for n in range(8)])
    async with serving(tmp_path, settings=settings) as harness:
        async with harness.subscribe(eight) as client, harness.subscribe() as other:
            await client.news()
            refused = await harness.upgrade(
                "/turbostream?wantedDids=" + "&wantedDids=".join(did(n) for n in range(20, 23))
            )
            assert refused.error == (429, "TooManyFilters")
            assert int(refused.headers["retry-after"]) > 0
            async with harness.subscribe(eight) as same:  # the same filter takes no more room
                await same.news()
            await other.news()
            await other.update(wantedDids=[did(n) for n in range(30, 33)])
            code, (error,) = await other.end()
            assert (code, error["error"]) == (1008, "InvalidMessage")
            assert harness.server.statistics().filter_dids == 8
        await harness.settled(lambda: harness.server.statistics().filter_dids == 0)


async def test_1400_dids_fit_into_a_head(tmp_path: Path) -> None:
    query = "&".join(f"wantedDids={did(n)}" for n in range(1400))
    assert 60_000 < len(query) < 64 * 1024
    async with serving(tmp_path) as harness:
        async with harness.subscribe(query) as client:
            await client.news()
            await harness.publish(post(1, author=did(1400)), post(2, author=did(1399)))
            assert [one["did"] for one in await client.records(1)] == [did(1399)]
        more = query + "".join(f"&wantedDids={did(n)}" for n in range(1400, 1500))
        refused = await harness.upgrade(f"/turbostream?{more}")
        assert refused.error == (431, "RequestHeaderFieldsTooLarge")
        assert "options_update" in refused.json["message"]


async def test_20000_dids_come_by_an_update(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness, harness.subscribe("requireHello=true") as client:
        await client.update(
            wantedDids=[did(n) for n in range(10_000)],
            aboutDids=[did(n) for n in range(10_000, 20_000)],
        )
        await client.news()
        assert harness.server.statistics().filter_dids == 20_000
        await harness.publish(
            post(1, author=did(20_001)),
            post(2, author=did(9_999)),
            post(3, author=did(20_001), mentions=[did(19_999)]),
        )
        found = await client.records(2)
        assert [one["message"]["commit"]["rkey"] for one in found] == ["k2", "k3"]


async def test_no_descriptors_left_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS]
    accept = trio.SocketListener.accept

    async def failing(listener: trio.SocketListener) -> trio.SocketStream:
        if failures:
            raise OSError(failures.pop(), "no room")
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    async with serving(tmp_path) as harness:
        assert (await harness.get("/healthz")).status == 200
        assert not failures


async def test_a_mistake_of_our_own_ends_one_connection_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> dict[str, int]:
        raise ZeroDivisionError

    async with serving(tmp_path, status=broken) as harness, harness.subscribe() as client:
        await client.news()
        for _ in range(15):
            assert await harness.exchange("GET /status HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        assert harness.server.statistics().errors == 15
        assert (await harness.get("/healthz")).status == 200
        await harness.publish(post(1))
        assert len(await client.records(1)) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


async def test_every_refusal_is_counted_by_its_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        Answer(await harness.exchange(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"))
        await harness.get("/nothing")
        await harness.get("/nothing")
        assert harness.server.statistics().refused == {"MethodNotAllowed": 1, "NotFound": 2}
