"""Real sockets: what one host can do to us, and that each is noticed and got over."""

import ssl
from array import array

import pytest
import trio

from tests.upstream.fake_jetstream import (
    BASE_US,
    SECOND,
    FakeJetstream,
    FakeLog,
    frame,
    post,
    reading,
)
from turbod.config import UpstreamSettings
from turbod.event import parse
from turbod.eventlog.log import Pruned
from turbod.upstream import connection
from turbod.upstream.connection import RECEIVE_BYTES, Disconnected, address_of, connect
from turbod.upstream.position import Position
from turbod.upstream.upstream import Upstream

NOW = BASE_US + 3600 * SECOND
WRONG_ACCEPT = (
    "101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: AAAA"
)


def posts(first: int, last: int, *, since: int = BASE_US) -> list[bytes]:
    return [post(n, at=since + n * SECOND, account=n % 7) for n in range(first, last)]


def rkeys(first: int, last: int) -> list[str]:
    return [f"r{n}" for n in range(first, last)]


def error_of(upstream: Upstream, host: int = 0) -> str:
    return upstream.statistics().hosts[host].last_error or ""


async def test_a_first_start_asks_for_no_cursor_and_for_all_that_feeds_the_cache() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        assert "cursor" not in host.requests[0]
        wanted = host.requests[0]["wantedCollections"]
        assert "app.bsky.actor.profile" in wanted
        assert "app.bsky.feed.post" in wanted
        assert "wantedDids" not in host.requests[0]
        host.emit(*posts(0, 50))
        await read.until_taken(50)
        assert read.rkeys == rkeys(0, 50)
        assert [intake for _, intake, _ in read.taken] == list(range(1, 51))
        assert read.upstream.state() == "live"


async def test_both_hosts_together_give_each_event_once() -> None:
    first, second = FakeJetstream(), FakeJetstream()
    async with reading(first, second) as read:
        await read.until(lambda: bool(first.requests and second.requests))
        first.emit(*posts(0, 60))
        second.emit(*posts(0, 60, since=BASE_US + 1234), *posts(60, 80))
        await read.until_taken(80)
        await trio.sleep(0.05)
        assert sorted(read.rkeys) == sorted(rkeys(0, 80))
        statistics = read.upstream.statistics()
        assert sum(host.duplicate for host in statistics.hosts) == 60
        assert statistics.identities == 80


@pytest.mark.parametrize("reset", [False, True])
async def test_a_dropped_connection_goes_on_at_the_last_event(reset: bool) -> None:  # noqa: FBT001 - a parameter of the test
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 20))
        await read.until_taken(20)
        await host.send_raw(frame(post(99, at=BASE_US))[:40])  # in the middle of a frame
        await host.drop(reset=reset)
        host.emit(*posts(20, 40))
        await read.until_taken(40)
        assert read.rkeys == rkeys(0, 40)
        assert read.gaps == []
        asked = int(host.requests[1]["cursor"][0])
        assert asked <= BASE_US + 19 * SECOND


async def test_broken_before_the_first_event_it_does_not_skip_what_came_meanwhile() -> None:
    """A client that remembers no position reconnects live, and loses what lies between."""
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        await host.drop()
        host.history.extend(posts(3600, 3610))
        await read.until_taken(10)
        assert read.rkeys == rkeys(3600, 3610)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("mute", "no answer to upgrade within 0.5 s"),
        ("half", "refused: 429"),
        ("hang up", "hung up|not an HTTP answer|lost"),
        ("garbage", "not an HTTP answer"),
        ("429 Too Many Requests", "refused: 429"),
        ("503 Service Unavailable", "refused: 503"),
        ("301 Moved Permanently\r\nLocation: https://else.where", "refused: 301 https://else"),
        ("200 OK", "refused: 200"),
        (
            WRONG_ACCEPT,
            "accept key is wrong",
        ),
    ],
)
async def test_a_connect_that_fails_is_named_and_tried_again(answer: str, words: str) -> None:
    host = FakeJetstream()
    host.answer = answer
    async with reading(host) as read:
        await read.until(lambda: host.connects >= 2)
        error = error_of(read.upstream)
        assert any(word in error for word in words.split("|")), error
        host.answer = "serve"
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 3))
        await read.until_taken(3)


