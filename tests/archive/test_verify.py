"""`turbod archive verify` and `ls`: what is wrong is named, what is right is not."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio

from tests.archive.commands import Commands, start
from tests.archive.s3_servers import S3Server
from tests.archive.sealed import HOUR, T0, add_hour, hour_of_lines, make_archive
from turbod.archive.bulk.parts import Asked
from turbod.archive.bulk.verification import Verification
from turbod.archive.format.hour_object import SEEK_TABLE_MAGIC, ending
from turbod.archive.format.loading import load_index
from turbod.archive.format.names import parse_file
from turbod.archive.stores.folder import FolderStore
from turbod.eventlog.chunk import Gap


@pytest.fixture
def turbod(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The command, in this process."""
    return Commands(capfdbinary, monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three hours with a quiet one among them, of 60 records each."""
    make_archive(tmp_path, [0, 1, 3], count=60)
    return tmp_path


def cursor(line: bytes) -> int:
    return int(json.loads(line)["cursor"])


def object_of(archive: Path, hour: int) -> Path:
    """Return the object of an hour of the day."""
    return next(archive.glob(f"dt=*/hour={hour}/*.zst"))


def findings(turbod: Commands, archive: Path, *arguments: str) -> list[str]:
    """Verify; return what was found, having looked at exit code and summary."""
    ran = turbod("verify", archive, *arguments)
    *found, summary = ran.output.decode().splitlines()
    assert ran.errors == []
    assert ran.code == (1 if found else 0)
    assert summary.endswith(f"{len(found)} findings" if found else "all is whole")
    return found


# Verify -------------------------------------------------------------------------------------


def test_a_whole_archive_with_a_quiet_hour_has_no_findings(turbod: Commands, archive: Path) -> None:
    assert findings(turbod, archive) == []
    summary = turbod("verify", archive).output
    assert summary == b"3 objects, 180 records: all is whole\n"


def test_a_gap_of_the_upstream_is_no_finding(turbod: Commands, tmp_path: Path) -> None:
    lines = hour_of_lines(0, 30)
    add_hour(tmp_path, lines, previous=0, gaps=[Gap(cursor(lines[9]), cursor(lines[10]), "gone")])
    (tmp_path / "turbod.json").write_text('{"format":1,"instance":"here"}')
    ran = turbod("verify", tmp_path)
    assert (ran.code, ran.output) == (
        0,
        b"1 objects, 30 records, 1 gaps of the upstream: all is whole\n",
    )


def in_the_frames(data: bytes) -> int:
    return data.index(b"\x5d\x2a\x4d\x18") // 2


def in_the_magic_of_the_index(data: bytes) -> int:
    return data.index(b"\x5d\x2a\x4d\x18")


def in_a_count_of_the_index(data: bytes) -> int:
    return data.index(b'"records":') + len(b'"records":')


def in_the_sum_of_the_index(data: bytes) -> int:
    return data.index(b'"sha256":"') + 20


def in_the_cursor_before(data: bytes) -> int:
    return data.index(b'"previous":') + 20


def in_the_seek_table(data: bytes) -> int:
    return data.index(SEEK_TABLE_MAGIC.to_bytes(4, "little")) + 9


def in_the_last_byte(data: bytes) -> int:
    return len(data) - 1


@pytest.mark.parametrize(
    "place",
    [
        in_the_frames,
        in_the_magic_of_the_index,
        in_a_count_of_the_index,
        in_the_sum_of_the_index,
        in_the_cursor_before,
        in_the_seek_table,
        in_the_last_byte,
    ],
)
def test_a_flipped_bit_is_found(
    turbod: Commands, archive: Path, place: Callable[[bytes], int]
) -> None:
    path = object_of(archive, 11)
    data = bytearray(path.read_bytes())
    data[place(bytes(data))] ^= 1
    path.write_bytes(data)
    found = findings(turbod, archive)
    assert len(found) == 1
    assert found[0].startswith(f"dt=2026-11-20/hour=11/{path.name}: ")


async def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    make_archive(tmp_path, [0, 1], count=20)
    path = object_of(tmp_path, 11)
    data = path.read_bytes()
    for place in {*range(0, len(data), 11), *range(40), *range(len(data) - 200, len(data))}:
        flipped = data[place] ^ 1 << place % 8
        path.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
        found: list[str] = []
        verification = Verification(
            FolderStore(tmp_path), Asked(), found=found.append, report=lambda _: None
        )
        await verification.run(parallel=2)
        assert len(found) == 1, place
        assert path.name in found[0]


@pytest.mark.parametrize(
    "lie",
    [
        {"sha256": "0" * 64},
        {"collections": {"app.bsky.feed.post": 60}},
        {"gaps": [Gap(T0 + HOUR, T0 + HOUR + 7, "before no record")]},
        {"previous": T0 + 1},
        {"instance": "elsewhere"},
    ],
)
async def test_an_index_that_is_whole_and_untrue_is_found(
    turbod: Commands, archive: Path, lie: dict[str, object]
) -> None:
    path = object_of(archive, 11)
    name = parse_file(path.name)
    assert name is not None
    index = await load_index(
        FolderStore(archive), str(path.relative_to(archive)), path.stat().st_size, name
    )
    frames = path.read_bytes()[: index.frames[-1].end]
    path.write_bytes(frames + ending(msgspec.structs.replace(index, **lie)))
    found = await trio.to_thread.run_sync(findings, turbod, archive)
    assert len(found) == 1
    assert "hour=11" in found[0]


@pytest.mark.parametrize("left", [0, 1, 30, 0.5, 0.9, -1])
def test_a_truncated_object_is_found(turbod: Commands, archive: Path, left: float) -> None:
    path = object_of(archive, 11)
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if 0 < left < 1 else int(left)])
    found = findings(turbod, archive)
    assert len(found) == 1
    assert "hour=11" in found[0]
    assert "damaged" in found[0]


def test_a_missing_hour_is_found_and_named(turbod: Commands, archive: Path) -> None:
    object_of(archive, 11).unlink()
    found = findings(turbod, archive)
    assert len(found) == 1
    assert "hour=13" in found[0]
    assert "2026-11-20T11" in found[0]
    # Also where only hours before it were asked for.
    assert findings(turbod, archive, "--until", "2026-11-20T11:30:00Z") == found
    assert findings(turbod, archive, "--until", "2026-11-20T10:30:00Z") == []


def test_hours_dropped_from_the_beginning_are_no_finding_but_said(
    turbod: Commands, archive: Path
) -> None:
    object_of(archive, 10).unlink()
    assert findings(turbod, archive) == []
    assert b"nothing up to 2026-11-20T10 any more" in turbod("verify", archive).output


def test_foreign_files_are_found_and_named(turbod: Commands, archive: Path) -> None:
    path = object_of(archive, 11)
    (archive / "README").write_text("mine")
    (path.parent / "backup.jsonl.zst").write_bytes(path.read_bytes())
    (path.parent.parent / "hour=12").mkdir()
    (path.parent.parent / "hour=12" / path.name).write_bytes(path.read_bytes())
    found = findings(turbod, archive)
    assert [line.partition(":")[0] for line in found] == [
        "README",
        "dt=2026-11-20/hour=11/backup.jsonl.zst",
        f"dt=2026-11-20/hour=12/{path.name}",
    ]


def test_an_object_under_the_name_of_another_is_found(turbod: Commands, archive: Path) -> None:
    path = object_of(archive, 11)
    first, rest = path.name.split("-")
    path.rename(path.with_name(f"{int(first) + 1}-{rest}"))
    assert len(findings(turbod, archive)) == 1


def test_two_objects_of_one_hour_are_found(turbod: Commands, archive: Path) -> None:
    name = add_hour(archive, hour_of_lines(1, 60)[:20], previous=T0)
    found = findings(turbod, archive)
    assert len(found) == 1
    assert found[0].startswith(f"{name.key}: its hour has ")


def test_a_second_writer_is_found(turbod: Commands, archive: Path) -> None:
    last = cursor(hour_of_lines(3, 60)[-1])
    name = add_hour(archive, hour_of_lines(4, 20), previous=last, instance="elsewhere")
    found = findings(turbod, archive)
    assert found == [f"{name.key}: written by 'elsewhere', not by 'here'"]
    name = add_hour(archive, hour_of_lines(5, 20), previous=last, instance="here")
    assert f"{name.key}: its writer knew nothing behind {last}" in findings(turbod, archive)


@pytest.mark.parametrize("text", [None, "", "{}", "not JSON", '{"format":99,"instance":"here"}'])
def test_a_missing_or_damaged_identity_is_found(
    turbod: Commands, archive: Path, text: str | None
) -> None:
    if text is None:
        (archive / "turbod.json").unlink()
    else:
        (archive / "turbod.json").write_text(text)
    found = findings(turbod, archive)
    assert len(found) == 1
    assert "turbod.json" in found[0]


def test_only_what_was_asked_for_is_verified(turbod: Commands, archive: Path) -> None:
    object_of(archive, 10).write_bytes(b"x")
    assert len(findings(turbod, archive)) == 1
    assert findings(turbod, archive, "--from", "2026-11-20T11:00:00Z") == []


def test_all_findings_are_told_and_each_object_by_itself(turbod: Commands, archive: Path) -> None:
    for path in archive.glob("dt=*/hour=*/*.zst"):
        data = bytearray(path.read_bytes())
        data[40] ^= 16
        path.write_bytes(data)
    assert len(findings(turbod, archive, "--parallel", "1")) == 3


def test_a_foreign_name_stays_on_one_line_and_leaves_the_terminal_alone(
    turbod: Commands, archive: Path
) -> None:
    (archive / "two\nlines \x1b[31m").write_text("mine")
    assert findings(turbod, archive) == ["two?lines ?[31m: none of the archive's files"]


@pytest.mark.parametrize("command", [["ls"], ["ls", "--json"], ["verify"]])
def test_output_that_cannot_be_written_is_one_line(archive: Path, command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start(*command, archive, stdout=full)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors == b"turbod: standard output: No space left on device\n"


@pytest.mark.parametrize(("action", "code"), [("ls", 0), ("verify", 1)])
def test_output_that_nobody_reads_ends_it_without_a_word(
    archive: Path, action: str, code: int
) -> None:
    """What was not seen to be whole is not called whole."""
    ours, theirs = os.pipe()
    os.close(ours)
    process = start(action, archive, stdout=theirs)
    os.close(theirs)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (code, b"")


# ls -----------------------------------------------------------------------------------------


def test_ls_has_a_row_an_hour_and_totals(turbod: Commands, archive: Path) -> None:
    ran = turbod("ls", archive)
    assert (ran.code, ran.errors) == (0, [])
    head, *rows, total = ran.output.decode().splitlines()
    assert head.split() == ["hour", "records", "MB", "raw", "MB", "ratio", "gaps"]
    assert [row.split()[:2] for row in rows] == [
        ["2026-11-20T10", "60"],
        ["2026-11-20T11", "60"],
        ["2026-11-20T13", "60"],
    ]
    assert total.split()[:3] == ["3", "hours", "180"]
    assert total.endswith("0 holes")


def test_ls_names_holes_and_damaged_objects_and_what_was_asked_for_alone(
    turbod: Commands, tmp_path: Path
) -> None:
    make_archive(tmp_path, [0, 1, 2, 3], count=30)
    object_of(tmp_path, 11).unlink()
    object_of(tmp_path, 13).write_bytes(b"x")
    ran = turbod("ls", tmp_path)
    _, first, second, third, total = ran.output.decode().splitlines()
    assert ran.code == 0
    assert not first.endswith("it")
    assert second.endswith("a hole before it")
    assert third.endswith("damaged: too short for an object")
    assert total.endswith("1 holes")
    ran = turbod("ls", tmp_path, "--from=2026-11-20T12:00:00Z", "--until=2026-11-20T13:00:00Z")
    assert ran.output.decode().splitlines()[1:-1] == [second]


def test_ls_as_json_says_of_each_hour_what_its_index_says(turbod: Commands, archive: Path) -> None:
    ran = turbod("ls", "--json", archive)
    hours = [json.loads(line) for line in ran.output.splitlines()]
    lines = hour_of_lines(1, 60)
    assert hours[1] | {"collections": 0, "sha256": "", "size": 0} == {
        "name": f"dt=2026-11-20/hour=11/{cursor(lines[0])}-{cursor(lines[-1])}.jsonl.zst",
        "hour": "2026-11-20T11",
        "first": cursor(lines[0]),
        "last": cursor(lines[-1]),
        "previous": hours[0]["last"],
        "records": 60,
        "rawBytes": sum(map(len, lines)),
        "size": 0,
        "sha256": "",
        "collections": 0,
        "gaps": [],
        "url": str(object_of(archive, 11)),
    }


# From a bucket ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rclone", "moto"])
def test_a_bucket_is_listed_fetched_and_verified_as_the_folder_is(
    turbod: Commands, archive: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    bucket, client = server.bucket(), server.client()
    for path in archive.rglob("*"):
        if path.is_file():
            key = f"some/prefix/{path.relative_to(archive)}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    where = (f"s3://{bucket}/some/prefix", "--s3-endpoint", server.endpoint)
    assert turbod("ls", *where) == turbod("ls", archive)
    assert turbod("get", *where) == turbod("get", archive)
    assert turbod("verify", *where) == turbod("verify", archive)
    key = f"some/prefix/{object_of(archive, 11).relative_to(archive)}"
    client.put_object(Bucket=bucket, Key=key, Body=object_of(archive, 11).read_bytes()[:-9])
    assert turbod("verify", *where).code == 1
    assert turbod("get", *where).code == 3
    client.delete_object(Bucket=bucket, Key=key)
    assert turbod("verify", *where).code == 1


def test_a_bucket_that_is_not_there_is_one_line(turbod: Commands, rclone: S3Server) -> None:
    ran = turbod("ls", "s3://no-such-bucket/x", "--s3-endpoint", rclone.endpoint)
    assert (ran.code, len(ran.errors)) == (1, 1)
    assert "no-such-bucket" in ran.errors[0]
