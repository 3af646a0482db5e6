"""Hours of which the store has something else: nothing is overwritten, nothing held up."""

import shutil
from pathlib import Path

import pytest
import trio

from tests.archive.archivers import (
    Machine,
    folder_machine,
    identify,
    put_into,
    retry_quickly,
    until,
)
from tests.archive.samples_archive import T0, line, plain_lines
from turbod.archive.format import object_writer
from turbod.archive.format.names import Name
from turbod.archive.upload.archiver import Archiver


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def machine(tmp_path: Path, archive: Path) -> Machine:
    """One whose archive is marked as its own."""
    machine = folder_machine(tmp_path)
    (machine.data / "instance").write_text("me\n")
    identify(archive, '{"format":1,"instance":"me"}')
    return machine


def is_kept(machine: Machine, archiver: Archiver, ours: Name, theirs: Path, before: bytes) -> bool:
    """Tell whether both objects of a conflict are as they were, and an operator sees it."""
    statistics = archiver.statistics()
    assert statistics.state == "conflict"
    assert statistics.conflicts == 1
    assert theirs.name in str(statistics.fault)
    assert ours.file in str(statistics.fault)
    return machine.files("sealed") == [ours.file] and theirs.read_bytes() == before


async def test_other_bytes_under_the_same_key_are_a_conflict_that_holds_nothing_up(
    machine: Machine, archive: Path
) -> None:
    ours, next_one = machine.seal(1), machine.seal(2)
    lines = plain_lines(1, 20)
    lines[3] = lines[3].replace(b"null", b"true")
    theirs = put_into(archive, lines)
    before = theirs.read_bytes()
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded)
        assert machine.files("verified") == [next_one.file]
        assert is_kept(machine, archiver, ours, theirs, before)
        asked = machine.moods.asked.count(f"sha256 {ours.key}")
        await until(lambda: machine.moods.asked.count("list ") > 5)
        assert machine.moods.asked.count(f"sha256 {ours.key}") == asked  # nothing changed there
        theirs.unlink()
        await until(lambda: archiver.statistics().uploaded == 2)
        await until(lambda: archiver.statistics().state == "ok")
    assert (archive / ours.key).read_bytes() == (machine.data / "verified" / ours.file).read_bytes()


async def test_an_hour_that_is_part_of_the_stored_one_is_not_needed(
    machine: Machine, archive: Path
) -> None:
    """A snapshot of this machine was restored: it has the beginning of an hour stored since."""
    lines = plain_lines(1, 60, padding=500)
    theirs = put_into(archive, lines)
    before = theirs.read_bytes()
    machine.seal(1, lines=lines[:37])
    async with machine.running() as archiver:
        await until(lambda: not machine.files("sealed"))
        await until(lambda: archiver.statistics().hours_waiting == 0)
        assert archiver.statistics().state == "ok"
        assert archiver.statistics().uploaded == 0
        assert [held.name.file for held in machine.catalogue] == [theirs.name]
    assert theirs.read_bytes() == before
    assert machine.files("verified") == []


async def test_an_hour_of_which_the_stored_one_lacks_a_record_is_a_conflict(
    machine: Machine, archive: Path
) -> None:
    lines = plain_lines(1, 60)
    theirs = put_into(archive, [*lines[:20], *lines[21:]])
    before = theirs.read_bytes()
    ours = machine.seal(1, lines=lines[10:50])
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().state == "conflict")
        assert is_kept(machine, archiver, ours, theirs, before)
        assert "each has records that the other has not" in str(archiver.statistics().fault)


async def test_an_hour_of_which_the_stored_one_is_damaged_is_a_conflict(
    machine: Machine, archive: Path
) -> None:
    lines = plain_lines(1, 60)
    theirs = put_into(archive, lines)
    damaged = bytearray(theirs.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    theirs.write_bytes(damaged)
    ours = machine.seal(1, lines=lines[:50])
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().state == "conflict")
        assert is_kept(machine, archiver, ours, theirs, bytes(damaged))
        assert "damaged" in str(archiver.statistics().fault)
        assert machine.files("verified") == []


