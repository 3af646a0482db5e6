"""One instance writes to an archive: which one, and what everybody else does."""

import json
from pathlib import Path

import pytest
import structlog.testing
import trio

from tests.archive.archivers import (
    Machine,
    folder_machine,
    identify,
    put_into,
    retry_quickly,
    until,
)
from tests.archive.samples_archive import plain_lines
from turbod.archive.format.names import Name
from turbod.archive.stores.store import AlreadyThere
from turbod.archive.upload import identity, intruders
from turbod.archive.upload.archiver import Archiver
from turbod.archive.upload.identity import Unreadable
from turbod.cursor import HOUR_US


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def own_id(machine: Machine) -> str:
    return (machine.data / "instance").read_text().strip()


def written_id(archive: Path) -> str:
    return str(json.loads((archive / "turbod.json").read_text())["instance"])


async def refused(archiver: Archiver) -> str:
    """Wait until the archiver says that it may not write; return why."""
    await until(lambda: archiver.statistics().state == "conflict")
    return str(archiver.statistics().fault)


async def test_a_new_archive_is_marked_as_ours_for_good(tmp_path: Path, archive: Path) -> None:
    machine = folder_machine(tmp_path)
    first = (await machine.start()).instance
    second = (await machine.start()).instance
    assert first == second == own_id(machine) == written_id(archive)
    other = await folder_machine(tmp_path / "elsewhere", "data").start()
    assert other.instance != first


async def test_an_archive_of_another_is_only_read(tmp_path: Path, archive: Path) -> None:
    identify(archive)
    put_into(archive, plain_lines(1, 5))
    machine = folder_machine(tmp_path)
    machine.seal(3)
    async with machine.running() as archiver:
        fault = await refused(archiver)
        assert "belongs to the turbod another" in fault
        assert own_id(machine) in fault
        assert "--archive" in fault
        await until(lambda: len(machine.moods.asked) > 20)  # it goes on looking
        assert not [each for each in machine.moods.asked if each.startswith("put")]
        assert [held.is_stored for held in machine.catalogue] == [True, False]
        (archive / "turbod.json").write_text(f'{{"format":1,"instance":"{own_id(machine)}"}}')
        await until(lambda: archiver.statistics().uploaded)  # and goes on when it may
    assert machine.files("verified")


@pytest.mark.parametrize("history", ["live/2026-11-20T10.jsonl", "sealed", "instance"])
async def test_a_machine_with_a_history_of_its_own_takes_nothing_over(
    tmp_path: Path, archive: Path, history: str
) -> None:
    machine = folder_machine(tmp_path)
    if history == "sealed":
        machine.seal(1)
    else:
        (machine.data / history).write_text("mine\n")
    identify(archive)
    archiver = await machine.start()
    assert "belongs to the turbod another" in await refused(archiver)
    assert archiver.instance != "another"


async def test_a_fresh_machine_goes_on_in_place_of_the_one_that_is_gone(
    tmp_path: Path, archive: Path
) -> None:
    identify(archive)
    put_into(archive, plain_lines(1, 5))
    machine = folder_machine(tmp_path)
    async with machine.running() as archiver:
        assert archiver.instance == own_id(machine) == "another"
        name = machine.sealed(archiver, 2)
        await until(lambda: archiver.statistics().uploaded)
        assert archiver.statistics().state == "ok"
    assert (archive / name.key).is_file()


async def test_a_fresh_machine_that_could_not_look_has_an_id_of_its_own(
    tmp_path: Path, archive: Path
) -> None:
    """Its cursors begin wherever they do, so it must not write among another's."""
    identify(archive)
    machine = folder_machine(tmp_path)
    machine.moods.fault = "away"
    async with machine.running(open_seconds=0.1) as archiver:
        assert own_id(machine) == archiver.instance != "another"
        machine.moods.fault = None
        assert "belongs to the turbod another" in await refused(archiver)


