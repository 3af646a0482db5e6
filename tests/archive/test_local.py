"""The objects on this disk, and what a crash left of them."""

import errno
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.archive.samples_archive import HOUR, T0
from tests.archive.sealed import hour_of_lines, line
from turbod.archive import local as local_module
from turbod.archive.catalogue import Catalogue
from turbod.archive.format.names import Name
from turbod.archive.local import Local
from turbod.archive.sealing import seal
from turbod.eventlog.hour_file import gaps_name, records_name
from turbod.eventlog.hours import PlainHour
from turbod.eventlog.opening import plain_hours


def write_plain(data: Path, hour: int, *, count: int = 5) -> PlainHour:
    """Write an hour, by its number after T0, as the log has it on disk."""
    live = data / "live"
    live.mkdir(exist_ok=True)
    lines = hour_of_lines(hour, count)
    (live / records_name(T0 + hour * HOUR)).write_bytes(b"".join(lines))
    return next(each for each in plain_hours(live) if each.hour == T0 + hour * HOUR)


def make_object(data: Path, hour: int, *, folder: str = "sealed", count: int = 5) -> Name:
    """Seal an hour as the sealer does; the plain file stays."""
    plain = write_plain(data, hour, count=count)
    (data / folder).mkdir(exist_ok=True)
    name = seal(
        plain,
        folder=data / folder,
        previous=0,
        instance="here",
        upstreams=[],
        cancelled=lambda: False,
    )
    assert name is not None
    return name


def without_plain(data: Path) -> None:
    for path in (data / "live").iterdir():
        path.unlink()


async def opened(data: Path) -> tuple[Local, Catalogue]:
    catalogue = Catalogue()
    local = Local(data, catalogue)
    await local.open()
    return local, catalogue


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_what_is_in_the_folders_is_known_and_what_was_being_made_is_deleted(
    tmp_path: Path,
) -> None:
    kept = make_object(tmp_path, 0, folder="verified")
    names = [make_object(tmp_path, hour) for hour in (2, 1)]
    for folder in ("sealed", "verified"):
        (tmp_path / folder / ".2026-11-20T13.jsonl.zst.making").write_bytes(b"half")
        (tmp_path / folder / "notes.txt").write_bytes(b"mine")
    with structlog.testing.capture_logs() as logs:
        local, catalogue = await opened(tmp_path)
    assert local.sealed() == sorted(names)
    assert [(held.name, held.path) for held in catalogue] == [
        (kept, tmp_path / "verified" / kept.file),
        *((name, tmp_path / "sealed" / name.file) for name in sorted(names)),
    ]
    sizes = [held.size for held in catalogue]
    statistics = local.statistics()
    assert (statistics.sealed, statistics.sealed_bytes) == (2, sum(sizes[1:]))
    assert (statistics.verified, statistics.verified_bytes) == (1, sizes[0])
    assert [(entry["event"], entry["files"]) for entry in logs] == [
        ("archive_unknown_files", ["notes.txt"])
    ] * 2
    assert names_in(tmp_path / "sealed") == sorted([*(each.file for each in names), "notes.txt"])


async def test_an_empty_data_folder_gets_its_folders(tmp_path: Path) -> None:
    local, catalogue = await opened(tmp_path / "data")
    assert names_in(tmp_path / "data") == ["live", "sealed", "verified"]
    assert (local.sealed(), list(catalogue)) == ([], [])
    await local.adopt()
    assert await local.prune(0) == []


async def test_a_verified_object_moves_and_the_catalogue_follows(tmp_path: Path) -> None:
    name = make_object(tmp_path, 0)
    for restarted in (False, True):
        if not restarted:
            local, catalogue = await opened(tmp_path)
            await local.verified(name)
        else:
            local, catalogue = await opened(tmp_path)
        assert local.sealed() == []
        assert [held.path for held in catalogue] == [tmp_path / "verified" / name.file]
        assert local.statistics().verified == 1
        assert names_in(tmp_path / "sealed") == []


async def test_pruning_takes_the_oldest_verified_never_what_is_only_here(tmp_path: Path) -> None:
    for hour in (0, 1, 2, 4):
        make_object(tmp_path, hour, folder="verified", count=50)
    waiting = [make_object(tmp_path, hour, count=50) for hour in (3, 5)]
    without_plain(tmp_path)
    plain = write_plain(tmp_path, 6, count=50)
    local, catalogue = await opened(tmp_path)
    sizes = [held.size for held in catalogue]
    everything = sum(sizes) + plain.size
    assert await local.prune(everything) == []
    oldest = [held.name for held in catalogue]
    assert await local.prune(everything - 1) == oldest[:1]
    assert await local.prune(everything - sizes[0] - sizes[1] - 1) == oldest[1:3]
    assert await local.prune(0) == [oldest[4]]
    assert [held.name for held in catalogue] == waiting == local.sealed()
    assert names_in(tmp_path / "verified") == []
    assert names_in(tmp_path / "sealed") == [each.file for each in waiting]
    assert plain.path.exists()


