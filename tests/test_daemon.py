"""The parts together, in one process: what a crash may not undo, what may not be shown."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.archive.samples_archive import T0, plain_lines
from tests.one_daemon import running
from turbod.daemon import Daemon, now_us
from turbod.database import Changes, Database, StoredView
from turbod.event import Event, parse

ALICE, BOB, CAROL = (f"did:plc:{letter * 24}" for letter in "abc")


def account(did: str, *, active: bool) -> Event:
    return parse(
        b'{"did":"%b","time_us":%d,"kind":"account","account":{"active":%b,"did":"%b","seq":1,'
        b'"time":"2026-11-20T08:00:00.000Z"}}'
        % (did.encode(), now_us(), b"true" if active else b"false", did.encode())
    )


def profile(did: str, *, via: str = CAROL) -> bytes:
    return (
        b'{"did":"%b","handle":"h.test","joinedViaStarterPack":{"uri":"at://%b/a.b.c/d",'
        b'"creator":{"did":"%b","handle":"h.test"}}}'
    ) % (did.encode(), via.encode(), via.encode())


async def test_what_a_record_outdated_stays_so_after_a_crash(tmp_path: Path) -> None:
    """A record on disk is not taken in again, so its effect must not need the cache's last save."""
    async with running(tmp_path) as daemon:
        for did in (ALICE, BOB):
            daemon.cache.put(did, profile(did), (did,), stamp=daemon.cache.generation)
        daemon.hydrator.take(account(BOB, active=True), 1, True)
        await daemon.log.flush()
        await daemon._save()
        daemon.hydrator.take(account(ALICE, active=False), 2, True)
        await daemon.log.flush()
    async with running(tmp_path) as daemon:
        assert daemon.cache.get(ALICE) is None
        assert daemon.cache.hidden((ALICE,))
        assert daemon.cache.get(BOB) is not None


async def test_a_cache_far_behind_the_log_is_not_used(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        daemon.hydrator.take(account(ALICE, active=False), 1, True)
        await daemon.log.flush()
        await daemon._save()
    database = Database(tmp_path / "cache.sqlite", max_bytes=10**9)
    database.write(Changes(views={BOB: StoredView(BOB, profile(BOB), (BOB,), 0, now_us())}))
    assert database.number("observed") == 0
    database.close()
    async with running(tmp_path) as daemon:
        assert daemon.cache.get(BOB) is None
        assert daemon.cache.hidden((ALICE,))


async def test_a_record_on_its_way_to_disk_does_not_show_who_is_excluded_meanwhile(
    tmp_path: Path,
) -> None:
    """It was hydrated before the list changed, and gets its cursor after that."""
    (tmp_path / "list").write_text("")
    async with running(tmp_path, exclude=str(tmp_path / "list")) as daemon:
        cache = daemon.cache
        cache.put(ALICE, profile(ALICE, via=BOB), (ALICE, BOB), stamp=cache.generation)
        daemon.hydrator.take(account(ALICE, active=True), 1, True)
        assert daemon.log.head == 0
        daemon._exclude(frozenset({BOB}))
        await daemon.log.flush()
        assert shown(daemon)["user"] is None
        await trio.sleep(0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert shown(daemon)["user"] is None
        daemon._exclude(frozenset())
        assert shown(daemon)["user"]["did"] == ALICE


async def test_who_is_excluded_is_so_from_the_first_subscriber_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subscribers are served while the cache is still told what the newest records outdate."""
    data, listed = tmp_path / "data", tmp_path / "list"
    data.mkdir()
    async with running(data) as daemon:
        daemon.hydrator.take(account(ALICE, active=True), 1, True)
        await daemon.log.flush()
    listed.write_text(ALICE)
    seen: list[bytes | None] = []

    async def look(daemon: Daemon) -> None:
        await trio.lowlevel.checkpoint()
        assert daemon.is_ready.is_set()
        chunk = daemon.log.next_chunk(daemon.log.head - 1)
        assert chunk is not None
        withhold = daemon.server._packer.withhold
        assert withhold is not None
        seen.append(withhold(chunk.heads[-1], chunk.line(len(chunk) - 1)))

    monkeypatch.setattr(Daemon, "_observe_again", look)
    async with running(data, exclude=str(listed)):
        assert seen == [None]


async def test_after_a_restart_memory_reaches_back_into_the_newest_object(tmp_path: Path) -> None:
    """Most who resume then stand a little before the end of the hour that was sealed last."""
    live = tmp_path / "live"
    live.mkdir()
    for hour, name in enumerate(("2026-11-20T10", "2026-11-20T11")):
        lines = plain_lines(hour, 30)
        (live / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    async with running(tmp_path) as daemon:
        with trio.fail_after(20):
            while daemon.archive.statistics().archiver.stored_hours < 1:  # noqa: ASYNC110 - no event
                await trio.sleep(0.01)
    async with running(tmp_path) as daemon:
        assert daemon.whole.in_memory(T0)
        assert daemon.whole.events_behind(T0) == 59


def shown(daemon: Daemon) -> dict[str, Any]:
    """Return what subscribers see of the newest record's views."""
    chunk = daemon.log.next_chunk(daemon.log.head - 1)
    assert chunk is not None
    line = daemon._exclusion.withhold(chunk.heads[-1], chunk.line(len(chunk) - 1))
    assert line is not None
    metadata: dict[str, Any] = json.loads(line)["hydrated_metadata"]
    return metadata


async def test_two_saves_at_once_follow_one_another(tmp_path: Path) -> None:
    """The last save of a shutdown may meet the one that is made every second."""
    async with running(tmp_path) as daemon:
        write = daemon.database.write
        under_way: list[Changes] = []

        def slowly(changes: Changes) -> None:
            under_way.append(changes)
            assert len(under_way) == 1
            time.sleep(0.05)
            write(changes)
            under_way.clear()

        daemon.database.write = slowly  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(daemon._save)
        assert daemon.cache_fault is None


async def test_readiness_names_the_appview_while_it_is_down_and_not_for_what_once_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as daemon:
        appview = daemon.hydrator.appview
        for down, said in ((True, "HTTP 503"), (False, "ok")):
            now = msgspec.structs.replace(appview.statistics(), down=down, last_error="HTTP 503")
            monkeypatch.setattr(appview, "statistics", lambda now=now: now)
            is_ready, parts = daemon.ready()
            assert (is_ready, parts["appview"]) == (True, said)
