"""The simulated Jetstream hosts over real sockets, with every fault they can have."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    wrap_client_stream,
)
from websockets.sync.client import connect
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from turbod.envelope import Malformed
from turbod.event import parse
from turbod.simulation import jetstream_host
from turbod.simulation.faults import BROKEN, POISON
from turbod.simulation.jetstream_host import JetstreamHost
from turbod.simulation.questions import POSTS
from turbod.simulation.trace import events
from turbod.simulation.world import Simulation, simulated

SILENCE_SECONDS = 0.15
PATIENCE_SECONDS = 5.0
HANDSHAKE = (
    b"GET /subscribe?cursor=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@asynccontextmanager
async def connected(host: JetstreamHost, query: str = "") -> AsyncIterator[WebSocketConnection]:
    """Connect on a stream of our own: trio-websocket leaves its sockets open after a refusal."""
    stream = await trio.open_tcp_stream("127.0.0.1", host.port)
    async with stream, trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE_SECONDS):
            socket = await wrap_client_stream(
                nursery, stream, "127.0.0.1", f"/subscribe{query}", max_message_size=4_000_000
            )
        yield socket
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def reading(host: JetstreamHost, query: str = "") -> AsyncIterator[WebSocketConnection]:
    before = len(host.connects)
    async with connected(host, query) as socket:
        with trio.fail_after(PATIENCE_SECONDS):
            while len(host.connects) == before:  # noqa: ASYNC110 - the host tells nobody
                await trio.sleep(0.001)
        yield socket


async def refused(host: JetstreamHost, query: str = "?cursor=1") -> tuple[bytes, bytes]:
    """Ask for an upgrade over a raw socket; return the answer's first line and its body."""
    answer = b""
    stream = await trio.open_tcp_stream("127.0.0.1", host.port)
    with trio.fail_after(PATIENCE_SECONDS):
        async with stream:
            await stream.send_all(HANDSHAKE.replace(b"?cursor=1", query.encode()))
            while data := await stream.receive_some():
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], body


async def read(socket: WebSocketConnection, count: int) -> list[bytes]:
    with trio.fail_after(PATIENCE_SECONDS):
        return [str(await socket.get_message()).encode() for _ in range(count)]


async def read_rest(socket: WebSocketConnection) -> list[bytes]:
    """Read until nothing comes for a while."""
    got: list[bytes] = []
    with trio.move_on_after(SILENCE_SECONDS) as patience:
        while True:
            got.append(str(await socket.get_message()).encode())
            patience.deadline = trio.current_time() + SILENCE_SECONDS
    return got


def identities(messages: list[bytes]) -> list[int]:
    return [parse(message).identity for message in messages]


async def test_live_events_come_in_order_and_nothing_from_before_the_connect() -> None:
    async with simulated(hosts=1) as simulation:
        simulation.emit(50)
        host = simulation.jetstreams[0]
        async with reading(host) as socket:
            emitted = simulation.emit(300)
            assert await read(socket, 300) == emitted
            assert await read_rest(socket) == []


async def test_a_cursor_is_inclusive_and_one_from_the_future_means_live() -> None:
    async with simulated(hosts=1) as simulation:
        emitted = simulation.emit(400)
        host = simulation.jetstreams[0]
        cursor = parse(emitted[123]).time_us
        async with reading(host, f"?cursor={cursor}") as socket:
            assert await read(socket, 277) == emitted[123:]
        async with reading(host, f"?cursor={parse(emitted[-1]).time_us + 10**9}") as socket:
            assert await read_rest(socket) == []
            emitted = simulation.emit()
            assert await read(socket, 1) == emitted
        async with reading(host, "?cursor=1") as socket:
            assert await read(socket, 401) == simulation.everything()


