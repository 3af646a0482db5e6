"""What `turbod check` says of this machine: data folder, disks, limits, port, files."""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import free_port
from tests.archive.scripted_s3 import answer, scripted_s3
from turbod import data_folder
from turbod.check import data, disk, files, limits, port, trial
from turbod.check.command import LOOKS, look_at_all
from turbod.check.finding import Finding, summary
from turbod.check.local_verdicts import (
    DataSeen,
    DiskSeen,
    LimitsSeen,
    idle,
    judge_data,
    judge_disk,
    judge_limits,
    judge_settings,
    most_memory,
)
from turbod.config import ArchiveSettings, LogSettings, S3Settings, ServerSettings, Settings

NOBODY = 65534
GIGABYTE = 10**9


async def found_in(folder: Path) -> Finding:
    [finding] = await data.look(Settings(data=str(folder)))
    return finding


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder of root's, while this process has nobody's rights."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    folder = Path(tempfile.mkdtemp(prefix="turbod-check-"))
    folder.chmod(0o755)
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield folder
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)
        shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB and 100 files."""
    place = tmp_path / "mount"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=1000", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


# ---- the data folder


async def test_a_data_folder_that_is_to_be_made_is_ok_and_is_not_made(tmp_path: Path) -> None:
    finding = await found_in(tmp_path / "a" / "b")
    assert finding.mark == "ok"
    assert "to be made" in finding.found
    assert everything(tmp_path) == []


async def test_nothing_is_left_in_a_data_folder(tmp_path: Path) -> None:
    with data_folder.held(tmp_path):
        pass
    before = everything(tmp_path)
    assert (await found_in(tmp_path)).mark == "ok"
    assert everything(tmp_path) == before


async def test_one_that_a_running_turbod_holds_is_ok_and_stays_held(tmp_path: Path) -> None:
    with data_folder.held(tmp_path):
        finding = await found_in(tmp_path)
        assert finding.mark == "ok"
        assert "in use by a running turbod" in finding.found
        with (tmp_path / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert "in use" not in (await found_in(tmp_path)).found


async def test_a_file_in_its_place_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert (await found_in(tmp_path / "data")).mark == "fault"
    assert (await found_in(tmp_path / "data" / "below")).mark == "fault"


async def test_one_of_a_newer_turbod_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / data_folder.FORMAT_FILE).write_text("99\n")
    finding = await found_in(tmp_path)
    assert finding.mark == "fault"
    assert "newer turbod" in finding.found


async def test_one_that_is_not_for_this_user_is_a_fault(nobodys: Path) -> None:
    finding = await found_in(nobodys)
    assert finding.mark == "fault"
    assert "ermission" in finding.found
    assert (await found_in(nobodys / "data")).mark == "fault"


async def test_what_root_left_in_it_by_mistake_is_a_fault_that_names_it(nobodys: Path) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        os.setresuid(0, 0, 0)
        (folder / "cache.sqlite").write_text("")
        (folder / "cache.sqlite").chmod(0o600)
        os.setresuid(NOBODY, NOBODY, 0)
        finding = await found_in(folder)
    finally:
        os.setresuid(0, 0, 0)
        shutil.rmtree(folder)
        os.setresuid(NOBODY, NOBODY, 0)
    assert nobodys
    assert finding.mark == "fault"
    assert "cache.sqlite" in finding.found


def seen(**fields: object) -> DataSeen:
    usual = {
        "path": "data",
        "exists": True,
        "is_held": False,
        "sync_seconds": 0.01,
        "reason": "",
        "owner": 1000,
        "user": 1000,
    }
    return DataSeen(**{**usual, **fields})  # type: ignore[arg-type]


def test_a_slow_disk_and_a_look_by_root_at_anothers_folder_are_warnings() -> None:
    assert [each.mark for each in judge_data(seen())] == ["ok"]
    assert [each.mark for each in judge_data(seen(sync_seconds=3.0))] == ["warning"]
    assert [each.mark for each in judge_data(seen(user=0))] == ["warning"]
    assert [each.mark for each in judge_data(seen(user=0, owner=0))] == ["ok"]


def test_a_trial_has_no_name_even_where_files_must_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trial.sync_seconds(tmp_path) < 60
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # as old kernels understand it
    assert trial.sync_seconds(tmp_path) < 60
    assert everything(tmp_path) == []


# ---- disks


async def test_a_full_disk_is_a_fault(small_disk: Path) -> None:
    place = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(place.f_bavail * place.f_frsize))
    assert (await found_in(small_disk)).mark == "fault"
    [finding] = await disk.look(Settings(data=str(small_disk)))
    assert finding.mark == "fault"
    assert "make room" in finding.todo


async def test_a_disk_without_room_for_files_is_a_fault(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turbod.check.local_verdicts.FULL_BYTES", 0)
    for number in range(950):
        (small_disk / str(number)).touch()
    [finding] = await disk.look(Settings(data=str(small_disk)))
    assert finding.mark == "fault"
    assert "inodes" in finding.found


async def test_the_disk_of_an_archive_elsewhere_is_told_by_itself(
    small_disk: Path, tmp_path: Path
) -> None:
    settings = Settings(
        data=str(tmp_path / "data"), archive=ArchiveSettings(location=str(small_disk))
    )
    here, there = await disk.look(settings)
    assert here.found.startswith(str(tmp_path / "data"))
    assert there.found.startswith(str(small_disk))
    assert there.mark == "fault"


async def test_what_is_there_already_counts_for_what_may_be_there(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), log=LogSettings(max_bytes=10_500_000))
    [empty] = disk._see(settings)
    (tmp_path / "sealed").mkdir()
    (tmp_path / "sealed" / "hour").write_bytes(bytes(4_000_000))
    [some] = disk._see(settings)
    assert empty.wanted - some.wanted == 4_000_000


def test_a_disk_with_less_room_than_the_settings_speak_of_is_a_warning() -> None:
    roomy = DiskSeen("data", 20 * GIGABYTE, 100 * GIGABYTE, None, 11 * GIGABYTE)
    tight = DiskSeen("data", 9 * GIGABYTE, 100 * GIGABYTE, 10**6, 11 * GIGABYTE)
    assert [each.mark for each in judge_disk(roomy)] == ["ok"]
    assert [each.mark for each in judge_disk(tight)] == ["warning"]


# ---- limits


async def test_this_machine_has_limits() -> None:
    assert {each.check for each in await limits.look(Settings())} == {"files", "memory"}


@pytest.mark.parametrize(
    ("descriptors", "memory", "marks"),
    [
        (100_000, 8 * GIGABYTE, ["ok", "ok"]),
        (1024, 8 * GIGABYTE, ["warning", "ok"]),
        (100_000, 10**8, ["ok", "warning"]),
        (100_000, None, ["ok", "ok"]),
    ],
)
def test_fewer_files_or_less_memory_than_the_settings_promise_are_warnings(
    descriptors: int, memory: int | None, marks: list[str]
) -> None:
    findings = judge_limits(LimitsSeen(descriptors, memory), Settings())
    assert [each.mark for each in findings] == marks


def test_the_most_memory_follows_the_settings() -> None:
    few = Settings(server=ServerSettings(max_connections=1))
    assert most_memory(Settings()) - most_memory(few) == 1999 * 30 * 1024


# ---- the port


async def at(listen: str, folder: Path) -> Finding:
    [finding] = await port.look(Settings(listen=listen, data=str(folder)))
    return finding


async def test_a_free_port_is_ok_and_not_listened_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever begins to listen in that very moment must not be refused."""

    def listen(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket.socket, "listen", listen)
    where = f"127.0.0.1:{free_port()}"
    assert (await at(where, tmp_path)).mark == "ok"
    assert (await at(where, tmp_path)).mark == "ok"
    assert (await at("127.0.0.1:0", tmp_path)).mark == "ok"


