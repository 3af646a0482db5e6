"""How much the archive's folder and this disk may take, and what happens when they are full."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
import structlog.testing

from tests.archive.archivers import Machine, folder_machine, identify, retry_quickly, until
from turbod.archive.catalogue import Catalogue
from turbod.archive.stores.store import StoreFault
from turbod.archive.upload import bounds
from turbod.archive.upload.archiver import Archiver
from turbod.archive.upload.bounds import Bounds
from turbod.config import ArchiveSettings


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)


@pytest.fixture
def size(tmp_path: Path) -> int:
    """How big the biggest object of a test is."""
    machine = folder_machine(tmp_path / "scratch", "data")
    names = [machine.seal(hour) for hour in range(1, 6)]
    return max((machine.data / "sealed" / name.file).stat().st_size for name in names)


def free(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 10**12) -> None:
    """Let every disk have so much room."""
    usage = SimpleNamespace(total=total, used=total - free, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def stored(archive: Path) -> list[str]:
    return sorted(path.name for path in archive.glob("dt=*/hour=*/*"))


async def is_full(archiver: Archiver) -> str:
    await until(lambda: archiver.statistics().state == "full")
    return str(archiver.statistics().fault)


async def test_a_full_archive_lets_hours_wait_until_there_is_room(
    tmp_path: Path, size: int
) -> None:
    machine = folder_machine(tmp_path, max_bytes=2 * size)
    names = [machine.seal(hour) for hour in range(1, 5)]
    archive = tmp_path / "archive"
    async with machine.running() as archiver:
        fault = await is_full(archiver)
        assert "archive.max_bytes" in fault
        assert "archive.when_full" in fault
        assert stored(archive) == [name.file for name in names[:2]]
        assert machine.files("sealed") == [name.file for name in names[2:]]
        (archive / names[0].key).unlink()  # an operator moves the oldest elsewhere
        await until(lambda: archiver.statistics().uploaded == 3)
        assert stored(archive) == [name.file for name in names[1:3]]
        await is_full(archiver)
        assert archiver.statistics().hours_waiting == 1


async def test_a_full_archive_loses_its_oldest_where_that_was_chosen(
    tmp_path: Path, size: int
) -> None:
    machine = folder_machine(tmp_path, max_bytes=2 * size, when_full="drop_oldest")
    names = [machine.seal(hour) for hour in range(1, 6)]
    with structlog.testing.capture_logs() as logs:
        async with machine.running() as archiver:
            await until(lambda: archiver.statistics().uploaded == 5)
            statistics = archiver.statistics()
            assert statistics.state == "ok"
            assert statistics.stored_hours == 2
            assert statistics.stored_bytes <= 2 * size
            assert [held.name for held in machine.catalogue.stored()] == names[3:]
            assert len(machine.files("verified")) == 5  # still there to be read
    assert stored(tmp_path / "archive") == [name.file for name in names[3:]]
    dropped = [each["object"] for each in logs if each["event"] == "archive_hour_dropped"]
    assert dropped == [name.key for name in names[:3]]


async def test_an_hour_bigger_than_the_archive_may_be_costs_no_other(
    tmp_path: Path, size: int
) -> None:
    machine = folder_machine(tmp_path, max_bytes=2 * size, when_full="drop_oldest")
    machine.seal(1)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded)
        machine.sealed(archiver, 2, noise=size)
        await is_full(archiver)
        assert len(stored(tmp_path / "archive")) == 1


async def test_half_of_what_was_free_is_remembered_where_the_archive_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    free(monkeypatch, 3 * size)
    machine = folder_machine(tmp_path)
    await machine.start()
    written = json.loads((tmp_path / "archive" / "turbod.json").read_text())
    assert written["max_bytes"] == 3 * size // 2
    free(monkeypatch, 10**12)
    machine.seal(1)
    machine.seal(2)
    async with machine.running() as archiver:
        await is_full(archiver)
        assert archiver.statistics().uploaded == 1


async def test_an_archive_that_does_not_say_how_big_it_may_be_gets_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    free(monkeypatch, 4 * size)
    identify(tmp_path / "archive", '{"format":1,"instance":"me"}')
    machine = folder_machine(tmp_path)
    names = [machine.seal(hour) for hour in range(1, 6)]
    (machine.data / "instance").write_text("me")
    async with machine.running() as archiver:
        await is_full(archiver)
        assert archiver.statistics().stored_bytes <= 2 * size
        assert stored(tmp_path / "archive") == [name.file for name in names[:2]]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that is not there, on another disk."""
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk here")
    return Path("/dev/shm/none")