async def test_collections_filter_commits_only_and_dids_filter_everything() -> None:
    async with simulated(hosts=1) as simulation:
        simulation.emit(2000)
        host = simulation.jetstreams[0]
        events = [parse(message) for message in simulation.everything()]
        query = "?cursor=1&wantedCollections=app.bsky.graph.*&wantedCollections=app.bsky.feed.post"
        wanted = [
            event.message
            for event in events
            if event.kind != "commit"
            or event.collection.startswith("app.bsky.graph.")
            or event.collection == "app.bsky.feed.post"
        ]
        async with reading(host, query) as socket:
            assert await read(socket, len(wanted)) == wanted
        did = next(event.did for event in events if event.kind == "account")
        mine = [event.message for event in events if event.did == did]
        async with reading(host, f"?cursor=1&wantedDids={did}") as socket:
            assert await read(socket, len(mine)) == mine
            assert await read_rest(socket) == []


async def test_two_hosts_have_the_same_events_with_stamps_of_their_own() -> None:
    async with simulated(hosts=2) as simulation:
        simulation.emit(100)
        one, other = simulation.everything(0), simulation.everything(1)
        assert not set(one) & set(other)
        assert identities(one) == identities(other)
        host = simulation.jetstreams[1]
        async with reading(host, f"?cursor={parse(other[40]).time_us}") as socket:
            assert await read(socket, 60) == other[40:]


async def test_v2_adds_its_own_number_takes_it_as_a_cursor_and_stamps_a_commit_once() -> None:
    async with simulated(hosts=2, version="v2", mix={"post": 1}) as simulation:
        simulation.emit(600)
        for number, host in enumerate(simulation.jetstreams):
            events = [parse(message) for message in simulation.everything(number)]
            cursors = [event.upstream_cursor for event in events]
            assert cursors == list(range(cursors[0], cursors[0] + 600))
            assert len({event.time_us for event in events}) < 600
            async with reading(host, f"?cursor={cursors[100]}") as socket:
                assert await read(socket, 500) == [event.message for event in events[100:]]
            async with reading(host, f"?cursor={events[100].time_us}") as socket:
                got = await read(socket, 500)
                assert events[100].message in got
        first = parse(simulation.everything(0)[0]).upstream_cursor
        assert first != parse(simulation.everything(1)[0]).upstream_cursor


async def test_renumbering_begins_at_one_and_cuts_the_connections() -> None:
    async with simulated(hosts=1, version="v2") as simulation:
        host = simulation.jetstreams[0]
        host.renumber()
        await trio.sleep(0.01)
        simulation.emit(5)
        async with reading(host) as socket:
            host.lose_history()
            host.renumber()
            with pytest.raises(ConnectionClosed):
                await read(socket, 6)
        simulation.emit(3)
        assert parse(simulation.everything()[5]).upstream_cursor == 1


@pytest.mark.parametrize(
    ("version", "query", "text"),
    [
        ("v1", "?cursor=x", b"invalid cursor: x"),
        ("v2", "?cursor=x", b'subscribe: invalid cursor: "x"'),
        ("v2", "?cursor=-1", b"subscribe: invalid cursor: negative value -1"),
        ("v1", "?wantedCollections=a", b"invalid subscriber options: invalid collection: a"),
        ("v1", "?wantedDids=x", b"invalid subscriber options"),
    ],
)
async def test_bad_parameters_are_refused_in_plain_text(
    version: str, query: str, text: bytes
) -> None:
    async with simulated(hosts=1, version=version) as simulation:
        status, body = await refused(simulation.jetstreams[0], query)
        assert status.startswith(b"HTTP/1.1 400 ")
        assert body.strip() == text


async def test_given_lines_come_byte_for_byte_even_where_they_are_no_events(
    captures: Path,
) -> None:
    lines = (captures / "jetstream-v1/events.jsonl").read_bytes().splitlines()
    lines += [b"", b"{", b"[" * 5000, b'{"did":1}', b'{"time_us":"x","did":"y","kind":"commit"}']
    async with simulated(hosts=2) as simulation:
        simulation.feed(lines)
        for host in simulation.jetstreams:
            async with reading(host, "?cursor=1") as socket:
                assert await read(socket, len(lines)) == lines
        at = parse(lines[50]).time_us
        async with reading(simulation.jetstreams[0], f"?cursor={at}") as socket:
            assert (await read(socket, 1))[0] in lines[:51]


