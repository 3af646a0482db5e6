"""A subscriber that is served from objects: at its place, in its turn, and never in silence."""
# ruff: noqa: ARG001 - a clock works by being asked for

import copy
import gc
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
import zstandard

from tests.server.fake_history import (
    FIRST,
    NOBODY,
    FakeClient,
    FakeLog,
    gap,
    served,
    services,
    subscriber,
)
from tests.server.harness import Harness, did, serving
from turbod.config import ServerSettings
from turbod.eventlog.chunk import Chunk, Stretch
from turbod.eventlog.reader import HistoryUnavailable, Pruned
from turbod.filter import RECORDS_PARAMETERS, Filter, read_query
from turbod.server import records
from turbod.server.admission import RETRY_AFTER_SECONDS
from turbod.server.news import ARCHIVE_AWAY
from turbod.server.packing import PIECE_BYTES
from turbod.server.request import Refusal
from turbod.server.services import BIG_MESSAGES
from turbod.server.status import check_archive_room
from turbod.server.subscriber import TICK_SECONDS
from turbod.server.voice import PROGRESS_SECONDS
from turbod.server.websocket import Close

Clock = trio.testing.MockClock
UPDATE = b'{"type":"options_update","payload":{"wantedDids":["%b"]}}'
LATE_SECONDS = TICK_SECONDS + 0.01


def after(seconds: float, error: Exception | None = None) -> Callable[[int], Awaitable[None]]:
    """A store that answers late, or with an error."""

    async def answer(_: int) -> None:
        await trio.sleep(seconds)
        if error is not None:
            raise error

    return answer


async def test_records_and_gaps_come_in_order_each_once(autojump_clock: Clock) -> None:
    log = FakeLog(100, gaps=[gap(6, width=3), gap(21)], gaps_in_chunks=[gap(11), gap(41)])
    client = FakeClient()
    await served(subscriber(services(log), client), seconds=1)
    found = [one for one in client.all if one not in {"connect", "cutover"}]
    expected: list[str | int] = list(range(1, 101))
    for number in (41, 21, 11):
        expected.insert(number - 1, f"before {number}")
    expected.insert(0, "before 6")  # between chunks, where it lies inside one
    assert found == expected


async def test_a_filter_is_told_every_gap_and_moves_past_what_it_leaves_out(
    autojump_clock: Clock,
) -> None:
    log = FakeLog(100, gaps=[gap(21)], gaps_in_chunks=[gap(41)])
    client = FakeClient()
    log.before_read = after(3)
    chosen = Filter(dids=frozenset({did(57)}))
    await served(subscriber(services(log), client, chosen=chosen), seconds=60)
    assert [one for one in client.all if one != "progress"] == [
        *("connect", "before 21", "before 41", 58, "cutover"),
        *["heartbeat"] * (len(client.times("heartbeat"))),
    ]
    cursors = [
        one["cursor"] for _, one in client.messages if isinstance(one, dict) and "reason" in one
    ]
    assert cursors == sorted(cursors)
    assert len({one - FIRST for one in cursors} & set(range(10, 80))) >= 2


async def test_a_gap_is_told_once_though_the_filter_changes_behind_it(
    autojump_clock: Clock,
) -> None:
    log = FakeLog(100, gaps=[gap(21)])
    client = FakeClient()
    one = subscriber(services(log), client)

    async def tell(*parts: bytes) -> None:
        await FakeClient.send(client, *parts)
        if b"before 21" in parts[0]:
            one.take_message(UPDATE % did(70).encode())

    client.send = tell  # type: ignore[method-assign]
    await served(one, seconds=1)
    assert client.all == ["connect", *range(1, 21), "before 21", "options", 71, "cutover"]