async def test_of_two_that_begin_an_archive_at_once_one_wins(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = folder_machine(tmp_path)

    async def put_bytes(key: str, data: bytes) -> None:  # noqa: ARG001 - too late
        identify(archive)
        raise AlreadyThere("there it is")

    monkeypatch.setattr(machine.store, "put_bytes", put_bytes)
    archiver = await machine.start()
    assert "belongs to the turbod another" in await refused(archiver)
    assert written_id(archive) == "another"


async def test_who_was_overwritten_by_another_notices_before_the_next_upload(
    tmp_path: Path, archive: Path
) -> None:
    """Where the server ignores conditions, the later of two overwrites the former."""
    machine = folder_machine(tmp_path)
    async with machine.running() as archiver:
        identify(archive)
        machine.sealed(archiver, 1)
        assert "belongs to the turbod another" in await refused(archiver)
        assert machine.files("verified") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format":2,"instance":"me"}', "its format is 2, this turbod writes 1"),
        ("", "is not what turbod wrote there"),
        ("<html>", "is not what turbod wrote there"),
        ("[" * 10_000, "is not what turbod wrote there"),
        ('{"format":1,"instance":"../x"}', "no instance in it"),
        ('{"format":1,"instance":"me","max_bytes":-1}', "is not what turbod wrote there"),
        (" " * 70_000, "has 70000 bytes"),
    ],
)
async def test_what_cannot_be_read_in_turbod_json_is_told_and_kept(
    tmp_path: Path, archive: Path, text: str, words: str
) -> None:
    identify(archive, text)
    machine = folder_machine(tmp_path)
    (machine.data / "instance").write_text("me\n")
    machine.seal(1)
    async with machine.running() as archiver:
        fault = await refused(archiver)
        assert words in fault
        assert "turbod.json" in fault
        assert (archive / "turbod.json").read_text() == text
        identify(archive, '{"format":1,"instance":"me","later":"versions add keys"}')
        await until(lambda: archiver.statistics().uploaded)


async def test_without_turbod_json_the_newest_hour_tells_whose_it_is(
    tmp_path: Path, archive: Path
) -> None:
    path = put_into(archive, plain_lines(1, 5))  # by the instance `test`
    machine = folder_machine(tmp_path)
    machine.seal(2)
    archiver = await machine.start()
    assert "belongs to the turbod test" in await refused(archiver)
    assert not (archive / "turbod.json").exists()
    fresh = folder_machine(tmp_path, "fresh")
    assert (await fresh.start()).instance == "test" == written_id(archive)
    (archive / "turbod.json").unlink()
    path.write_bytes(path.read_bytes()[:-1])
    assert "put turbod.json back" in await refused(await fresh.start())


async def test_a_second_writer_with_the_same_id_is_noticed_and_nothing_is_lost(
    tmp_path: Path, archive: Path
) -> None:
    """A fresh machine took the id over while the other still ran."""
    first, second = folder_machine(tmp_path, "first"), folder_machine(tmp_path, "second")
    async with first.running() as one:
        first.sealed(one, 1)
        await until(lambda: one.statistics().uploaded == 1)
        async with second.running() as other:
            assert other.instance == one.instance
            theirs = second.sealed(other, 2, noise=9)
            await until(lambda: other.statistics().uploaded == 1)
            ours = first.sealed(one, 2)
            fault = await refused(one)
            assert f"another turbod stored {theirs.key}" in fault
            assert first.files("sealed") == [ours.file]
        before = (archive / theirs.key).read_bytes()
        await until(lambda: first.moods.asked.count("list ") > 4)
        assert (archive / theirs.key).read_bytes() == before
        assert one.statistics().uploaded == 1
        (archive / theirs.key).rename(tmp_path / "moved")
        await until(lambda: one.statistics().uploaded == 2)
        assert one.statistics().state == "ok"