async def test_on_a_disk_of_its_own_an_archive_takes_no_more_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    limits = Bounds(
        ArchiveSettings(location=str(elsewhere), max_bytes=10**9),
        data=tmp_path,
        log_max_bytes=10**9,
    )
    free(monkeypatch, 10**6)
    room = await limits.room(stored_bytes=0, remembered_bytes=0)
    assert room is not None
    assert (room.limit, room.left) == (10**9, 10**6)
    assert f"the disk of {elsewhere} has" in room.reason


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk."""
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk here")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


async def test_no_more_is_dropped_than_is_missing_though_the_disk_frees_it_later_or_never(
    tmp_path: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A file system may free what was deleted seconds later, or not at all."""
    machine = folder_machine(other_disk, max_bytes=10**9, when_full="drop_oldest")
    machine = Machine(tmp_path / "data", machine.store, settings=machine.settings)
    names = [machine.seal(hour) for hour in range(1, 6)]
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded == 5)
        free(monkeypatch, size // 2)
        waiting = machine.sealed(archiver, 6)
        assert "though as much was dropped as is needed" in await is_full(archiver)
        asked = len(machine.moods.asked)
        await until(lambda: len(machine.moods.asked) > asked + 20)
        assert stored(other_disk / "archive") == [name.file for name in names[1:]]
        free(monkeypatch, 10**12)
        await until(lambda: archiver.statistics().uploaded == 6)
        assert stored(other_disk / "archive") == [each.file for each in (*names[1:], waiting)]


async def test_a_bucket_has_no_bound(tmp_path: Path) -> None:
    settings = ArchiveSettings(location="s3://bucket/prefix", max_bytes=1)
    limits = Bounds(settings, data=tmp_path, log_max_bytes=10**9)
    assert await limits.room(stored_bytes=10**9, remembered_bytes=0) is None
    assert await limits.half_of_free() == 0
    assert limits.hours_left(Catalogue()) is None


async def test_a_disk_that_does_not_say_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    limits = Bounds(ArchiveSettings(), data=tmp_path, log_max_bytes=10**9)
    monkeypatch.setattr(shutil, "disk_usage", refuse)
    with pytest.raises(StoreFault, match="archive: Input/output error"):
        await limits.half_of_free()


async def test_hours_that_the_archive_has_leave_this_disk_oldest_first(
    tmp_path: Path, size: int
) -> None:
    machine = folder_machine(tmp_path, log_max_bytes=3 * size)
    names = [machine.seal(hour) for hour in range(1, 6)]
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded == 5)
        await until(lambda: len(machine.files("verified")) == 3)
    assert machine.files("verified") == [name.file for name in names[2:]]
    assert stored(tmp_path / "archive") == [name.file for name in names]


async def test_hours_that_wait_stay_on_this_disk_however_full_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = folder_machine(tmp_path, log_max_bytes=0)
    names = [machine.seal(hour) for hour in range(1, 6)]
    machine.moods.fault = "away"
    free(monkeypatch, 0)
    async with machine.running(open_seconds=0.05):
        await until(lambda: len(machine.moods.asked) > 10)
        assert machine.files("sealed") == [name.file for name in names]


async def test_before_the_disk_is_full_hours_leave_it_that_the_archive_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    machine = folder_machine(tmp_path)
    for hour in range(1, 6):
        machine.seal(hour)
    free(monkeypatch, bounds.RESERVE_BYTES - 2 * size)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded == 5)
        await until(lambda: len(machine.files("verified")) <= 3)


async def test_statistics_tell_for_how_many_hours_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = folder_machine(tmp_path, max_bytes=10**6)
    for hour in range(1, 6):
        machine.seal(hour)
    free(monkeypatch, 10**9)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded == 5)
        await until(lambda: archiver.statistics().disk_hours_left)
        statistics = archiver.statistics()
        mean = statistics.stored_bytes / 5
        assert statistics.hours_left == pytest.approx((10**6 - statistics.stored_bytes) / mean, 0.1)
        assert statistics.disk_hours_left == pytest.approx(10**9 / mean)
        assert statistics.last_upload_seconds is not None
        assert statistics.uploaded_bytes == statistics.stored_bytes