@pytest.mark.slow
async def test_a_refused_connect_is_named_and_state_becomes_stalled() -> None:
    host = FakeJetstream()
    with_port = trio.socket.socket()
    await with_port.bind(("127.0.0.1", 0))
    host.port = with_port.getsockname()[1]
    with_port.close()
    async with reading(host) as read:
        await read.until(lambda: "refused" in error_of(read.upstream))
        assert read.upstream.state() == "catching_up"
        await trio.sleep(5.1)
        assert read.upstream.state() == "stalled"


async def test_a_silent_host_that_answers_pings_is_quiet_and_stays() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        await trio.sleep(1.5)
        assert host.connects == 1
        assert read.upstream.state() == "live"


async def test_a_host_that_answers_no_ping_is_left_within_the_stated_time() -> None:
    host = FakeJetstream()
    host.hears = False
    async with reading(host) as read:
        await read.until(lambda: host.connects >= 2, seconds=0.4 + 0.3 + 0.5)
        assert "no pong" in error_of(read.upstream)


async def test_a_host_silent_while_another_delivers_is_stuck() -> None:
    """It answers pings all along, which proves nothing: what the other host has decides."""
    stuck, other = FakeJetstream(), FakeJetstream()
    async with reading(stuck, other) as read:
        await read.until(lambda: bool(stuck.requests and other.requests))
        stuck.is_silent = True
        stuck.emit(*posts(0, 30))
        other.emit(*posts(0, 30))
        await read.until(lambda: stuck.connects >= 2)
        assert "events elsewhere" in error_of(read.upstream)
        assert read.rkeys == rkeys(0, 30)


@pytest.mark.slow
async def test_a_truly_blind_host_is_asked_less_and_less_often() -> None:
    blind, other = FakeJetstream(), FakeJetstream()
    async with reading(blind, other) as read:
        await read.until(lambda: bool(blind.requests and other.requests))
        for n in range(30):
            other.emit(*posts(10 * n, 10 * n + 10))
            await trio.sleep(0.1)
        assert 2 <= blind.connects <= 4  # 0.4, 0.8, 1.6 s, not each 0.4 s
        assert read.rkeys == rkeys(0, 300)


async def test_malformed_messages_are_dropped_counted_and_do_no_harm() -> None:
    host = FakeJetstream()
    good = posts(0, 6)
    deep = b'{"did":"x","time_us":1,"kind":"commit","commit":' + b"[" * 5000 + b"]" * 5000 + b"}"
    odd = [
        post(90, at=BASE_US).replace(b'"x"', b'"\xff\xfe"'),
        deep,
        post(91, at=BASE_US, text="y" * 2_000_000),
        b'{"did":"did:web:x.y","time_us":1,"kind":"surprise"}',
        b'{"did":"did:web:x.y","kind":"commit","commit":{}}',
        b"not json",
        b"",
    ]
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        for message in odd:
            host.emit(message, *good[:1])
            del good[:1]
        await read.until_taken(6)
        await host.send_raw(frame(b"binary", 0x82))
        host.emit(*posts(10, 20))
        await read.until(lambda: "r19" in read.rkeys)
        assert host.connects == 1
        malformed = read.upstream.statistics().hosts[0].malformed
        assert malformed["frame"] == 1
        assert malformed["size"] == 1
        assert malformed["nesting"] == 1
        assert malformed["kind"] == 1
        assert malformed["time_us"] == 1
        assert malformed["json"] >= 3
        assert not {"r90", "r91"} & set(read.rkeys)


async def test_a_host_that_sends_only_malformed_messages_is_not_alive() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        with trio.move_on_after(3):
            while host.connects < 2:
                await host.send_raw(frame(b"rubbish"))
                await trio.sleep(0.05)
        assert "nothing but malformed" in error_of(read.upstream)


@pytest.mark.parametrize(
    "broken",
    [
        b"\x83\x00",
        b"\xf1\x00",
        b"\x81\x82\x00\x00\x00\x00{}",
        b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x02{}",
        b"\x09\x00",
        b"\x89\x7e\x01\x00" + bytes(256),
    ],
)
async def test_broken_framing_ends_the_connection_and_loses_nothing(broken: bytes) -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 10))
        await read.until_taken(10)
        await host.send_raw(broken)
        host.emit(*posts(10, 20))
        await read.until_taken(20)
        assert host.connects == 2
        assert read.rkeys == rkeys(0, 20)