async def test_in_lockstep_nothing_goes_before_it_is_released() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        host.faults.hold = True
        emitted = simulation.emit(10)
        async with reading(host, "?cursor=1") as socket:
            assert await read_rest(socket) == []
            host.release()
            assert await read_rest(socket) == emitted[:1]
            host.release(3)
            assert await read_rest(socket) == emitted[1:4]


async def test_a_silent_host_still_pongs_and_goes_on_where_it_was() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        async with reading(host) as socket:
            host.faults.silent = True
            emitted = simulation.emit(5)
            assert await read_rest(socket) == []
            with trio.fail_after(10):
                await socket.ping()
            host.faults.silent = False
            assert await read(socket, 5) == emitted


async def test_a_dead_host_does_not_pong() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        async with reading(host) as socket:
            host.faults.dead = True
            simulation.emit(5)
            with trio.move_on_after(SILENCE_SECONDS) as patience:
                await socket.ping()
            assert patience.cancelled_caught
            assert await read_rest(socket) == []


async def test_blind_hosts_miss_the_same_accounts_always_and_each_host_others() -> None:
    async with simulated(hosts=2) as simulation:
        simulation.emit(1000)
        seen = []
        for number, host in enumerate(simulation.jetstreams):
            host.faults.blind_fraction = 0.5
            async with reading(host, "?cursor=1") as socket:
                seen.append({parse(message).did for message in await read_rest(socket)})
            every = {parse(message).did for message in simulation.everything(number)}
            assert 0.3 < len(seen[number]) / len(every) < 0.7
        assert seen[0] != seen[1]
        victim = min(seen[0])
        host = simulation.jetstreams[0]
        host.faults.misses = lambda did: did == victim
        async with reading(host, "?cursor=1") as socket:
            got = {parse(message).did for message in await read_rest(socket)}
        assert got == seen[0] - {victim}


async def test_a_lagging_host_sends_late_with_the_stamps_of_the_time() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        host.faults.lag_seconds = 0.3
        async with reading(host) as socket:
            started = trio.current_time()
            emitted = simulation.emit(3)
            assert await read(socket, 3) == emitted
            assert trio.current_time() - started >= 0.29


async def test_what_one_host_has_alone_no_other_sends() -> None:
    async with simulated(hosts=2) as simulation:
        simulation.jetstreams[1].faults.alone_fraction = 0.3
        simulation.emit(500)
        got = []
        for host in simulation.jetstreams:
            async with reading(host, "?cursor=1") as socket:
                got.append(set(identities(await read_rest(socket))))
        assert got[1] == set(identities(simulation.everything()))
        assert got[0] < got[1]
        assert 100 < len(got[1] - got[0]) < 200


async def test_a_host_may_begin_before_the_position_asked_for() -> None:
    async with simulated(hosts=1) as simulation:
        simulation.live_through(60, rate=10)
        host = simulation.jetstreams[0]
        host.faults.repeat_seconds = 30
        async with reading(host) as socket:
            assert 290 < len(await read_rest(socket)) <= 301
        newest = parse(simulation.everything()[-1]).time_us
        async with reading(host, f"?cursor={newest}") as socket:
            assert 290 < len(await read_rest(socket)) <= 301


async def test_stamps_from_the_future_hold_from_then_on_and_work_as_cursors() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        simulation.emit(10)
        host.stamp(3600)
        ahead = simulation.emit(10)
        assert 3590 < parse(ahead[0]).time_us / 1_000_000 - time.time() < 3601
        host.stamp(-7200)
        simulation.emit(10)
        everything = simulation.everything()
        assert everything[10:20] == ahead
        async with reading(host, f"?cursor={parse(ahead[5]).time_us}") as socket:
            assert await read(socket, 15) == everything[15:]
        async with reading(host, f"?cursor={parse(everything[3]).time_us}") as socket:
            assert await read(socket, 27) == everything[3:]


async def test_history_that_was_lost_is_passed_over_in_silence() -> None:
    async with simulated(hosts=1) as simulation:
        simulation.emit(10)
        host = simulation.jetstreams[0]
        host.lose_history()
        kept = simulation.emit(5)
        async with reading(host, "?cursor=1") as socket:
            assert await read_rest(socket) == kept