async def test_both_writers_stop_where_both_stored_an_hour(tmp_path: Path) -> None:
    first, second = folder_machine(tmp_path, "first"), folder_machine(tmp_path, "second")
    async with first.running() as one, second.running() as other:
        seen = (first.seal(2), second.seal(2, lines=plain_lines(2, 7)))
        for machine, archiver, name in ((first, one, seen[0]), (second, other, seen[1])):
            path = tmp_path / "archive" / name.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(machine.data / "sealed" / name.file)
            machine.local.add(name, path.stat().st_size)
            archiver.wake()
        for archiver, name in ((one, seen[1]), (other, seen[0])):
            assert f"another turbod stored {name.key}" in await refused(archiver)


async def test_after_a_restart_what_is_there_is_not_taken_for_anothers(tmp_path: Path) -> None:
    machine = folder_machine(tmp_path, log_max_bytes=0)
    async with machine.running() as archiver:
        for hour in (1, 2):
            machine.sealed(archiver, hour)
        await until(lambda: archiver.statistics().uploaded == 2)
        await until(lambda: not machine.files("verified"))  # pruned
        machine.sealed(archiver, 3)
        await until(lambda: archiver.statistics().uploaded == 3)
    async with machine.running() as archiver:
        machine.sealed(archiver, 4)
        await until(lambda: archiver.statistics().uploaded == 1)
        assert archiver.statistics().state == "ok"


async def test_an_id_that_cannot_be_written_is_a_fault_and_stops_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = folder_machine(tmp_path)

    def refuse(data: Path, instance: str) -> None:
        raise OSError(28, "No space left on device", str(data / instance))

    with monkeypatch.context() as patched:
        patched.setattr("turbod.archive.upload.standing.save_own", refuse)
        archiver = await machine.start(open_seconds=0.1)
        assert archiver.instance
        assert archiver.statistics().state == "failing"
        assert "instance cannot be written: No space left" in str(archiver.statistics().fault)
        assert not (tmp_path / "archive" / "turbod.json").exists()
    async with trio.open_nursery() as nursery:
        await nursery.start(archiver.run)
        await until(lambda: archiver.statistics().state == "ok")
        nursery.cancel_scope.cancel()
    assert own_id(machine) == archiver.instance == written_id(tmp_path / "archive")


async def test_the_log_tells_a_refusal_once(tmp_path: Path, archive: Path) -> None:
    identify(archive)
    machine = folder_machine(tmp_path)
    machine.seal(1)
    with structlog.testing.capture_logs() as logs:
        async with machine.running():
            await until(lambda: machine.moods.asked.count("list ") > 8)
    assert [each["log_level"] for each in logs if each["event"] == "archive_conflict"] == ["error"]


def test_what_was_written_reads_back() -> None:
    ours = identity.new_identity("me", max_bytes=7)
    assert identity.decode(identity.encode(ours)) == ours
    with pytest.raises(Unreadable, match="format is 9"):
        identity.decode(b'{"format":9}')


def test_only_what_came_behind_our_newest_is_an_intruder() -> None:
    def name(hour: int, number: int = 0) -> Name:
        return Name(10**15 + hour * HOUR_US + number, 10**15 + hour * HOUR_US + 99)

    def among(*names: Name) -> list[Name]:
        return guard.among([(each, 10) for each in names])

    guard = intruders.Intruders(is_here=lambda each, size: (each, size) == (name(7), 10))
    guard.first([name(1), name(2), name(2, 1)])
    assert among(name(1), name(1, 5), name(2), name(2, 1), name(7)) == []
    assert among(name(2, 3), name(2), name(3)) == [name(2, 3), name(3)]
    assert guard.among([(name(7), 11)]) == [name(7)]
    guard.ours(name(3))
    assert among(name(3), name(4), name(2, 3)) == [name(4)]
    guard.ours(name(1, 3))  # an old hour that waited
    assert among(name(1, 3), name(1, 4), name(3), name(3, 1)) == [name(3, 1)]