async def test_a_close_is_named_with_code_and_reason() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        await host.send_raw(frame((1012).to_bytes(2, "big") + b"back soon", 0x88))
        await read.until(lambda: host.connects >= 2)
        assert error_of(read.upstream) == "closed by the host: 1012 back soon"


@pytest.mark.slow
async def test_without_room_the_host_is_held_then_left_and_nothing_is_lost() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 10))
        await read.until_taken(10)
        read.has_room = False
        host.emit(*posts(10, 1000))
        await trio.sleep(1)
        one_read = RECEIVE_BYTES // len(post(10, at=BASE_US))  # the one that filled it
        assert 11 <= len(read.taken) <= 10 + one_read
        assert read.upstream.state() == "catching_up"
        await trio.sleep(2.5)
        assert not host._streams  # held no longer than a pong may be late
        assert host.connects == 1
        assert read.upstream.state() == "catching_up"
        read.make_room()
        await read.until_taken(1000)
        assert read.rkeys == rkeys(0, 1000)
        assert read.gaps == []


async def test_events_that_only_feed_the_cache_are_passed_on_as_such() -> None:
    host = FakeJetstream()
    async with reading(host, collections=("app.bsky.feed.like",)) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 3))
        host.emit(post(4, at=BASE_US).replace(b"feed.post", b"feed.like"))
        host.emit(post(5, at=BASE_US).replace(b"feed.post", b"feed.other"))
        await read.until_taken(4)
        await trio.sleep(0.05)
        assert [logged for _, _, logged in read.taken] == [False, False, False, True]


async def test_positions_hold_back_until_everything_taken_before_is_done() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        read.is_done_at_once = False
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 10))
        await read.until_taken(10)
        read.upstream.done([])
        assert read.upstream.positions() == {}
        read.upstream.done([2, 3, 4, 5, 6, 7, 8, 9, 10])
        assert read.upstream.positions() == {}
        read.upstream.done([1])
        position = read.upstream.positions()[host.url]
        assert position.time_us == BASE_US
        assert position.latest_us <= BASE_US + 9 * SECOND


async def test_a_restart_goes_on_from_the_saved_position_without_a_second_copy() -> None:
    host, log = FakeJetstream(), FakeLog()
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        async with reading(host, log=log) as read:
            await read.until(lambda: bool(host.requests))
            host.emit(*posts(0, 30))
            await read.until_taken(30)
            positions = read.upstream.positions()
        host.emit(*posts(30, 50))
        async with reading(host, log=log, positions=positions) as read:
            await read.until_taken(20)
            await trio.sleep(0.05)
            assert read.rkeys == rkeys(30, 50)
            assert read.gaps == []
        nursery.cancel_scope.cancel()


class PrunedLog(FakeLog):
    """Lets its oldest records go while they are first read, and says so as the real one does."""

    async def read_identities(self, *, after: int, until: int) -> "array[int]":
        self.floor = self.records[10][0]
        if after >= until:
            return array("q")
        if after < self.floor:
            raise Pruned(f"what follows {after} was deleted")
        return await super().read_identities(after=after, until=until)


async def test_what_the_log_lets_go_while_it_is_read_is_done_without() -> None:
    host, log = FakeJetstream(), PrunedLog()
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        host.history = posts(0, 40)
        for message in host.history[:30]:
            log.append(parse(message), now_us=NOW)
        last = BASE_US + 29 * SECOND
        positions = {host.url: Position(last, 0, last, ())}
        async with reading(host, log=log, positions=positions) as read:
            await read.until_taken(10)
            await trio.sleep(0.05)
            assert read.rkeys == rkeys(30, 40)
            assert log.reads
            assert min(after for after, _ in log.reads) == log.floor
        nursery.cancel_scope.cancel()