async def test_the_same_lines_sealed_otherwise_are_not_needed(
    machine: Machine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot was restored, and a later turbod seals what is in the archive already."""
    theirs = put_into(archive, plain_lines(1, 20))
    before = theirs.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(object_writer, "__version__", "later")
        ours = machine.seal(1)
    assert (machine.data / "sealed" / ours.file).read_bytes() != before
    async with machine.running() as archiver:
        await until(lambda: not machine.files("sealed"))
        await until(lambda: archiver.statistics().hours_waiting == 0)
        assert archiver.statistics().state == "ok"
    assert theirs.read_bytes() == before
    assert machine.files("verified") == []


@pytest.mark.parametrize("count", [20, 10])
async def test_ours_may_be_taken_away_while_the_two_are_compared(
    machine: Machine, archive: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """An operator does what a conflict asks for, at any moment."""
    theirs = put_into(archive, plain_lines(1, 20))
    ours = machine.seal(1, lines=plain_lines(1, 20)[:count])
    if count == 20:
        theirs.write_bytes(theirs.read_bytes()[:-100])
    path, read = machine.data / "sealed" / ours.file, machine.moods.read

    async def read_and_take_away(key: str, *, offset: int, size: int) -> bytes:
        if not key.endswith("turbod.json"):
            path.unlink(missing_ok=True)
        return await read(key, offset=offset, size=size)

    monkeypatch.setattr(machine.store, "read", read_and_take_away)
    async with machine.running() as archiver:
        await until(lambda: not path.exists() and archiver.statistics().hours_waiting == 0)
        await until(lambda: archiver.statistics().state == "ok")


async def test_a_conflict_ends_when_ours_is_taken_away(machine: Machine, archive: Path) -> None:
    put_into(archive, plain_lines(1, 7))
    ours = machine.seal(1)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().state == "conflict")
        (machine.data / "sealed" / ours.file).unlink()
        await until(lambda: archiver.statistics().state == "ok")
        assert archiver.statistics().hours_waiting == 0


@pytest.mark.parametrize("size", [0, 1, 700])
async def test_a_torn_upload_is_removed_and_stored_again(
    machine: Machine, archive: Path, size: int
) -> None:
    """A server that dies while it takes an object may keep the beginning."""
    name = machine.seal(1)
    whole = (machine.data / "sealed" / name.file).read_bytes()
    (archive / name.key).parent.mkdir(parents=True)
    (archive / name.key).write_bytes(whole[:size])
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded)
    assert (archive / name.key).read_bytes() == whole


async def test_what_is_damaged_under_our_key_and_not_of_our_making_is_kept(
    machine: Machine, archive: Path
) -> None:
    ours = machine.seal(1)
    whole = (machine.data / "sealed" / ours.file).read_bytes()
    theirs = archive / ours.key
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"x" + whole[1:-10])
    before = theirs.read_bytes()
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().state == "conflict")
        assert is_kept(machine, archiver, ours, theirs, before)


async def test_what_the_store_spoils_as_it_takes_it_is_removed_and_stored_again(
    machine: Machine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, spoilt = machine.moods.put, 0

    async def spoil(key: str, path: Path) -> None:
        nonlocal spoilt
        data = bytearray(await trio.Path(path).read_bytes())
        if spoilt < 3:
            spoilt += 1
            data[-spoilt * 100] ^= 1
        copy = archive.parent / f"copy-{spoilt}"
        copy.write_bytes(data)
        await put(key, copy)

    monkeypatch.setattr(machine.store, "put", spoil)
    name = machine.seal(1)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().state == "failing")
        assert "other bytes were stored than were sent" in str(archiver.statistics().fault)
        assert machine.files("verified") == []
        await until(lambda: archiver.statistics().uploaded)
    assert spoilt == 3
    ours = (machine.data / "verified" / name.file).read_bytes()
    assert (archive / name.key).read_bytes() == ours
    assert machine.files("sealed") == []


async def test_another_whole_object_that_takes_our_key_meanwhile_is_kept(
    machine: Machine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server ignores conditions two uploads of one key may pass one another."""
    lines = plain_lines(1, 20)
    lines[3] = lines[3].replace(b"null", b"true")
    elsewhere = put_into(archive.parent / "elsewhere", lines)

    async def put(key: str, path: Path) -> None:  # noqa: ARG001 - the other was the later
        (archive / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(elsewhere, archive / key)

    monkeypatch.setattr(machine.store, "put", put)
    ours = machine.seal(1)
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().state == "conflict")
        assert is_kept(machine, archiver, ours, archive / ours.key, elsewhere.read_bytes())


async def test_foreign_files_in_the_hour_are_no_conflict(machine: Machine, archive: Path) -> None:
    name = machine.seal(1)
    note = archive / name.key.rpartition("/")[0] / "note.txt"
    note.parent.mkdir(parents=True)
    note.write_text("hello")
    async with machine.running() as archiver:
        await until(lambda: archiver.statistics().uploaded)
        assert archiver.statistics().foreign == 1
    assert note.read_text() == "hello"


async def test_an_hour_of_one_record_may_be_part_of_another(
    machine: Machine, archive: Path
) -> None:
    lines = [line(T0 + number) for number in range(3)]
    put_into(archive, lines)
    machine.seal(0, lines=lines[1:2])
    async with machine.running() as archiver:
        await until(lambda: not machine.files("sealed"))
        assert archiver.statistics().state == "ok"
