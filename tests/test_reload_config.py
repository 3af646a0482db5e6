"""Every setting that is said to change at a reload does so, while turbod runs."""

import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.archive.archivers import folder_machine, retry_quickly
from tests.server.harness import UPGRADE, did, post, record
from tests.server.people import ALICE, BOB, by
from tests.upstream.fake_jetstream import FakeJetstream
from turbod import bearer, config, daemon, log_output
from turbod.config import ConfigError, table
from turbod.daemon import Daemon, now_us
from turbod.event import parse
from turbod.start import CannotStart
from turbod.upstream.jetstream import Session

NOWHERE = "127.0.0.1:1"
LIKE = "app.bsky.feed.like"
MEGABYTE = 1024 * 1024


class Running:
    """A daemon in this process, that can be asked over its port and told to reload."""

    def __init__(self, daemon: Daemon, port: int, given: Mapping[str, object]) -> None:
        self.daemon = daemon
        self.port = port
        self._given = dict(given)

    async def reload(self, more: Mapping[str, object]) -> config.Reloaded:
        """Reload with what was given, and this."""
        given = {**self._given, **more}
        return await self.daemon.reload(lambda: config.load(given, {}))

    async def get(self, target: str, headers: str = "") -> tuple[int, bytes]:
        """GET a page; return status and body."""
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        async with await self.connect(head.encode()) as stream:
            answer = b"".join([bytes(piece) async for piece in stream])
        first, _, body = answer.partition(b"\r\n\r\n")
        return int(first.split()[1]), body

    async def connect(self, data: bytes = b"") -> trio.SocketStream:
        """Open a connection, and send something."""
        statistics = self.daemon.server.statistics
        before = statistics().connections
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(data)
        if not data:
            await until(lambda: statistics().connections > before)
        return stream

    async def log(self, *messages: bytes, padding: int = 0) -> None:
        """Append records, and wait until they are served."""
        for message in messages:
            self.daemon.log.append(record(message, padding=padding))
        await self.daemon.log.flush()

    @property
    def session(self) -> Session:
        """How the one host is read."""
        assert self.daemon.upstream is not None
        return self.daemon.upstream._sessions[0]


@asynccontextmanager
async def running(data: Path, **given: object) -> AsyncIterator[Running]:
    """Run a daemon with nobody to talk to; settings by key, a dot as two underscores."""
    settings: dict[str, object] = {
        "data": str(data),
        "upstream": [f"ws://{NOWHERE}/subscribe"],
        "appview": f"http://{NOWHERE}",
    }
    settings |= {key.replace("__", "."): value for key, value in given.items()}
    await trio.Path(data).mkdir(exist_ok=True)
    daemon = Daemon(config.load(settings, {}), data)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run, listeners)
        yield Running(daemon, listeners[0].socket.getsockname()[1], settings)
        nursery.cancel_scope.cancel()
    daemon.close()


async def until(holds: Callable[[], object], *, seconds: float = 20) -> None:
    with trio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.01)


async def collections(data: Path) -> None:
    async with running(data) as it:
        assert (await it.get(f"/records?wantedCollections={LIKE}"))[0] == 400
        await it.reload({"collections": [LIKE]})
        assert (await it.get(f"/records?wantedCollections={LIKE}"))[0] == 200
        assert (await it.get("/records?wantedCollections=app.bsky.feed.post"))[0] == 400
        assert LIKE.encode() in (await it.get("/"))[1]
        assert it.session._intake.subscription.logged(LIKE)