@pytest.mark.parametrize("metadata", [True, False])
async def test_while_the_archive_is_away_the_client_is_told_and_then_1011(
    autojump_clock: Clock, *, metadata: bool
) -> None:
    log = FakeLog(100)
    shared = services(log)
    log.before_read = after(60, HistoryUnavailable("s3://bucket: it does not answer"))
    client = FakeClient()
    one = subscriber(shared, client, metadata=metadata)
    assert await served(one, seconds=100) == Close(1011, "HistoryUnavailable")
    assert trio.current_time() == pytest.approx(60, abs=0.1)
    if not metadata:
        assert client.all in (["ping"] * 3, ["ping"] * 4)
        return
    times = [*client.times("connect"), *client.times("progress"), 60]
    assert (
        max(later - sooner for sooner, later in pairwise(times)) <= PROGRESS_SECONDS + LATE_SECONDS
    )
    assert client.all == ["connect", *["progress"] * (len(times) - 2), "HistoryUnavailable"]
    _, error = client.messages[-1]
    assert error == {
        "$type": "#error",
        "error": "HistoryUnavailable",
        "message": ARCHIVE_AWAY,  # and not the operator's bucket
        "cursor": FIRST,
    }
    assert shared.archive.taken == 0


async def test_whoever_is_pruned_in_the_archive_is_told_so(autojump_clock: Clock) -> None:
    log = FakeLog(100)
    log.before_read = after(1, Pruned("gone"))
    client = FakeClient()
    assert await served(subscriber(services(log), client), seconds=10) == Close(
        1008, "ConsumerTooSlow"
    )
    assert client.all == ["connect", "ConsumerTooSlow"]


async def test_an_update_and_a_goodbye_do_not_wait_for_the_archive(autojump_clock: Clock) -> None:
    log = FakeLog(100)
    log.before_read = after(50)
    client = FakeClient()
    one = subscriber(services(log), client)
    async with trio.open_nursery() as nursery:

        async def interrupt() -> None:
            await trio.sleep(1.5)
            one.take_message(UPDATE % NOBODY.encode())
            await trio.sleep(1)
            one.stop()

        nursery.start_soon(interrupt)
        assert await served(one, seconds=100) == Close(1001, "the server shuts down")
    assert [(time, message["reason"]) for time, message in client.messages] == [
        (0, "connect"),
        (1.5, "options"),
        (2.5, "bye"),
    ]


async def test_during_history_a_slow_client_is_told_where_it_stands(autojump_clock: Clock) -> None:
    """A chunk in one message would take this one 17 seconds."""
    log = FakeLog(400, per_chunk=100, padding=5_000)
    log.memory_start = log.archived_until = log.head
    client = FakeClient(bytes_a_second=30_000)
    one = subscriber(services(log), client)
    await served(one, seconds=100)
    assert max(client.sizes) <= PIECE_BYTES + 10
    times = client.times("connect") + client.times("progress")
    piece_seconds = PIECE_BYTES / 30_000
    assert len(times) > 10
    assert max(b - a for a, b in pairwise(times)) <= PROGRESS_SECONDS + piece_seconds + 0.1
    assert client.records == list(range(1, len(client.records) + 1))


async def test_whoever_takes_it_at_once_is_sent_whole_chunks_while_they_are_few(
    autojump_clock: Clock,
) -> None:
    log = FakeLog(600, per_chunk=100, padding=4_000)
    log.memory_start = log.archived_until = log.head
    shared = services(log)
    whole = max(len(chunk.array) for chunk in log.chunks)
    for big_messages, biggest in ((0, whole), (BIG_MESSAGES, PIECE_BYTES)):
        shared.big_messages = big_messages
        client = FakeClient(bytes_a_second=10**8)
        await served(subscriber(shared, client), seconds=1)
        assert client.records == list(range(1, 601))
        assert biggest - 5_000 < max(client.sizes) <= biggest + 10
        assert shared.big_messages == big_messages


