"""`turbod archive get --format parquet`: the records as documented, bounded in memory."""

import json
import resource
import sys
from functools import partial
from pathlib import Path

import duckdb
import msgspec
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from tests.archive.commands import Commands, files_below, start
from tests.archive.sealed import DIDS, make_archive
from turbod import __version__
from turbod.archive.bulk import parquet

COLUMNS = {
    "cursor": "int64",
    "at_uri": "string",
    "did": "string",
    "time_us": "int64",
    "message": "string",
    "hydrated_metadata": "string",
}


@pytest.fixture
def turbod(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The command, in this process."""
    return Commands(capfdbinary, monkeypatch)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """Three hours with a quiet one among them, and the lines of all."""
    folder = tmp_path_factory.mktemp("archive")
    return folder, make_archive(folder, [0, 1, 3], count=60)


def rows_of(path: Path) -> list[dict[str, object]]:
    """Return a file's rows, as the records that they were."""
    rows: list[dict[str, object]] = pq.read_table(path, partitioning=None).to_pylist()
    for row in rows:
        for name in ("message", "hydrated_metadata"):
            row[name] = json.loads(str(row[name]))
    return rows


def test_one_file_has_every_record_in_order_in_the_documented_columns(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, every = archive
    file = tmp_path / "all.parquet"
    ran = turbod("get", folder, "--format", "parquet", "--output", file)
    assert ran.code == 0
    assert files_below(tmp_path) == ["all.parquet"]
    found = pq.read_schema(file)
    assert {field.name: str(field.type) for field in found} == COLUMNS
    assert list(COLUMNS) == found.names
    assert not any(field.nullable for field in found)
    assert rows_of(file) == [json.loads(line) for line in every]
    metadata = pq.read_metadata(file)
    assert metadata.metadata[b"turbod"] == __version__.encode()
    assert metadata.metadata[b"instance"] == b"here"
    assert metadata.row_group(0).column(4).compression == "ZSTD"


def test_json_columns_are_the_very_bytes_of_the_record(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "all.parquet"
    turbod("get", archive[0], "--format", "parquet", "--output", file)
    messages = pq.read_table(file).column("message").to_pylist()
    for line, message in zip(archive[1], messages, strict=True):
        assert f'"message":{message},"hydrated_metadata":'.encode() in line


def test_row_groups_are_bounded(
    turbod: Commands,
    archive: tuple[Path, list[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 20_000)
    file = tmp_path / "all.parquet"
    turbod("get", archive[0], "--format", "parquet", "--output", file)
    metadata = pq.read_metadata(file)
    assert metadata.num_row_groups > 3
    assert metadata.num_rows == len(archive[1])
    assert rows_of(file) == [json.loads(line) for line in archive[1]]


def test_a_file_an_hour_reads_as_hive_partitions(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    ran = turbod("get", archive[0], "--format=parquet", "--output", tmp_path, "--by-hour")
    assert ran.code == 0
    assert len(files_below(tmp_path)) == 3
    with duckdb.connect() as database:
        found = database.execute(
            f"""select dt, hour, count(*), count(distinct did), min(message->>'$.kind')
        from read_parquet('{tmp_path}/dt=*/hour=*/*.parquet', hive_partitioning=true)
        group by all order by all"""
        ).fetchall()
    assert [(str(day), int(hour), count) for day, hour, count, *_ in found] == [
        ("2026-11-20", 10, 60),
        ("2026-11-20", 11, 60),
        ("2026-11-20", 13, 60),
    ]


def test_what_the_filter_leaves_nothing_of_is_a_file_without_rows(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "none.parquet"
    nobody = DIDS[0].replace("a", "z")
    assert (
        turbod("get", archive[0], "--format=parquet", "--output", file, "--dids", nobody).code == 0
    )
    assert rows_of(file) == []
    assert pq.read_schema(file).names == list(COLUMNS)


def test_a_file_that_is_there_is_left_alone(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "all.parquet"
    file.write_text("mine")
    ran = turbod("get", archive[0], "--format", "parquet", "--output", file)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert file.read_text() == "mine"


def test_a_record_of_another_shape_is_one_line_and_leaves_no_file(
    turbod: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_archive(tmp_path / "archive", [0], count=30)
    monkeypatch.setattr(parquet, "_decode_rows", lambda _: msgspec.json.decode(b"{"))
    target = tmp_path / "out"
    target.mkdir()
    arguments = ("get", tmp_path / "archive", "--format=parquet", "--output")
    for rest in ([target / "x.parquet"], [target, "--by-hour"]):
        ran = turbod(*arguments, *rest)
        assert (ran.code, len(ran.errors)) == (1, 1)
        assert files_below(target) == []


@pytest.mark.parametrize("rest", [["x.parquet"], ["hours", "--by-hour"]])
def test_a_full_disk_is_one_line_and_no_half_file_fills_it(
    archive: tuple[Path, list[bytes]], tmp_path: Path, rest: list[str]
) -> None:
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4096, 4096))
    rest = [str(tmp_path / rest[0]), *rest[1:]]
    process = start("get", archive[0], "--format=parquet", "--output", *rest, preexec_fn=limit)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.decode().splitlines() == [f"turbod: {rest[0]}: File too large"]
    assert files_below(tmp_path) == []


def test_where_there_is_no_archive_no_file_is_made(turbod: Commands, tmp_path: Path) -> None:
    """It would be in the way of the same command with the right archive."""
    source = tmp_path / "wrong"
    source.mkdir()
    ran = turbod("get", source, "--format", "parquet", "--output", tmp_path / "x.parquet")
    assert (ran.code, len(ran.errors)) == (1, 1)
    assert files_below(tmp_path) == []


def test_without_pyarrow_it_says_what_to_install(
    turbod: Commands,
    archive: tuple[Path, list[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "turbod.archive.bulk.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = turbod("get", archive[0], "--format", "parquet", "--output", tmp_path / "x.parquet")
    assert (ran.code, ran.errors) == (
        2,
        ["turbod: --format parquet needs pyarrow: pip install turbod[parquet]"],
    )
    assert files_below(tmp_path) == []