async def exclude(data: Path) -> None:
    """A list is named for the first time, then it has another content, then it is gone."""
    first, second = data / "first", data / "second"
    await trio.Path(data).mkdir()
    first.write_text(did(1))
    second.write_text(did(2))
    async with running(data) as it:
        await it.log(post(1, author=did(1)), post(2, author=did(2)), post(3, author=did(3)))

        async def shown() -> list[str]:
            lines = (await it.get("/records?cursor=0"))[1].splitlines()
            return [json.loads(line)["message"]["commit"]["rkey"] for line in lines]

        assert await shown() == ["k1", "k2", "k3"]
        await it.reload({"exclude": str(first)})
        assert await shown() == ["k2", "k3"]
        assert it.daemon.cache.hidden((did(1),))
        await it.reload({"exclude": str(second)})
        assert await shown() == ["k1", "k3"]
        second.write_text(f"{did(2)}\n{did(3)}")
        await it.reload({"exclude": str(second)})
        assert await shown() == ["k1"]
        await it.reload({})
        assert await shown() == ["k1", "k2", "k3"]


async def log_level(data: Path) -> None:
    async with running(data) as it:
        await it.reload({"log_level": "error"})
        assert log_output._threshold.number == logging.ERROR
        await it.reload({"log_level": "info"})
        assert log_output._threshold.number == logging.INFO


async def host_says(data: Path, host: FakeJetstream, key: str, word: str, **given: object) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        async with running(data, upstream=[host.url], **given) as it:
            await until(lambda: "within 0.2 s" in str(it.session._last_error))
            await it.reload({key: 0.3})
            await until(lambda: f"{word} within 0.3 s" in str(it.session._last_error))
        nursery.cancel_scope.cancel()


async def upstream_handshake(data: Path) -> None:
    host = FakeJetstream()
    host.answer = "mute"
    given = {"jetstream__handshake_seconds": 0.2, "jetstream__longest_backoff_seconds": 0.1}
    await host_says(data, host, "jetstream.handshake_seconds", "no answer to upgrade", **given)


async def upstream_ping(data: Path) -> None:
    host = FakeJetstream()
    host.hears = False
    given = {
        "jetstream__ping_seconds": 0.2,
        "jetstream__silence_seconds": 0.1,
        "jetstream__longest_backoff_seconds": 0.1,
    }
    await host_says(data, host, "jetstream.ping_seconds", "no pong", **given)


async def upstream_silence(data: Path) -> None:
    host = FakeJetstream()
    host.hears = False
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        given = {"jetstream__silence_seconds": 3600, "jetstream__ping_seconds": 0.1}
        async with running(data, upstream=[host.url], **given) as it:
            await until(lambda: host.requests)
            await it.reload({"jetstream.silence_seconds": 0.2})
            await until(lambda: "no pong" in str(it.session._last_error))
        nursery.cancel_scope.cancel()


async def upstream_backoff(data: Path) -> None:
    async with running(data, jetstream__longest_backoff_seconds=0.1) as it:
        await until(lambda: it.session._last_error)
        await it.reload({"jetstream.longest_backoff_seconds": 60})
        await until(lambda: it.session.state == "waiting" and it.session._backoff._step >= 2)


async def calls_per_second(data: Path) -> None:
    async with running(data) as it:
        await it.reload({"hydration.calls_per_second": 3})
        assert it.daemon.hydrator.appview.statistics().rate == 3