async def test_a_place_is_kept_until_its_reader_is_through_with_the_objects(
    autojump_clock: Clock,
) -> None:
    log = FakeLog(100)
    shared = services(log, archive_readers=1)
    taken: list[tuple[int, int]] = []

    async def note(position: int) -> None:
        taken.append((position - FIRST, shared.archive.taken))

    log.before_read = note
    client = FakeClient()
    one = subscriber(shared, client)
    assert shared.archive.taken == 1  # from connecting on
    assert not shared.archive.has_room

    async def watch(*parts: bytes) -> None:
        await FakeClient.send(client, *parts)
        if client.all[-1] == 20:
            one.take_message(b'{"type":"options_update","payload":{}}')
        if client.all[-1] == "options":
            taken.append((20, shared.archive.taken))

    client.send = watch  # type: ignore[method-assign]
    await served(one, seconds=1)
    assert taken == [(0, 1), (20, 1), (20, 1), (40, 1), (60, 1), (80, 0)]
    assert shared.archive.taken == shared.history.taken == 0


@pytest.mark.parametrize("way", ["hello", "lagging"])
async def test_who_comes_to_the_objects_later_waits_for_a_place_and_is_told(
    autojump_clock: Clock, way: str
) -> None:
    log = FakeLog(100)
    shared = services(log, archive_readers=2)
    held = [shared.archive.ask() for _ in range(2)]
    client = FakeClient()
    if way == "hello":
        one = subscriber(shared, client, require_hello=True)
        one.take_message(b'{"type":"options_update","payload":{}}')
    else:
        log.archived_until = 0
        one = subscriber(shared, client)
        log.archived_until = log.chunks[-4].last  # sealed and released, meanwhile
    async with trio.open_nursery() as nursery:

        async def free() -> None:
            await trio.sleep(20)
            assert client.records == []
            assert shared.archive.is_wanted
            held[0].leave()

        nursery.start_soon(free)
        await served(one, seconds=25)
    assert client.records == list(range(1, 101))
    times = [*client.times("connect"), *client.times("progress"), 20]
    assert len(times) >= 5
    assert max(b - a for a, b in pairwise(times)) <= PROGRESS_SECONDS + LATE_SECONDS
    assert shared.archive.taken == 1


async def test_more_readers_than_places_take_turns(autojump_clock: Clock) -> None:
    """One who fell back waits for a place, not for the end of somebody's whole history."""
    log = FakeLog(400)
    log.before_read = after(1)
    shared = services(log, archive_readers=1)
    clients = [FakeClient() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            one = subscriber(shared, client)
            nursery.start_soon(lambda one: served(one, seconds=30), one)
    counts = [len(client.records) for client in clients]
    assert max(counts) - min(counts) <= 20
    assert sum(counts) >= 20 * 28


async def test_a_slow_reader_of_objects_gives_way_to_who_waits(autojump_clock: Clock) -> None:
    log = FakeLog(400, per_chunk=100, padding=5_000)
    log.memory_start = log.archived_until = log.head
    shared = services(log, archive_readers=1)
    slow, quick = FakeClient(bytes_a_second=10_000), FakeClient(bytes_a_second=10**8)
    async with trio.open_nursery() as nursery:
        first = subscriber(shared, slow)
        nursery.start_soon(lambda: served(first, seconds=300))
        await trio.sleep(0.1)
        log.archived_until = 0
        second = subscriber(shared, quick)
        log.archived_until = log.head
        nursery.start_soon(lambda: served(second, seconds=10))
        await trio.sleep(3)
        assert quick.records == list(range(1, 401))
    assert slow.records == list(range(1, 401))


async def test_slow_readers_of_objects_do_not_keep_out_who_was_refused(
    autojump_clock: Clock,
) -> None:
    """Nobody waits while all who come are refused: a few slow ones would have it for ever."""
    log = FakeLog(400, per_chunk=100, padding=5_000)
    log.memory_start = log.archived_until = log.head
    shared = services(log, archive_readers=2)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            one = subscriber(shared, FakeClient(bytes_a_second=2_000))
            nursery.start_soon(lambda one: served(one, seconds=100), one)
        await trio.sleep(30)
        with pytest.raises(Refusal, match="2 clients"):
            check_archive_room(FIRST, shared)
        await trio.sleep(RETRY_AFTER_SECONDS)
        check_archive_room(FIRST, shared)
        quick = FakeClient()
        second = subscriber(shared, quick)
        await served(second, seconds=2)
        assert quick.records == list(range(1, 401))
        nursery.cancel_scope.cancel()


async def test_a_slow_client_that_waits_keeps_its_place_in_the_line(
    autojump_clock: Clock,
) -> None:
    """It has nothing to give way with, and would never be served again."""
    log = FakeLog(100)
    shared = services(log, archive_readers=1)
    held = shared.archive.ask()
    log.archived_until = 0
    client = FakeClient(bytes_a_second=50)  # 4 seconds for a `#cursor`
    one = subscriber(shared, client)
    log.archived_until = log.head
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: served(one, seconds=100))
        await trio.sleep(25)
        client.bytes_a_second = 10**8
        held.leave()
    assert client.records == list(range(1, 101))