async def test_a_host_that_repeats_an_hour_gives_no_second_copy_from_the_log() -> None:
    """Older than what was loaded at the start: the log's own hours are asked."""
    host, log = FakeJetstream(), FakeLog()
    history = posts(0, 8000)
    for message in history:
        log.append(parse(message), now_us=NOW)
    host.history = [*history, *posts(8000, 8010)]
    host.rewinds_us = 2 * 3600 * SECOND
    position = Position(BASE_US + 7999 * SECOND, 0, BASE_US + 7999 * SECOND, ())
    now = BASE_US + 8010 * SECOND
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        positions = {host.url: position}
        async with reading(host, log=log, positions=positions, now_us=lambda: now) as read:
            await read.until_taken(10)
            await trio.sleep(0.05)
            assert read.rkeys == rkeys(8000, 8010)
            assert read.upstream.statistics().hosts[0].duplicate > 7000
            assert any(after < BASE_US + 3600 * SECOND for after, _ in log.reads)
        nursery.cancel_scope.cancel()


async def test_a_host_without_a_position_begins_at_the_fallback_where_there_is_a_log() -> None:
    host = FakeJetstream()
    host.history = posts(0, 40)
    async with reading(host, fallback=Position(BASE_US + 20 * SECOND)) as read:
        await read.until_taken(25)
        assert read.rkeys == rkeys(15, 40)  # five seconds of slop
        assert read.gaps == []


async def test_equal_times_do_not_hide_events() -> None:
    """All operations of one commit carry one `time_us` on a v2 host."""
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*(post(n, at=BASE_US, account=1) for n in range(100)))
        await read.until_taken(100)
        await host.drop()
        host.emit(*(post(n, at=BASE_US, account=1) for n in range(100, 200)))
        await read.until_taken(200)
        assert read.rkeys == rkeys(0, 200)


async def test_one_stamp_from_the_future_does_not_move_the_position_past_what_is_to_come() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 20), post(999, at=BASE_US + 3000 * SECOND))
        await read.until_taken(21)
        await host.drop()
        host.emit(*posts(20, 40))
        await read.until_taken(41)
        assert sorted(read.rkeys) == sorted([*rkeys(0, 40), "r999"])


async def test_a_numbering_host_is_asked_by_its_number() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*(post(n, at=BASE_US, cursor=n + 1) for n in range(20)))
        await read.until_taken(20)
        await host.drop()
        host.emit(*(post(n, at=BASE_US, cursor=n + 1) for n in range(20, 40)))
        await read.until_taken(40)
        assert read.rkeys == rkeys(0, 40)
        assert host.requests[1]["cursor"] == ["17"]  # the oldest of four anchors


async def test_a_host_that_begins_to_number_anew_is_asked_by_time() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*(post(n, at=BASE_US + n * SECOND, cursor=n + 1001) for n in range(20)))
        await read.until_taken(20)
        await host.drop()
        host.history = [post(n, at=BASE_US + n * SECOND, cursor=n + 1) for n in range(30)]
        await read.until(lambda: len(host.requests) >= 2)
        host.emit(*(post(n, at=BASE_US + n * SECOND, cursor=n + 1) for n in range(30, 40)))
        await read.until_taken(40)
        assert read.rkeys == rkeys(0, 40)
        assert read.gaps == []
        assert int(host.requests[2]["cursor"][0]) >= 10**15


async def test_our_own_fault_is_not_taken_for_the_hosts() -> None:
    """A broken invariant ends the process; it must not become a reconnect."""
    host = FakeJetstream()
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True, allow_unwrapped=True):
        async with reading(host, settings=UpstreamSettings()) as read:

            def fail(*_: object) -> None:
                raise AssertionError

            read.upstream._intake.merge._take = fail
            await read.until(lambda: bool(host.requests))
            host.emit(*posts(0, 1))
            await trio.sleep(2)


async def test_a_clock_that_is_far_off_does_not_make_a_live_host_look_behind() -> None:
    host = FakeJetstream()
    host.history = posts(0, 10)
    async with reading(host, fallback=Position(BASE_US)) as read:
        with trio.move_on_after(5):
            n = 10
            while read.upstream.state() != "live":
                host.emit(post(n, at=BASE_US + 10 * SECOND + n * 10_000))
                n += 1
                await trio.sleep(0.01)
        assert read.upstream.state() == "live"


async def test_a_host_that_speaks_no_tls_is_named() -> None:
    host = FakeJetstream()
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        with pytest.raises(Disconnected, match="cannot agree on TLS"):
            await connect(address_of(host.url.replace("ws:", "wss:")), query=[], deadline_seconds=2)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["a..b", "x" * 70, "xn--"])