async def concurrent_calls(data: Path) -> None:
    async def mute(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, mute, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        given = {"hydration__concurrent_calls": 1, "hydration__calls_per_second": 1000}
        appview = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with running(data, appview=appview, **given) as it:
            statistics = it.daemon.hydrator.appview.statistics
            it.daemon.hydrator.take(parse(post(1, mentions=[did(n) for n in range(50)])), 1, True)
            it.daemon.hydrator.take(
                parse(post(2, mentions=[did(n) for n in range(50, 100)])), 2, True
            )
            await until(lambda: statistics().flying == 1)
            await it.reload({"hydration.concurrent_calls": 3})
            await until(lambda: statistics().flying == 3)
        nursery.cancel_scope.cancel()


async def deadline(data: Path) -> None:
    async with running(data, hydration__deadline_seconds=3600) as it:
        it.daemon.hydrator.take(parse(post(1)), 1, True)
        await trio.sleep(0.2)
        assert it.daemon.log.head == 0
        await it.reload({"hydration.deadline_seconds": 0.1})
        await until(lambda: it.daemon.log.head)


async def max_lag(data: Path) -> None:
    async with running(data) as it:
        await it.reload({"hydration.max_lag_seconds": 5})
        lag = it.daemon.hydrator._lag
        assert not any(lag.too_long(n, now_seconds=n, is_held=True) for n in range(5))
        assert lag.too_long(6, now_seconds=6, is_held=True)


async def max_pending(data: Path) -> None:
    async with running(data, hydration__deadline_seconds=60) as it:
        hydrator = it.daemon.hydrator
        for number in range(1, 5):
            hydrator.take(parse(post(number, text="x" * 300_000)), number, True)
        assert hydrator.has_room
        await it.reload({"hydration.max_pending_bytes": MEGABYTE})
        assert not hydrator.has_room


async def cache_memory(data: Path) -> None:
    async with running(data) as it:
        cache = it.daemon.cache
        for number in range(4):
            cache.put(did(number), b"x" * MEGABYTE, (did(number),), stamp=cache.generation)
        assert cache.statistics().memory_bytes > 3 * MEGABYTE
        await it.reload({"cache.memory_bytes": 2 * MEGABYTE})
        cache.put(did(9), b"x", (did(9),), stamp=cache.generation)
        assert cache.statistics().memory_bytes <= 2 * MEGABYTE


async def cache_disk(data: Path) -> None:
    async with running(data) as it:
        cache, database = it.daemon.cache, it.daemon.database
        for number in range(20):
            cache.put(did(number), b"x" * 100_000, (did(number),), stamp=cache.generation)
        await it.daemon._save()
        assert database.used_bytes() > MEGABYTE
        await it.reload({"cache.disk_bytes": MEGABYTE})
        await it.daemon._save()
        assert database.used_bytes() < MEGABYTE


def cache_seconds(key: str) -> Callable[[Path], Awaitable[None]]:
    async def lifetime(data: Path) -> None:
        async with running(data) as it:
            await it.reload({key: 5})
            cache = it.daemon.cache
            about = f"at://{did(1)}/app.bsky.feed.post/k" if "post" in key else did(1)
            if "missing" in key:
                cache.put_missing(about, stamp=cache.generation)
            else:
                cache.put(about, b"x", (about,), stamp=cache.generation)
            at = cache._clock()
            assert cache.get(about) is not None
            cache._clock = lambda: at + 6
            cache._now_us = lambda: now_us() + 6_000_000
            assert cache.get(about) is None

    return lifetime


async def log_max_bytes(data: Path) -> None:
    async with running(data) as it:
        await it.reload({"log.max_bytes": 20 * MEGABYTE})
        bounds = it.daemon.archive._archiver._space.bounds
        assert await bounds.local_bytes() <= 20 * MEGABYTE


async def log_memory(data: Path) -> None:
    async with running(data) as it:
        await it.log(*(post(n, text="x" * 100_000) for n in range(30)))
        assert it.daemon.log.statistics().memory_bytes > 2 * MEGABYTE
        await it.reload({"log.memory_bytes": MEGABYTE})
        assert it.daemon.log.statistics().memory_bytes < MEGABYTE
        assert len((await it.get("/records?cursor=0&limit=8"))[1].splitlines()) == 8


async def archive_full(data: Path) -> None:
    """A full archive is given more room, and when that is full it loses its oldest."""
    machine = folder_machine(data, max_bytes=1)
    names = [machine.seal(hour) for hour in range(1, 5)]
    size = max((machine.data / "sealed" / name.file).stat().st_size for name in names)
    location = str(data / "archive")

    def reload(**given: object) -> None:
        fresh = config.load(
            {"archive.location": location} | {f"archive.{k}": v for k, v in given.items()}, {}
        )
        current = config.Settings(archive=machine.settings)
        config.reload(current, fresh)
        archiver.adapt(log_max_bytes=10**12)

    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().state == "full")
        assert archiver.statistics().uploaded == 0
        reload(max_bytes=2 * size)
        await until(lambda: archiver.statistics().uploaded == 2)
        await until(lambda: archiver.statistics().state == "full")
        reload(max_bytes=2 * size, when_full="drop_oldest")
        await until(lambda: archiver.statistics().uploaded == 4)