async def test_retention_is_by_age_and_by_number() -> None:
    async with simulated(hosts=1, entries_kept=400) as simulation:
        simulation.live_through(100, rate=10)
        host = simulation.jetstreams[0]
        assert 400 <= len(simulation.everything()) <= 500
        host.retain(10)
        async with reading(host, "?cursor=1") as socket:
            assert 95 <= len(await read_rest(socket)) <= 100


async def test_poison_comes_between_the_events_and_every_one_of_it_is_refused() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        host.faults.poison_every = 2
        emitted = simulation.emit(2 * len(POISON))
        async with reading(host, "?cursor=1") as socket:
            got = await read(socket, 3 * len(POISON))
        assert [message for message in got if message not in POISON] == emitted
        assert set(got) - set(emitted) == set(POISON)
    for message in POISON:
        with pytest.raises(Malformed):
            parse(message)


def read_frames(protocol: FrameProtocol, data: bytes) -> None:
    protocol.receive_bytes(data)
    list(protocol.received_frames())


async def test_broken_frames_come_between_the_events_and_no_client_can_read_on() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        host.faults.break_every = 3
        simulation.emit(3 * len(BROKEN))
        stream = await trio.open_tcp_stream("127.0.0.1", host.port)
        got = b""
        async with stream:
            await stream.send_all(HANDSHAKE)
            with trio.move_on_after(SILENCE_SECONDS):
                while data := await stream.receive_some():
                    got += data
        assert all(broken in got for broken in BROKEN)
    for broken in BROKEN:
        protocol = FrameProtocol(client=True, extensions=[])
        with pytest.raises(ParseFailed):
            read_frames(protocol, broken)


def hang_up(host: JetstreamHost) -> None:
    host.faults.hang_up = True


def mute(host: JetstreamHost) -> None:
    host.faults.mute_handshake = True


@pytest.mark.parametrize("fault", [hang_up, mute])
async def test_a_handshake_may_get_no_answer(fault: Callable[[JetstreamHost], None]) -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        fault(host)
        stream = await trio.open_tcp_stream("127.0.0.1", host.port)
        async with stream:
            await stream.send_all(b"GET /subscribe HTTP/1.1\r\nHost: x\r\n\r\n")
            with trio.move_on_after(SILENCE_SECONDS) as patience:
                assert await stream.receive_some() == b""
            assert patience.cancelled_caught is host.faults.mute_handshake
    assert host.connects == []


async def test_a_handshake_may_be_refused_with_a_status() -> None:
    async with simulated(hosts=1) as simulation:
        simulation.jetstreams[0].faults.refuse_status = 503
        status, _ = await refused(simulation.jetstreams[0])
        assert status.startswith(b"HTTP/1.1 503 ")


async def test_a_host_that_is_down_refuses_and_comes_up_on_the_same_port() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        port = host.port
        async with reading(host) as socket:
            host.go_down()
            with pytest.raises(ConnectionClosed):
                await read(socket, 1)
        with pytest.raises(OSError, match="failed"):
            await trio.open_tcp_stream("127.0.0.1", port)
        missed = simulation.emit(5)
        host.come_up()
        await trio.sleep(0.01)
        async with reading(host, f"?cursor={parse(missed[0]).time_us}") as socket:
            assert host.port == port
            assert await read(socket, 5) == missed


async def test_a_host_keeps_its_rate() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        host.faults.messages_per_second = 200
        simulation.emit(1000)
        async with reading(host, "?cursor=1") as socket:
            started = trio.current_time()
            await read(socket, 100)
            assert 0.4 < trio.current_time() - started < 10


async def test_events_happen_by_themselves_at_the_rate() -> None:
    async with simulated(hosts=1, rate=500) as simulation:
        await trio.sleep(0.6)
        simulation.rate = 0
        assert 150 < len(simulation.everything()) < 400


async def test_one_client_that_does_not_read_holds_nobody_up() -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        async with reading(host), reading(host) as socket:
            emitted = simulation.emit(6_000)
            assert await read(socket, 6_000) == emitted


