"""The hearts of turbod's own tasks: who hangs is named, what is merely quiet never."""

import ast
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio
import trio.testing

from tests.archive.samples_archive import plain_lines
from tests.eventlog.samples import record
from tests.eventlog.samples import running as running_log
from tests.one_daemon import running
from turbod import heartbeat
from turbod.archive import sealer
from turbod.archive.reading import nearest
from turbod.archive.upload.space import Space
from turbod.archive.upload.uploading import Uploader
from turbod.config import HydrationSettings, LogSettings, UpstreamSettings
from turbod.daemon import Daemon
from turbod.eventlog.log import EventLog
from turbod.eventlog.writer import MAX_QUEUED_BYTES
from turbod.filter import EVERYTHING
from turbod.heartbeat import Heartbeats
from turbod.hydration import appview
from turbod.hydration.appview import AppView
from turbod.hydration.views import Kind
from turbod.upstream import jetstream
from turbod.upstream.connection import Disconnected
from turbod.upstream.upstream import Upstream

TURBOD = Path(heartbeat.__file__).parent
TICK, SILENT = 0.03, 0.6  # in place of five seconds and a minute
DAY = 24 * 3600.0
IMPATIENT = UpstreamSettings(handshake_seconds=0.1)

# What is started, where: the function in which it beats, or why it has no heart.
BEGINS_OTHERS: Final = "ends as soon as it has started others, or waits for them"
ONE_CLIENT: Final = "serves one client, within that one's deadlines"
SIGNALS: Final = "waits for a signal; systemd's own time limit ends what does not follow it"
STARTED: Final = {
    ("archive/archive.py", "self._archiver.run"): "archive/upload/archiver.py run",
    ("archive/archive.py", "self._sealer.run"): "archive/sealer.py run",
    ("archive/reading/objects.py", "self._frames.run"): BEGINS_OTHERS,
    ("archive/reading/objects.py", "self._indexes.run"): BEGINS_OTHERS,
    ("archive/reading/read_ahead.py", "self._fetch"): "archive/reading/read_ahead.py _fetch",
    (
        "archive/reading/read_ahead.py",
        "self._fetch_in_turn",
    ): "waits for room as long as somebody asks, then beats as `_fetch`",
    ("archive/sealer.py", "self._end_quiet_hours"): "archive/sealer.py _end_quiet_hours",
    ("archive/upload/archiver.py", "self._space.run"): "archive/upload/space.py run",
    ("daemon.py", "self._list.run"): "exclusion.py run",
    ("daemon.py", "self._read_upstream"): "upstream/upstream.py run",
    ("daemon.py", "self._save_regularly"): "daemon.py _save_regularly",
    (
        "daemon.py",
        "self._settle_exclusion",
    ): "waits for the log, which beats; for long on a full disk",
    ("daemon.py", "self.archive.finish"): "belongs to the end, which has a deadline",
    ("daemon.py", "self.archive.history.run"): BEGINS_OTHERS,
    ("daemon.py", "self.archive.run"): BEGINS_OTHERS,
    ("daemon.py", "self.heartbeats.run"): "is the ticker: `Heartbeats.late` looks after it",
    ("daemon.py", "self.hydrator.run"): "hydration/hydrator.py run",
    ("daemon.py", "self.log.run"): BEGINS_OTHERS,
    ("daemon.py", "self.lookback.run"): BEGINS_OTHERS,
    ("daemon.py", "self._serve"): BEGINS_OTHERS,
    ("eventlog/log.py", "self._writer.run"): "eventlog/writer.py run",
    ("hydration/appview.py", "self._call"): "hydration/appview.py _call",
    ("hydration/appview.py", "self._replace"): "closes old connections, on which nothing depends",
    ("hydration/hydrator.py", "self.appview.run"): "hydration/appview.py run",
    ("lookback/lookback.py", "self._look_into_hours"): "lookback/lookback.py _look_into_hours",
    ("lookback/lookback.py", "self._sample"): "lookback/lookback.py _sample",
    ("server/archive_entries.py", "self._find"): ONE_CLIENT,
    ("server/connection.py", "receive"): ONE_CLIENT,
    ("server/file_answer.py", "self._until_left"): ONE_CLIENT,
    ("server/listener.py", "self._refuse"): ONE_CLIENT,
    ("server/listener.py", "self._serve"): ONE_CLIENT,
    ("server/server.py", "keeper.run"): "server/listener.py run",
    ("server/server.py", "self._connections.tick"): "server/connection.py tick",
    ("server/subscriber.py", "read"): ONE_CLIENT,
    ("service.py", "_feed_watchdog"): "feeds the watchdog itself",
    ("service.py", "_now_at_second_signal"): SIGNALS,
    ("service.py", "_reload_when_asked"): SIGNALS,
    ("service.py", "_tell"): BEGINS_OTHERS,
    ("service.py", "_tell_status"): "sleeps and tells, and awaits nothing else",
    ("service.py", "_tell_stopping"): "belongs to the end, which has a deadline",
    ("service.py", "daemon.run"): "daemon.py _run",
    ("service.py", "log_output.run"): "sleeps and writes, and awaits nothing else",
    ("upstream/jetstream.py", "self._guard"): "upstream/jetstream.py _watch",
    ("upstream/upstream.py", "session.run"): "upstream/jetstream.py run",
}
NOT_IN_THE_DAEMON: Final = (
    *("archive/bulk/", "check/", "client/", "compare/", "simulation/", "status/"),
    "tail.py",
)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute be short."""
    monkeypatch.setattr(heartbeat, "TICK_SECONDS", TICK)
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", SILENT)


def late(daemon: Daemon) -> set[str]:
    return {name for name, _ in daemon.heartbeats.late(trio.current_time())}


async def until_late(daemon: Daemon, name: str) -> None:
    """Wait until a task is late, and fail where it is sooner than it may, or another is."""
    began = trio.current_time()
    await until(lambda: bool(late(daemon)))
    assert trio.current_time() - began >= SILENT - 3 * TICK
    assert late(daemon) == {name}


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - no event
            await trio.sleep(0.005)


def test_every_task_of_the_daemon_has_a_heart_or_a_reason_why_not() -> None:
    """Whoever adds one says here where it beats: with `beating`, in a loop that comes round."""
    assert set(_started()) == STARTED.keys()


def test_whoever_is_said_to_beat_does() -> None:
    for place in filter(lambda place: ".py " in place, STARTED.values()):
        path, _, name = place.partition(" ")
        functions = [
            ast.unparse(node)
            for node in ast.walk(ast.parse((TURBOD / path).read_text()))
            if isinstance(node, ast.AsyncFunctionDef) and node.name == name
        ]
        assert any("heartbeat.beating(" in function for function in functions), place


def _started() -> Iterator[tuple[str, str]]:
    for path in TURBOD.rglob("*.py"):
        name = path.relative_to(TURBOD).as_posix()
        if name.startswith(NOT_IN_THE_DAEMON):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Attribute(attr="start" | "start_soon"), [task, *_]):
                    yield name, ast.unparse(task)


@pytest.mark.usefixtures("_quick")
async def test_with_nobody_to_talk_to_and_nothing_to_do_nobody_is_late(tmp_path: Path) -> None:
    """No host, no AppView, no event, no subscriber: every task comes round all the same."""
    (tmp_path / "list").write_text("")
    seen: set[str] = set()
    async with running(tmp_path, exclude=str(tmp_path / "list")) as daemon:
        for _ in range(int(4 * SILENT / TICK)):
            await trio.sleep(TICK)
            assert not late(daemon)
            seen |= {heart.name for heart in daemon.heartbeats.hearts.values()}
            silent = [heart.silent_seconds for heart in daemon.heartbeats.hearts.values()]
            assert max(silent) < SILENT / 2
    assert seen - {"start", "upstream"} == {
        *(
            "accept",
            "appview",
            "archiver",
            "calendar",
            "exclusion_list",
            "samples",
            "hydrator",
            "log",
            "quiet_hours",
        ),
        *("saving", "sealer", "server_clock", "space", "upstream 127.0.0.1"),
    }


class Hang:
    """What blocks a thread until the test ends."""

    def __init__(self, result: Any = None) -> None:
        self.is_over = threading.Event()
        self._result = result

    def block(self, *_: object, **__: object) -> Any:
        self.is_over.wait(30)
        return self._result


@asynccontextmanager
async def hanging(hang: Hang) -> AsyncIterator[None]:
    """Let the threads go before the daemon is cancelled: it waits for them."""
    try:
        with trio.fail_after(25):
            yield
    finally:
        hang.is_over.set()
        await trio.sleep(0.05)


@pytest.mark.usefixtures("_quick")
async def test_a_sync_that_never_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = Hang()
    async with running(tmp_path) as daemon, hanging(hang):
        monkeypatch.setattr(os, "fdatasync", hang.block)
        daemon.log.append(record(1))
        await until_late(daemon, "log")


@pytest.mark.usefixtures("_quick")
async def test_a_database_that_never_answers(tmp_path: Path) -> None:
    hang = Hang()
    async with running(tmp_path) as daemon, hanging(hang):
        daemon.database.write = hang.block  # type: ignore[method-assign]
        await trio.sleep(1)  # between two saves
        await until_late(daemon, "saving")


@pytest.mark.usefixtures("_quick")
async def test_sealing_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = Hang()
    _two_hours(tmp_path)
    monkeypatch.setattr(sealer, "seal", hang.block)
    async with running(tmp_path) as daemon, hanging(hang):
        await until_late(daemon, "sealer")


@pytest.mark.usefixtures("_quick")
async def test_sealing_that_takes_long_is_not_late_while_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()

    def seal_slowly(*_: object, cancelled: Callable[[], bool], **__: object) -> None:
        while not is_over.wait(TICK):
            cancelled()

    _two_hours(tmp_path)
    monkeypatch.setattr(sealer, "seal", seal_slowly)
    async with running(tmp_path) as daemon:
        for _ in range(int(3 * SILENT / TICK)):
            await trio.sleep(TICK)
            assert not late(daemon)
        is_over.set()


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    ("where", "what", "name"),
    [
        (Uploader, "bring", "archiver"),
        (Space, "_prune", "space"),
        (AppView, "_wait_for_news", "appview"),
        (jetstream, "connect", "upstream 127.0.0.1"),
        (trio.SocketListener, "accept", "accept"),
    ],
)
async def test_an_await_that_never_returns(
    where: Any, what: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object, **__: object) -> None:
        with trio.CancelScope(shield=what == "accept") as scope:  # whose wait is a rest
            scopes.append(scope)
            await trio.Event().wait()

    scopes: list[trio.CancelScope] = []
    _two_hours(tmp_path)
    monkeypatch.setattr(where, what, lost)
    async with running(tmp_path, jetstream=IMPATIENT) as daemon:
        await until(lambda: name in late(daemon))
        assert late(daemon) == {name}
        for scope in scopes:
            scope.cancel()


@pytest.mark.usefixtures("_quick")
async def test_a_call_of_the_appview_that_ignores_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(appview, "get", get)
    async with running(tmp_path) as daemon:
        daemon.hydrator._waiting["did:plc:a"] = []
        daemon.hydrator.appview.want(Kind.PROFILE, "did:plc:a")
        await until_late(daemon, "appview_call")


@pytest.mark.usefixtures("_quick")
async def test_a_disk_that_never_gives_what_a_reader_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = Hang(b"")
    _two_hours(tmp_path)
    async with running(tmp_path) as daemon, hanging(hang), trio.open_nursery() as nursery:
        await until(lambda: daemon.archive.statistics().archiver.stored_hours > 0)
        monkeypatch.setattr(nearest, "_pread", hang.block)
        with daemon.heartbeats.watching():
            nursery.start_soon(daemon.whole.read, 0, EVERYTHING)
        await until_late(daemon, "archive_read")
        hang.is_over.set()
        nursery.cancel_scope.cancel()


def _two_hours(data: Path) -> None:
    """Leave two hours in the log, of which the first is to be sealed."""
    (data / "live").mkdir(parents=True)
    for hour, name in enumerate(("2026-11-20T10", "2026-11-20T11")):
        lines = plain_lines(hour, 30)
        (data / "live" / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


@asynccontextmanager
async def ticking() -> AsyncIterator[Heartbeats]:
    heartbeats = Heartbeats()
    with heartbeats.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heartbeats.run)
            yield heartbeats
            nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("_quick")
async def test_a_record_whose_wake_up_was_lost_is_written_all_the_same(tmp_path: Path) -> None:
    async with ticking(), running_log(tmp_path) as log:
        await trio.testing.wait_all_tasks_blocked()
        log._writer._some = trio.Event()  # which the writer does not wait for
        log.append(record(1))
        await until(lambda: log.head > 0)


@pytest.mark.usefixtures("_quick")
async def test_room_that_nobody_was_told_of_is_found(tmp_path: Path) -> None:
    async with ticking(), running_log(tmp_path) as log, trio.open_nursery() as nursery:
        writer = log._writer
        writer.queued_bytes = MAX_QUEUED_BYTES
        came: list[bool] = []

        async def wait_for_room() -> None:
            with heartbeat.beating("somebody"):
                await log.room()
                came.append(True)

        nursery.start_soon(wait_for_room)
        await trio.sleep(3 * TICK)
        assert not came
        writer.queued_bytes = 0
        await until(lambda: bool(came))


@pytest.mark.usefixtures("_quick")
async def test_a_view_is_asked_for_though_the_wake_up_was_lost() -> None:
    answered: list[str] = []

    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, stream=httpx.ByteStream(b"no"))

    client = AppView(
        "http://appview.test",
        HydrationSettings(),
        answered=lambda key, *_: answered.append(key),
        stamp=lambda: 0,
        transport=httpx.MockTransport(refuse),
    )
    async with ticking(), trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await trio.testing.wait_all_tasks_blocked()
        client._news = trio.Event()
        client.want(Kind.PROFILE, "did:plc:a")
        await until(lambda: bool(answered))
        nursery.cancel_scope.cancel()


async def _never_late_for_a_day(*tasks: Callable[[], Awaitable[None]]) -> None:
    async with ticking() as heartbeats, trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
        for _ in range(int(DAY / heartbeat.SILENT_SECONDS)):
            await trio.sleep(heartbeat.SILENT_SECONDS)
            assert heartbeats.late(trio.current_time()) == []
        assert heartbeats.hearts
        nursery.cancel_scope.cancel()


async def test_a_day_without_any_host(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def refuse(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        await trio.sleep(9)
        raise Disconnected("cannot connect", retry_after_seconds=300)

    async def no_room() -> None:
        with heartbeat.resting():
            await trio.Event().wait()

    monkeypatch.setattr(jetstream, "connect", refuse)
    sessions = [_session(has_room=has_room, room=no_room) for has_room in (True, False)]
    await _never_late_for_a_day(*(session.run for session in sessions))
    assert asked > 200
    assert autojump_clock.rate == 0


def _session(*, has_room: bool, room: Callable[[], Awaitable[None]]) -> jetstream.Session:
    async def gap(_: str) -> None:
        raise AssertionError

    upstream = Upstream(
        UpstreamSettings(),
        urls=["ws://jetstream.test/subscribe"],
        collections=["app.bsky.feed.post"],
        positions={},
        fallback=None,
        older=EventLog(Path(), LogSettings(), written=lambda _: None),
        take=lambda *_: None,
        has_room=lambda: has_room,
        room=room,
        gap=gap,
    )
    return upstream._sessions[0]


async def test_a_day_without_the_appview(autojump_clock: trio.testing.MockClock) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("away", request=request)

    client = AppView(
        "http://appview.test",
        HydrationSettings(),
        answered=lambda *_: None,
        stamp=lambda: 0,
        transport=httpx.MockTransport(away),
        now=trio.current_time,
    )

    async def want() -> None:
        number = 0
        while True:
            number += 1
            client.want(Kind.PROFILE, f"did:plc:{number}")
            await trio.sleep(600)

    await _never_late_for_a_day(client.run, want)
    assert client.statistics().down
    assert autojump_clock.rate == 0