async def test_a_name_that_no_host_can_have_is_told_as_any_that_is_away(name: str) -> None:
    """It comes from the settings, so nobody can mend it but who wrote them; the others go on."""
    with pytest.raises(Disconnected, match="cannot connect"):
        await connect(address_of(f"ws://{name}/subscribe"), query=[], deadline_seconds=5)


async def test_while_two_replay_their_events_are_taken_by_time() -> None:
    """Each has accounts that the other has not; read as they come, one would run ahead."""
    even, odd = FakeJetstream(), FakeJetstream()
    even.history = posts(0, 3000)[::2]
    odd.history = posts(0, 3000)[1::2]
    even.is_silent = odd.is_silent = True
    now = BASE_US + 4000 * SECOND
    async with reading(even, odd, fallback=Position(BASE_US), now_us=lambda: now) as read:
        await read.until(lambda: bool(even.requests and odd.requests))
        even.speak()
        odd.speak()
        await read.until_taken(3000)
        assert sorted(read.rkeys) == sorted(rkeys(0, 3000))
        late = newest = 0
        for event, _, _ in read.taken:
            late += event.time_us < newest
            newest = max(newest, event.time_us)
        assert late < 100  # 0 but for the scheduler; unordered some 500


async def test_another_instance_behind_one_url_is_asked_from_before_its_lead() -> None:
    """It stamped 30 s earlier what the other had not sent yet, and numbers on its own."""
    lead, step = 30 * SECOND, SECOND // 10
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*(post(n, at=BASE_US + n * step, cursor=n + 5001) for n in range(1000)))
        await read.until_taken(1000)
        numbered = [post(n, at=BASE_US + n * step - lead, cursor=n + 1) for n in range(1400)]
        await host.drop()
        host.history = numbered[:1350]
        await read.until(lambda: len(host.requests) >= 2)
        host.emit(*numbered[1350:])
        await read.until_taken(1400)
        assert read.rkeys == rkeys(0, 1400)
        assert read.gaps == []


async def test_a_host_that_numbers_anew_and_then_refuses_is_not_hammered() -> None:
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*(post(n, at=BASE_US + n * SECOND, cursor=n + 1001) for n in range(20)))
        await read.until_taken(20)
        host.history = [post(n, at=BASE_US + n * SECOND, cursor=n + 1) for n in range(30)]
        host.is_silent = True
        await host.drop()
        await read.until(lambda: len(host.requests) >= 2)
        host.answer = "429 Too Many Requests"
        host.emit(*(post(n, at=BASE_US + n * SECOND, cursor=n + 1) for n in range(30, 40)))
        host.speak()
        before = host.connects
        await trio.sleep(0.6)
        assert 1 <= host.connects - before <= 14  # 0.05 to 0.1 s apart
        host.answer = "serve"
        await read.until_taken(40)


async def test_breaking_again_and_again_does_not_move_the_position_back() -> None:
    """Each connect begins seconds before the position; what is repeated must not count as new."""
    host = FakeJetstream()
    async with reading(host) as read:
        await read.until(lambda: bool(host.requests))
        host.emit(*posts(0, 200))
        await read.until_taken(200)
        host.history = posts(0, 140)  # it breaks before it has repeated all
        for n in range(2, 8):
            await host.drop()
            await read.until(lambda n=n: len(host.requests) >= n)  # type: ignore[misc]
            await trio.sleep(0.05)
        asked = [int(request["cursor"][0]) for request in host.requests[1:]]
        assert min(asked) == asked[0]


async def test_the_systems_authorities_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 30 to 70 ms of the event loop: not at each of a thousand connects that fail."""
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return made[-1]

    monkeypatch.setattr("turbod.upstream.connection.ssl.create_default_context", make)
    connection._trusting_the_system.cache_clear()
    host = FakeJetstream()
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        address = address_of(host.url.replace("ws://", "wss://"))
        for _ in range(3):
            with pytest.raises(Disconnected, match="TLS"):
                await connect(address, query=[], deadline_seconds=2)
        nursery.cancel_scope.cancel()
    connection._trusting_the_system.cache_clear()
    assert len(made) == 1