async def read_ahead(data: Path) -> None:
    async with running(data) as it:
        await it.reload({"archive.read_ahead_bytes": 64 * MEGABYTE})
        frames = it.daemon.archive.history.objects._frames
        assert frames.max_bytes == 64 * MEGABYTE


async def archive_public(data: Path) -> None:
    async with running(data) as it:
        assert (await it.get("/archive"))[0] == 403
        await it.reload({"archive.public": "true"})
        assert (await it.get("/archive"))[0] == 200
        await it.reload({})
        assert (await it.get("/archive"))[0] == 403


def connections(key: str) -> Callable[[Path], Awaitable[None]]:
    async def bound(data: Path) -> None:
        async with running(data) as it, await it.connect():
            assert (await it.get("/healthz"))[0] == 200
            await it.reload({key: 1})
            assert (await it.get("/healthz"))[0] == 429

    return bound


async def server_handshake(data: Path) -> None:
    async with running(data, server__handshake_seconds=300) as it:
        await it.reload({"server.handshake_seconds": 0.2})
        with trio.fail_after(5):
            async with await it.connect(b"GET / HTTP/1.1\r\n") as stream:
                assert b"408" in await stream.receive_some()


async def history_readers(data: Path) -> None:
    async with running(data, server__max_history_readers=1) as it:
        places = it.daemon.server._services.archive
        with places.ask() as one, places.ask() as two:
            assert one.given.is_set()
            assert not two.given.is_set()
            await it.reload({"server.max_history_readers": 2})
            assert two.given.is_set()


async def filter_dids(data: Path) -> None:
    async with running(data) as it:
        await it.reload({"server.max_filter_dids": 1})
        wanted = f"wantedDids={did(1)}&wantedDids={did(2)}"
        assert (await it.get(f"/turbostream?{wanted}", UPGRADE.partition("\r\n")[2]))[0] == 429


async def stuck(data: Path) -> None:
    async with running(data, server__stuck_seconds=300) as it:
        await it.log(*(post(n, text="x" * 200_000) for n in range(60)))
        await it.reload({"server.stuck_seconds": 0.3})
        head = f"GET /turbostream?cursor=0 HTTP/1.1\r\n{UPGRADE}\r\n"
        async with await it.connect(head.encode()):
            await until(lambda: it.daemon.server.statistics().resets)


async def shutdown(data: Path) -> None:
    given = {"server__shutdown_seconds": 300, "server__handshake_seconds": 300}
    async with running(data, **given) as it, await it.connect():
        await it.reload({"server.shutdown_seconds": 0.4})
        with trio.fail_after(5):
            await it.daemon.stop()


async def forwarded_for(data: Path) -> None:
    """Whose place a connection takes: its peer's, or the client's whom a trusted proxy names."""
    name, other = "X-Forwarded-For: 192.0.2.7\r\n", "Forwarded: for=192.0.2.8\r\n"
    async with running(data, server__max_connections_per_address=2) as it:
        for trusted, header, expected in (
            ([], "X-Forwarded-For", "127.0.0.1"),
            (["127.0.0.1"], "X-Forwarded-For", "192.0.2.7"),
            (["127.0.0.1"], "Forwarded", "192.0.2.8"),
        ):
            await it.reload({"server.trusted_proxies": trusted, "server.forwarded_header": header})
            head = f"GET /turbostream HTTP/1.1\r\n{UPGRADE}{name}{other}\r\n"
            async with await it.connect(head.encode()) as stream:
                assert b"101" in await stream.receive_some()
                assert set(it.daemon.server._admission._by_address) == {expected}
            await until(lambda: not it.daemon.server.statistics().connections)