async def test_replay_is_never_the_bottleneck(
    record_property: Callable[[str, object], None],
) -> None:
    """Ready frames go straight to the socket: well above 20,000 messages a second."""
    async with simulated(hosts=1) as simulation:
        simulation.emit(15_000)
        size = sum(map(len, simulation.everything()))
        host = simulation.jetstreams[0]
        stream = await trio.open_tcp_stream("127.0.0.1", host.port)
        async with stream:
            await stream.send_all(HANDSHAKE)
            started, got = time.process_time(), 0
            while got < size:
                got += len(await stream.receive_some(1 << 20))
        rate = 15_000 / (time.process_time() - started)
        record_property("messages_per_cpu_second", int(rate))
        assert rate > 20_000


async def test_nothing_is_left_behind(simulation_ends: Simulation) -> None:
    for host in simulation_ends.jetstreams:
        with pytest.raises(OSError, match="failed"):
            await trio.open_tcp_stream("127.0.0.1", host.port)


@pytest.fixture
async def simulation_ends() -> Simulation:
    async with simulated() as simulation, reading(simulation.jetstreams[0]):
        simulation.emit(10)
    return simulation


async def test_given_events_can_be_made_known_to_the_app_view() -> None:
    async with simulated(hosts=1, accounts=20) as simulation:
        simulation.feed(events(seconds=5, rate=100), indexed=True)
        posts = [
            event.at_uri
            for event in map(parse, simulation.everything())
            if event.collection == "app.bsky.feed.post" and event.operation == "create"
        ]
        assert posts
        assert set(simulation.index.posts) <= set(posts)
        assert any(simulation.appview.view(POSTS, uri) for uri in posts)


async def test_another_library_reads_the_same_bytes() -> None:
    """The frames are made by hand, so let somebody else's client judge them, at every length."""
    lengths = (0, 1, 125, 126, 127, 65535, 65536, 200_000)
    async with simulated(hosts=1) as simulation:
        lines = [b"x" * length for length in lengths]
        simulation.feed(lines)

        def read_all() -> list[str | bytes]:
            url = simulation.jetstreams[0].url + "?cursor=0"
            with connect(url, compression=None, proxy=None) as client:
                return [client.recv(timeout=PATIENCE_SECONDS) for _ in lines]

        got = await trio.to_thread.run_sync(read_all)
        assert got == [line.decode() for line in lines]


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_pings_go_out_and_only_v2_cuts_who_does_not_answer(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_host, "_PING_SECONDS", 0.05)
    monkeypatch.setattr(jetstream_host, "_PONG_SECONDS", 0.1)
    async with simulated(hosts=1, version=version) as simulation:
        stream = await trio.open_tcp_stream("127.0.0.1", simulation.jetstreams[0].port)
        got, ended = b"", False
        async with stream:
            await stream.send_all(HANDSHAKE)
            with trio.move_on_after(0.6):
                while data := await stream.receive_some():
                    got += data
                ended = True
        assert b"\r\n\r\n\x89\x04" in got  # a ping; the library puts 4 bytes into it
        assert ended is (version == "v2")


async def test_a_client_that_answers_pings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream_host, "_PING_SECONDS", 0.05)
    async with simulated(hosts=1, version="v2") as simulation:
        async with reading(simulation.jetstreams[0]) as socket:
            await trio.sleep(0.3)
            emitted = simulation.emit()
            event = parse((await read(socket, 1))[0])
        assert [event.identity] == identities(emitted)


@pytest.mark.parametrize("outbox_events", [0, 1000])
async def test_a_live_client_that_falls_behind_may_be_cut_without_a_word(
    outbox_events: int,
) -> None:
    async with simulated(hosts=1) as simulation:
        host = simulation.jetstreams[0]
        host.faults.outbox_events = outbox_events
        simulation.emit(10)
        stream = await trio.open_tcp_stream("127.0.0.1", host.port)
        ended = False
        async with stream:
            await stream.send_all(HANDSHAKE)
            await trio.sleep(0.1)
            for _ in range(10):
                simulation.emit(2000)
                await trio.sleep(0.01)
            with trio.move_on_after(0.5):
                while await stream.receive_some(1 << 20):
                    pass
                ended = True
        assert ended is bool(outbox_events)