@pytest.mark.parametrize("folder", ["sealed", "verified"])
async def test_a_plain_hour_whose_object_is_whole_is_deleted_with_its_gaps(
    tmp_path: Path, folder: str
) -> None:
    make_object(tmp_path, 0, folder=folder)
    other = write_plain(tmp_path, 1)
    for hour in (0, 1):
        (tmp_path / "live" / gaps_name(T0 + hour * HOUR)).write_bytes(
            b'{"after":%d,"before":%d,"message":"lost"}\n' % (T0 - 1, T0 + hour * HOUR)
        )
    local, catalogue = await opened(tmp_path)
    await local.adopt()
    assert names_in(tmp_path / "live") == [gaps_name(other.hour), records_name(other.hour)]
    assert len(catalogue) == 1


async def test_a_damaged_object_is_deleted_while_its_plain_hour_is_there(tmp_path: Path) -> None:
    name = make_object(tmp_path, 0)
    path = tmp_path / "sealed" / name.file
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    before = names_in(tmp_path / "live")
    local, catalogue = await opened(tmp_path)
    assert local.sealed() == [name], "the index alone does not tell"
    with structlog.testing.capture_logs() as logs:
        await local.adopt()
    assert [entry["event"] for entry in logs] == ["object_made_again"]
    assert (local.sealed(), list(catalogue), names_in(tmp_path / "sealed")) == ([], [], [])
    assert names_in(tmp_path / "live") == before


async def test_a_torn_object_is_deleted_while_its_plain_hour_is_there(tmp_path: Path) -> None:
    name = make_object(tmp_path, 0)
    path = tmp_path / "sealed" / name.file
    path.write_bytes(path.read_bytes()[:-7])
    local, _ = await opened(tmp_path)
    assert local.statistics().damaged == 1
    await local.adopt()
    assert local.statistics().damaged == 0
    assert names_in(tmp_path / "sealed") == []


async def test_an_object_that_ends_before_the_plain_hour_does_not_take_its_place(
    tmp_path: Path,
) -> None:
    make_object(tmp_path, 0)
    with (tmp_path / "live" / records_name(T0)).open("ab") as file:
        file.write(line(T0 + HOUR - 1))
    local, _ = await opened(tmp_path)
    await local.adopt()
    assert len(names_in(tmp_path / "live")) == 1


async def test_a_damaged_object_that_is_all_there_is_stays_and_is_named(tmp_path: Path) -> None:
    damaged, whole = make_object(tmp_path, 0), make_object(tmp_path, 1)
    without_plain(tmp_path)
    path = tmp_path / "sealed" / damaged.file
    path.write_bytes(path.read_bytes()[:100])
    with structlog.testing.capture_logs() as logs:
        local, catalogue = await opened(tmp_path)
        await local.adopt()
    assert [(entry["event"], entry["file"]) for entry in logs] == [("object_damaged", str(path))]
    assert local.sealed() == [whole], "it is not brought to the store"
    assert [held.name for held in catalogue] == [damaged, whole], "whoever reads it sees a gap"
    assert local.statistics().damaged == 1
    assert path.exists()


async def test_what_the_store_has_already_is_dropped_wherever_it_lies(tmp_path: Path) -> None:
    name = make_object(tmp_path, 0)
    make_object(tmp_path, 0, folder="verified")
    local, catalogue = await opened(tmp_path)
    await local.drop(name)
    assert (local.sealed(), list(catalogue)) == ([], [])
    assert names_in(tmp_path / "sealed") == names_in(tmp_path / "verified") == []
    await local.drop(name)


async def test_a_move_is_durable_in_both_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_object(tmp_path, 0)
    local, _ = await opened(tmp_path)
    synced: list[tuple[str, list[str]]] = []

    def sync_folder(folder: Path) -> None:
        synced.append((folder.name, names_in(folder)))

    monkeypatch.setattr(local_module, "sync_folder", sync_folder)
    await local.verified(name)
    assert synced == [("verified", [name.file]), ("sealed", [])]


@pytest.mark.parametrize("plain", ["gone", "there"])
async def test_an_object_that_the_disk_cannot_read_does_not_keep_us_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: str
) -> None:
    name, whole = make_object(tmp_path, 0), make_object(tmp_path, 1)
    if plain == "gone":
        without_plain(tmp_path)
    path = tmp_path / "sealed" / name.file
    opens = Path.open

    def fail(self: Path, *arguments: Any, **more: Any) -> Any:
        if self == path:
            raise OSError(errno.EIO, "Input/output error", str(self))
        return opens(self, *arguments, **more)

    with monkeypatch.context() as patched, structlog.testing.capture_logs() as logs:
        patched.setattr(Path, "open", fail)
        local, catalogue = await opened(tmp_path)
        await local.adopt()
    assert [held.name for held in catalogue] == [name, whole], "no hour after it begins before it"
    assert local.sealed() == [whole], "it is not brought to the store"
    assert path.exists()
    assert names_in(tmp_path / "live") == ([records_name(T0)] if plain == "there" else [])
    assert "Input/output error" in str(logs)
    local.add(name, path.stat().st_size)
    assert local.sealed() == [name, whole], "once it was made again, it is"