# What shows that each takes effect.
async def tokens(data: Path) -> None:
    """A file is named for the first time, then it has another content, then it is gone."""
    file = data / "tokens.toml"
    await trio.Path(data).mkdir()
    for token in (ALICE, BOB):
        file.write_text(f"[one]\nsha256 = '{bearer.digest(token).hex()}'")
        async with running(data) as it:
            assert (await it.get("/status"))[0] == 200
            await it.reload({"server.tokens": str(file)})
            assert (await it.get("/status"))[0] == 401
            assert (await it.get("/status", by(token)))[0] == 200
            file.write_text("")
            await it.reload({"server.tokens": str(file)})
            assert (await it.get("/status", by(token)))[0] == 401
            await it.reload({})
            assert (await it.get("/status"))[0] == 200


async def wrong_tokens(data: Path) -> None:
    await trio.Path(data).mkdir()
    (data / "tokens.toml").write_text("")
    async with running(data, server__tokens=str(data / "tokens.toml")) as it:
        assert (await it.get("/status", by(ALICE)))[0] == 401
        await it.reload({"server.max_wrong_tokens_per_minute": 1})
        assert (await it.get("/status", by(ALICE)))[0] == 429


async def allowed_origins(data: Path) -> None:
    origin = "Origin: https://other.example\r\n"
    async with running(data) as it:
        assert (await it.get("/status", origin))[0] == 200
        await it.reload({"server.allowed_origins": ["https://app.example"]})
        assert (await it.get("/status", origin))[0] == 403


TAKES_EFFECT: Final[Mapping[str, Callable[[Path], Awaitable[None]]]] = {
    "collections": collections,
    "exclude": exclude,
    "log_level": log_level,
    "jetstream.handshake_seconds": upstream_handshake,
    "jetstream.silence_seconds": upstream_silence,
    "jetstream.ping_seconds": upstream_ping,
    "jetstream.longest_backoff_seconds": upstream_backoff,
    "hydration.calls_per_second": calls_per_second,
    "hydration.concurrent_calls": concurrent_calls,
    "hydration.deadline_seconds": deadline,
    "hydration.max_lag_seconds": max_lag,
    "hydration.max_pending_bytes": max_pending,
    "cache.memory_bytes": cache_memory,
    "cache.disk_bytes": cache_disk,
    "cache.profile_seconds": cache_seconds("cache.profile_seconds"),
    "cache.post_seconds": cache_seconds("cache.post_seconds"),
    "cache.missing_seconds": cache_seconds("cache.missing_seconds"),
    "log.max_bytes": log_max_bytes,
    "log.memory_bytes": log_memory,
    "archive.max_bytes": archive_full,
    "archive.when_full": archive_full,
    "archive.read_ahead_bytes": read_ahead,
    "archive.public": archive_public,
    "server.max_connections": connections("server.max_connections"),
    "server.max_connections_per_address": connections("server.max_connections_per_address"),
    "server.tokens": tokens,
    "server.max_wrong_tokens_per_minute": wrong_tokens,
    "server.allowed_origins": allowed_origins,
    "server.trusted_proxies": forwarded_for,
    "server.forwarded_header": forwarded_for,
    "server.max_handshakes": connections("server.max_handshakes"),
    "server.handshake_seconds": server_handshake,
    "server.max_history_readers": history_readers,
    "server.max_filter_dids": filter_dids,
    "server.stuck_seconds": stuck,
    "server.shutdown_seconds": shutdown,
}


def test_of_every_setting_that_a_reload_changes_something_shows_that_it_does() -> None:
    assert set(TAKES_EFFECT) == {row.key for row in table() if not row.needs_restart}