async def test_a_port_of_another_program_is_a_fault(tmp_path: Path) -> None:
    async with scripted_s3(lambda _: answer("200 OK", b"hello")) as server:
        finding = await at(server.endpoint.removeprefix("http://"), tmp_path)
        assert finding.mark == "fault"
        assert "another program" in finding.found


@pytest.mark.parametrize("said", [b'{"turbod":"0.1.0"}', b'{"error":"AuthRequired"}'])
async def test_a_port_of_a_turbod_is_ok_where_one_has_this_data(
    said: bytes, tmp_path: Path
) -> None:
    async with scripted_s3(lambda _: answer("200 OK", said)) as server:
        where = server.endpoint.removeprefix("http://")
        assert (await at(where, tmp_path)).mark == "fault"
        with data_folder.held(tmp_path):
            assert (await at(where, tmp_path)).mark == "ok"


async def test_a_free_port_while_a_turbod_has_this_data_is_a_warning(tmp_path: Path) -> None:
    with data_folder.held(tmp_path):
        assert (await at(f"127.0.0.1:{free_port()}", tmp_path)).mark == "warning"


@pytest.mark.parametrize(
    ("service", "mark"), [("turbod.service", "ok"), ("other.service", "fault")]
)
async def test_a_port_that_systemd_holds_is_not_connected_to(
    service: str, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection would start the service."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        systemctl = tmp_path / "systemctl"
        systemctl.write_text(f"#!/bin/sh\necho '127.0.0.1:{number} held.socket {service}'\n")
        systemctl.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        finding = await at(f"127.0.0.1:{number}", tmp_path)
        assert finding.mark == mark
        assert "held.socket" in finding.line()
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_systemd_s_list_of_sockets_is_read() -> None:
    text = (
        "/run/systemd/journal/socket systemd-journald.socket systemd-journald.service\n"
        "127.0.0.1:8080              turbod.socket           turbod.service\n"
        "[::]:22                     ssh.socket              ssh.service\n\n"
    )
    assert port.read_units(text, 8080) == ("turbod.socket", "turbod.service")
    assert port.read_units(text, 22) == ("ssh.socket", "ssh.service")
    assert port.read_units(text, 80) == ("", "")


@pytest.mark.parametrize("listen", ["192.0.2.1:8080", "turbod.invalid:8080"])
async def test_an_address_that_is_not_this_machine_s_is_a_fault(
    listen: str, tmp_path: Path
) -> None:
    finding = await at(listen, tmp_path)
    assert finding.mark == "fault"
    assert "--listen" in finding.todo


# ---- files


async def test_an_exclusion_list_is_read_and_what_is_no_did_named(tmp_path: Path) -> None:
    file = tmp_path / "excluded"
    assert await files.look_at_exclusions(Settings()) == []
    file.write_text("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa # spam\n\n")
    [fine] = await files.look_at_exclusions(Settings(exclude=str(file)))
    file.write_text("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\nalice.example.com\n")
    [odd] = await files.look_at_exclusions(Settings(exclude=str(file)))
    file.unlink()
    [gone] = await files.look_at_exclusions(Settings(exclude=str(file)))
    assert [each.mark for each in (fine, odd, gone)] == ["ok", "warning", "fault"]
    assert "line 2" in odd.todo


async def test_who_may_connect_is_told_and_no_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = "ab" * 32
    file = tmp_path / "tokens"
    file.write_text(f'[alice]\nsha256 = "{digest}"\n')
    named = Settings(server=ServerSettings(tokens=str(file)))
    [some] = await files.look_at_tokens(named)
    file.write_text(f'[alice]\nsha256 = "{digest}"\nage = 9\n')
    [odd] = await files.look_at_tokens(named)
    file.unlink()
    [gone] = await files.look_at_tokens(named)
    [everybody] = await files.look_at_tokens(Settings())
    assert [each.mark for each in (some, odd, gone, everybody)] == ["ok", "fault", "fault", "ok"]
    assert digest not in f"{some.line()}{odd.line()}"
    assert "whoever" in everybody.found
    file.write_text(f'[alice]\nsha256 = "{digest}"\n')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    [passed] = await files.look_at_tokens(Settings())
    assert str(file) in passed.found


async def test_files_of_credentials_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Settings(archive=ArchiveSettings(location="s3://turbod-test/a"))
    monkeypatch.delenv("AWS_CONFIG_FILE", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "s3"))
    [missing] = await files.look_at_credentials(bucket)
    assert missing.mark == "warning"
    assert await files.look_at_credentials(Settings()) == []
    (tmp_path / "s3").write_text("[default]\naws_secret_access_key = hidden\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    [passed] = await files.look_at_credentials(bucket)
    assert passed.mark == "ok"
    assert "s3" in passed.found
    assert "hidden" not in passed.line()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "gone"))
    assert (await files.look_at_credentials(bucket))[0].mark == "fault"