async def test_a_slow_client_that_gave_way_holds_nothing_of_what_was_read(
    autojump_clock: Clock,
) -> None:
    """Two thousand of them would hold 2 GB."""
    log = FakeLog(400, per_chunk=100, padding=5_000)
    log.memory_start = log.archived_until = log.head
    shared = services(log, archive_readers=1)
    read, fresh = log.read, set[int]()

    async def read_anew(position: int, chosen: Filter) -> Stretch:
        stretch = await read(position, chosen)
        items = [copy.copy(item) for item in stretch.items]
        fresh.update(map(id, items))
        return Stretch(items, stretch.last)

    log.read = read_anew  # type: ignore[assignment, method-assign]
    one = subscriber(shared, FakeClient(bytes_a_second=100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: served(one, seconds=100))
        await trio.sleep(20)
        assert held_chunks(fresh) > 0
        log.archived_until = 0
        other = subscriber(shared, FakeClient())
        log.archived_until = log.head
        other._take_place()
        await trio.sleep(2)
        assert held_chunks(fresh) == 0
        other.close()


def held_chunks(ids: set[int]) -> int:
    """How many of these chunks are still there."""
    gc.collect()
    return sum(isinstance(one, Chunk) and id(one) in ids for one in gc.get_objects())


async def test_all_that_history_does_is_done_in_its_turn(autojump_clock: Clock) -> None:
    """Reading and sending count for the half of the loop that history has; waiting does not."""
    log = FakeLog(100)
    shared = services(log)
    worked: list[float] = []

    async def work(_: int) -> None:
        await trio.sleep(10)
        autojump_clock.jump(0.05)
        worked.append(trio.current_time())

    log.before_read = work
    await served(subscriber(shared, FakeClient()), seconds=100)
    assert shared.pace.worked_seconds == pytest.approx(0.05 * len(log.reads))
    assert all(later - sooner >= 10.0999 for sooner, later in pairwise(worked))


async def test_a_reader_whose_filter_takes_nothing_has_half_of_the_loop_too(
    autojump_clock: Clock,
) -> None:
    log = FakeLog(1000)
    shared = services(log)
    times: list[float] = []

    async def work(_: int) -> None:
        await trio.lowlevel.checkpoint()
        autojump_clock.jump(0.004)
        times.append(trio.current_time())

    log.before_read = work
    chosen = Filter(dids=frozenset({NOBODY}))
    await served(subscriber(shared, FakeClient(), chosen=chosen), seconds=100)
    assert len(times) == len(log.reads) > 40
    assert times[-1] - times[0] >= 0.0079 * (len(times) - 1)
    times.clear()
    options = read_query(f"cursor=0&wantedDids={NOBODY}", known=RECORDS_PARAMETERS, served=())
    page = await records.read_page(shared, options, 0)
    assert page.cursor == log.head
    assert times[-1] - times[0] >= 0.0079 * (len(times) - 1)


# Over real sockets.


@asynccontextmanager
async def serving_objects(
    data: Path, log: FakeLog, *, settings: ServerSettings | None = None
) -> AsyncIterator[Harness]:
    """A server whose log is the fake one."""
    async with serving(data, settings=settings) as harness:
        harness.server._services.log = log
        yield harness


async def test_the_ninth_that_would_read_objects_is_refused_until_another_is_through(
    tmp_path: Path,
) -> None:
    log = FakeLog(100)
    shut = trio.Event()

    async def wait(_: int) -> None:
        await shut.wait()

    log.before_read = wait
    async with serving_objects(tmp_path, log) as harness, AsyncExitStack() as clients:
        for _ in range(8):
            client = await clients.enter_async_context(harness.subscribe("cursor=0"))
            assert (await client.news())["reason"] == "connect"
        assert harness.server.statistics().archive_readers == 8
        for answer in (
            await harness.upgrade("/turbostream?cursor=0"),
            await harness.get("/records?cursor=0"),
        ):
            assert answer.error == (429, "TooManyConnections")
            assert int(answer.headers["retry-after"]) > 0
            assert "8 clients" in answer.json["message"]
        plain = f"cursor={log.archived_until}"
        await clients.enter_async_context(harness.subscribe(plain))  # needs no object
        await clients.enter_async_context(harness.subscribe("cursor=0&requireHello=true"))
        shut.set()
        await harness.settled(lambda: harness.server.statistics().archive_readers == 0)
        async with harness.subscribe("cursor=0") as client:
            found = await client.records(100)
            assert [one["cursor"] - FIRST for one in found] == list(range(1, 101))
        assert harness.server.statistics().errors == 0


async def test_whoever_leaves_while_it_waits_for_the_archive_leaves_its_place(
    tmp_path: Path,
) -> None:
    log = FakeLog(100)
    log.before_read = after(1000)
    settings = ServerSettings(max_history_readers=1)
    async with serving_objects(tmp_path, log, settings=settings) as harness:
        for _ in range(3):
            async with harness.subscribe("cursor=0") as client:
                await client.news()
                assert harness.server.statistics().archive_readers == 1
            await harness.settled(lambda: harness.server.statistics().archive_readers == 0)


async def test_a_page_that_reads_objects_has_a_place_among_their_readers(tmp_path: Path) -> None:
    log = FakeLog(100)
    shut = trio.Event()

    async def wait(_: int) -> None:
        await shut.wait()

    log.before_read = wait
    settings = ServerSettings(max_history_readers=1)
    async with (
        serving_objects(tmp_path, log, settings=settings) as harness,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(harness.get, "/records?cursor=0")
        await harness.settled(lambda: harness.server.statistics().archive_readers == 1)
        refused = await harness.upgrade("/turbostream?cursor=0")
        assert refused.error == (429, "TooManyConnections")
        shut.set()
        await harness.settled(lambda: harness.server.statistics().archive_readers == 0)


async def test_whoever_leaves_while_a_page_is_read_leaves_its_place(tmp_path: Path) -> None:
    """At once, whether it closes or is reset, and not when the page is read."""
    log = FakeLog(100)
    log.before_read = after(1000)
    settings = ServerSettings(max_history_readers=1)
    async with serving_objects(tmp_path, log, settings=settings) as harness:
        for linger in (None, struct.pack("ii", 1, 0)):
            stream = await harness.connect()
            await stream.send_all(b"GET /records?cursor=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await harness.settled(lambda: harness.server.statistics().archive_readers == 1)
            if linger:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await stream.aclose()
            await harness.settled(lambda: harness.server.statistics().archive_readers == 0)
        await harness.settled(lambda: not harness.server.statistics().connections)
        assert harness.server.statistics().errors == 0


async def test_a_page_tells_of_gaps_in_a_header(tmp_path: Path) -> None:
    log = FakeLog(100, gaps=[gap(31, width=5)], gaps_in_chunks=[gap(11)])
    async with serving_objects(tmp_path, log) as harness:
        answer = await harness.get("/records?cursor=0")
        assert [one["cursor"] - FIRST for one in answer.json_lines()] == list(range(1, 101))
        expected = f"{FIRST + 10}-{FIRST + 11}, {FIRST + 26}-{FIRST + 31}"
        assert answer.headers["turbod-gap"] == expected
        answer = await harness.get(f"/records?cursor=0&wantedDids={did(57)}")
        assert [one["cursor"] - FIRST for one in answer.json_lines()] == [58]
        assert answer.headers["turbod-gap"] == expected
        assert answer.headers["turbod-cursor"] == str(log.head)
        answer = await harness.get(f"/records?cursor={FIRST + 31}")
        assert "turbod-gap" not in answer.headers


async def test_page_after_page_passes_more_gaps_than_a_header_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_GAPS", 2)
    log = FakeLog(100, gaps=[gap(n) for n in range(11, 60, 10)])
    async with serving_objects(tmp_path, log) as harness:
        cursor, gaps, found = 0, list[str](), list[int]()
        while cursor < log.head:
            answer = await harness.get(f"/records?cursor={cursor}")
            assert int(answer.headers["turbod-cursor"]) > cursor
            cursor = int(answer.headers["turbod-cursor"])
            gaps += filter(None, answer.headers.get("turbod-gap", "").split(", "))
            found += [one["cursor"] - FIRST for one in answer.json_lines()]
        # The last of one page may be the first of the next.
        assert list(dict.fromkeys(gaps)) == [
            f"{FIRST + n - 1}-{FIRST + n}" for n in range(11, 60, 10)
        ]
        assert found == list(range(1, 101))


async def test_a_page_that_has_nothing_yet_is_503_while_the_archive_is_away(
    tmp_path: Path,
) -> None:
    log = FakeLog(100)

    async def away(position: int) -> None:
        await trio.lowlevel.checkpoint()
        if position >= FIRST + 40:
            raise HistoryUnavailable("s3://bucket: it does not answer")

    log.before_read = away
    async with serving_objects(tmp_path, log) as harness:
        answer = await harness.get("/records?cursor=0")
        assert [one["cursor"] - FIRST for one in answer.json_lines()] == list(range(1, 41))
        assert answer.headers["turbod-cursor"] == str(FIRST + 40)
        answer = await harness.get(f"/records?cursor={FIRST + 40}")
        assert answer.error == (503, "HistoryUnavailable")
        assert answer.json["message"] == ARCHIVE_AWAY
        assert int(answer.headers["retry-after"]) > 0
        assert harness.server.statistics().archive_readers == 0


async def test_a_page_ends_after_a_while_though_nothing_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_PAGE_SECONDS", 0.1)
    log = FakeLog(1000)
    log.before_read = after(0.02)
    async with serving_objects(tmp_path, log) as harness:
        answer = await harness.get(f"/records?cursor=0&wantedDids={NOBODY}")
        assert answer.body == b""
        assert FIRST < int(answer.headers["turbod-cursor"]) < log.head


async def test_big_compressed_history_is_the_text_in_zstd_frames(tmp_path: Path) -> None:
    """Several readers at once, for a compressor serves one thread at a time."""
    log = FakeLog(600, per_chunk=100, padding=4_000)
    expected = [chunk.line(n) for chunk in log.chunks for n in range(len(chunk))]
    async with serving_objects(tmp_path, log) as harness, trio.open_nursery() as nursery:

        async def read() -> None:
            found: list[bytes] = []
            async with harness.subscribe("cursor=0&compress=zstd&batch=100") as client:
                while len(found) < len(expected):
                    message = await client.connection.get_message()
                    assert isinstance(message, bytes)
                    text = zstandard.ZstdDecompressor().decompress(message)
                    if text.startswith(b"["):
                        found += map(bytes, msgspec.json.decode(text, type=list[msgspec.Raw]))
            assert found == expected

        for _ in range(6):
            nursery.start_soon(read)