@pytest.mark.parametrize("key", sorted({each: key for key, each in TAKES_EFFECT.items()}.values()))
async def test_it_takes_effect(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)
    await TAKES_EFFECT[key](tmp_path / "data")


async def refused(it: Running, more: Mapping[str, object]) -> str:
    with pytest.raises((ConfigError, CannotStart)) as caught:
        await it.reload(more)
    return str(caught.value)


async def test_where_anything_is_wrong_nothing_changes(tmp_path: Path) -> None:
    """All or nothing: neither a setting that is right beside it nor one that was read before."""
    right: dict[str, Any] = {"server.max_connections": 1, "collections": [LIKE]}
    listed = tmp_path / "list"
    listed.write_text(did(1))
    (tmp_path / "binary").write_bytes(b"\xff")
    async with running(tmp_path / "data", exclude=str(listed)) as it:
        wrong = {
            "expected a number": {"hydration.calls_per_second": "x"},
            "No such file": {"exclude": str(tmp_path / "nowhere")},
            "not TOML": {"server.tokens": str(tmp_path / "binary")},
            "utf-8": {"exclude": str(tmp_path / "binary")},
            "whole hours hold the records": {"archive.public": "true"},
        }
        for words, more in wrong.items():
            found = await refused(it, right | more)
            assert words in found
            assert "\n" not in found
            assert it.daemon._settings.server.max_connections == 2000
            assert it.daemon._settings.exclude == str(listed)
            assert it.daemon._settings.server.tokens == ""
            assert it.daemon.cache.excluded == {did(1)}
            assert (await it.get(f"/records?wantedCollections={LIKE}"))[0] == 400
        assert (await it.reload(right)).changed == ("collections", "server.max_connections")


async def test_what_needs_a_restart_is_named_at_every_reload_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "data") as it:
        for _ in range(2):
            found = await it.reload({"listen": "127.0.0.1:1", "s3.region": "eu-central-1"})
            assert found == config.Reloaded((), ("listen", "s3.region"))
        assert (await it.get("/healthz"))[0] == 200
        assert await it.reload({}) == config.Reloaded()


async def test_while_the_log_is_repaired_a_reload_holds_from_the_start_on(tmp_path: Path) -> None:
    """Nothing but the server runs yet: whoever begins later begins with what holds now."""
    data = tmp_path / "data"
    async with running(data) as it:
        await it.log(post(1, author=did(1)), post(2, author=did(2)))
    listed = tmp_path / "list"
    listed.write_text(did(1))
    given: dict[str, object] = {"data": str(data), "upstream": [f"ws://{NOWHERE}/subscribe"]}
    daemon = Daemon(config.load(given, {}), data)
    given |= {"exclude": str(listed), "collections": [LIKE], "log.memory_bytes": MEGABYTE}
    found = await daemon.reload(lambda: config.load(given, {}))
    assert found.changed == ("collections", "exclude", "log.memory_bytes")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run, listeners)
        it = Running(daemon, listeners[0].socket.getsockname()[1], given)
        assert it.session._intake.subscription.logged(LIKE)
        lines = (await it.get("/records?cursor=0"))[1].splitlines()
        assert [json.loads(line)["did"] for line in lines] == [did(2)]
        nursery.cancel_scope.cancel()
    daemon.close()


async def test_files_that_cannot_be_read_in_time_hold_up_no_later_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do they take a thread each: all that waits for the disk shares those."""
    monkeypatch.setattr(daemon, "RELOAD_SECONDS", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with running(tmp_path / "data") as it:
        before = threading.active_count()
        for _ in range(3):
            with trio.fail_after(5):
                assert "not all was read within 0.2 s" in await refused(it, {"exclude": str(pipe)})
        assert threading.active_count() <= before + 1
        pipe.write_text("")
        monkeypatch.setattr(daemon, "RELOAD_SECONDS", 5)
        assert (await it.reload({"collections": [LIKE]})).changed == ("collections",)