# ---- settings, and how it is told


def test_settings_without_effect_are_warnings() -> None:
    assert not idle(Settings())
    idle_ones = Settings(
        s3=S3Settings(endpoint="https://s3.example.org", kms_key="a"),
        upstream=("ws://a/subscribe", "ws://a/subscribe"),
        server=ServerSettings(forwarded_header="Forwarded"),
    )
    assert len(idle(idle_ones)) == 4
    folder = Settings(archive=ArchiveSettings(location="s3://bucket/a", max_bytes=1))
    assert [each.mark for each in judge_settings(folder, "a.toml")] == ["ok", "warning"]


def test_what_others_say_cannot_break_a_line() -> None:
    line = Finding("appview", "fault", "a\nok      archive\x1b[2J", "b").shown().line()
    assert "\n" not in line
    assert "\x1b" not in line


def test_no_secret_is_told() -> None:
    words = "https://alice:hidden@s3.example.org/a?X-Amz-Signature=hidden said no"
    assert "hidden" not in Finding("archive", "fault", words, words).shown().line()


def test_the_last_line_counts() -> None:
    marks = [Finding("a", "ok", ""), Finding("b", "warning", ""), Finding("c", "fault", "")]
    assert summary(marks) == "turbod serve would not work: 1 fault, 1 warning"
    assert summary(marks[:2]) == "turbod serve would work: 0 faults, 1 warning"


async def test_the_whole_check_goes_on_where_nothing_may_be_seen(nobodys: Path) -> None:
    """As where an ordinary user looks at the data of an installed turbod."""
    os.setresuid(0, 0, 0)
    (nobodys / "data" / "live").mkdir(parents=True)
    (nobodys / "data").chmod(0o700)
    os.setresuid(NOBODY, NOBODY, 0)
    settings = Settings(data=str(nobodys / "data"), listen="127.0.0.1:0")
    told: list[Finding] = []
    looks = [each for each in LOOKS if each.name in {"data", "disk", "port", "archive"}]
    await look_at_all(settings, told.append, looks)
    assert [each.mark for each in told if each.check != "port"] == ["fault"] * 3
