"""`turbod archive get`: what it writes is what a plain scan selects, however it is interrupted."""

import fcntl
import json
import os
import random
import signal
import subprocess
import termios
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from tests.archive.commands import Commands, files_below, start
from tests.archive.sealed import (
    COLLECTIONS,
    DIDS,
    HOUR,
    T0,
    add_hour,
    hour_of_lines,
    make_archive,
)
from turbod.archive.bulk import getting
from turbod.archive.format.names import Name
from turbod.eventlog.chunk import Gap
from turbod.filter import Filter
from turbod.record import head_of_line


@pytest.fixture
def turbod(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The command, in this process."""
    return Commands(capfdbinary, monkeypatch)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """Three hours with a quiet one among them, and the lines of all."""
    folder = tmp_path_factory.mktemp("archive")
    return folder, make_archive(folder, [0, 1, 3], count=60)


def cursor(line: bytes) -> int:
    return int(json.loads(line)["cursor"])


def selected(lines: Sequence[bytes], chosen: Filter) -> bytes:
    return b"".join(line for line in lines if chosen.matches(head_of_line(line), len(line) - 1))


# Standard output ----------------------------------------------------------------------------


def test_all_records_go_to_standard_output_in_order(
    turbod: Commands, archive: tuple[Path, list[bytes]]
) -> None:
    ran = turbod("get", archive[0])
    assert (ran.code, ran.output, ran.errors) == (0, b"".join(archive[1]), [])


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--collections", COLLECTIONS[0]], Filter(collections=frozenset({COLLECTIONS[0]}))),
        (
            ["--collections", COLLECTIONS[0], "app.bsky.graph.*", "--kinds", "commit"],
            Filter(
                collections=frozenset({COLLECTIONS[0]}),
                prefixes=("app.bsky.graph.",),
                kinds=frozenset({"commit"}),
            ),
        ),
        (["--dids", DIDS[1], "--dids", DIDS[2]], Filter(dids=frozenset(DIDS[1:3]))),
        (
            ["--dids", DIDS[1], "--about-dids", DIDS[2]],
            Filter(dids=frozenset(DIDS[1:2]), about=frozenset(DIDS[2:3])),
        ),
        (["--kinds", "identity", "account"], Filter(kinds=frozenset({"identity", "account"}))),
        (["--operations", "delete"], Filter(operations=frozenset({"delete"}))),
    ],
)
def test_filters_are_those_of_the_protocol(
    turbod: Commands, archive: tuple[Path, list[bytes]], arguments: list[str], chosen: Filter
) -> None:
    ran = turbod("get", archive[0], *arguments)
    assert (ran.code, ran.output) == (0, selected(archive[1], chosen))


def test_dids_may_stand_in_a_file(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "dids"
    file.write_text(f"# friends\n{DIDS[1]}\n\n {DIDS[2]}  # and her\n")
    ran = turbod("get", archive[0], "--dids-file", file, "--dids", DIDS[3])
    assert ran.output == selected(archive[1], Filter(dids=frozenset(DIDS[1:4])))


def test_ranges_that_meet_have_each_record_once(
    turbod: Commands, archive: tuple[Path, list[bytes]]
) -> None:
    folder, every = archive
    middle = cursor(every[70])
    times = ["2026-11-20T10:30:00Z", "2026-11-20T11:00:00Z", str(middle), "2026-11-20T13:00:00.5Z"]
    outputs = [
        turbod("get", folder, "--until", times[0]).output,
        *(
            turbod("get", folder, f"--from={begin}", f"--until={end}").output
            for begin, end in pairwise(times)
        ),
        turbod("get", folder, "--from", times[-1]).output,
    ]
    assert all(outputs)
    assert b"".join(outputs) == b"".join(every)
    assert outputs[1].startswith(every[30])  # at 10:30 sharp, which is in the latter range


def test_a_time_before_now_may_stand_behind_a_space(
    turbod: Commands, archive: tuple[Path, list[bytes]]
) -> None:
    ran = turbod("get", archive[0], "--from", "-2h", "--until", "-30m")
    assert ran.output == b"".join(
        line for line in archive[1] if T0 + 2 * HOUR < cursor(line) <= T0 + 3.5 * HOUR
    )


def test_a_reader_that_has_enough_ends_it_without_a_word(
    archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    make_archive(tmp_path, [0, 1], count=3000)
    process = start("get", tmp_path)
    assert process.stdout is not None
    assert process.stdout.read(100) == archive[1][0][:100]
    process.stdout.close()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")


def test_standard_output_that_cannot_be_written_is_one_line(
    archive: tuple[Path, list[bytes]],
) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start("get", archive[0], stdout=full)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors == b"turbod: standard output: No space left on device\n"


def test_ctrl_c_ends_it_also_where_nobody_reads(tmp_path: Path) -> None:
    make_archive(tmp_path, [0, 1], count=3000)
    with start("get", tmp_path) as process:
        wait_until_it_waits(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def wait_until_it_waits(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has filled the pipe that nobody reads."""
    assert process.stdout is not None
    before, waiting = 0, array("i", [0])
    while not waiting[0] or waiting[0] != before:
        before = waiting[0]
        time.sleep(0.2)
        fcntl.ioctl(process.stdout, termios.FIONREAD, waiting)


# One file -----------------------------------------------------------------------------------


def test_a_file_is_gone_on_with_after_its_last_whole_line(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, every = archive
    whole = b"".join(every)
    file = tmp_path / "out.jsonl"
    line_ends = [len(b"".join(every[:count])) for count in (0, 1, 30, 60, 61, 180)]
    for size in (*line_ends, 1, 9, 40, line_ends[2] + 5, len(whole) - 1):
        file.write_bytes(whole[:size])
        ran = turbod("get", folder, "--output", file)
        assert ran.code == 0
        assert file.read_bytes() == whole, size


def test_a_torn_page_at_the_end_of_a_file_is_cut_off(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, every = archive
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"".join(every[:50]) + b"\0" * 4096 + b"\n" + b"\0" * 10)
    assert turbod("get", folder, "--output", file).code == 0
    assert file.read_bytes() == b"".join(every)


def test_a_file_that_is_complete_stays_as_it_is(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "out.jsonl"
    arguments = ("get", archive[0], "--until", "2026-11-20T11:00:00Z", "--output", file)
    for _ in range(2):
        ran = turbod(*arguments)
        assert ran.code == 0
        assert file.read_bytes() == b"".join(archive[1][:60])


def test_a_file_of_something_else_is_left_alone(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "thesis.txt"
    for text in ("my thesis\n", "{}\n", '{"cursor":1}\n', "x" * 9_000_000):
        file.write_text(text)
        ran = turbod("get", archive[0], "--output", file)
        assert ran.code == 1
        assert ran.errors == [
            f"turbod: {file}: there already, and not of records; name another file"
        ]
        assert file.read_text() == text


def test_a_pipe_or_device_is_no_file_to_go_on_with(
    turbod: Commands, archive: tuple[Path, list[bytes]]
) -> None:
    for device in ("/dev/null", "/dev/full"):
        ran = turbod("get", archive[0], "--output", device)
        assert (ran.code, ran.errors) == (
            1,
            [f"turbod: {device}: no plain file; without --output all goes to standard output"],
        )


def test_two_at_once_on_one_file_are_refused(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "out.jsonl"
    with file.open("wb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        ran = turbod("get", archive[0], "--output", file)
    assert (ran.code, ran.errors) == (1, [f"turbod: {file}: another process writes it"])


def test_a_full_disk_is_one_line_and_the_file_can_be_gone_on_with(
    turbod: Commands,
    archive: tuple[Path, list[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "out.jsonl"
    real, room = os.write, [20_000]

    def write(descriptor: int, data: bytes) -> int:
        if os.fstat(descriptor).st_ino != file.stat().st_ino:
            return real(descriptor, data)
        if not room[0]:
            raise OSError(28, "No space left on device")
        taken = min(len(data), room[0])
        room[0] -= taken
        return real(descriptor, bytes(data[:taken]))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        ran = turbod("get", archive[0], "--output", file)
    assert (ran.code, ran.errors) == (1, [f"turbod: {file}: No space left on device"])
    assert file.stat().st_size == 20_000
    assert turbod("get", archive[0], "--output", file).code == 0
    assert file.read_bytes() == b"".join(archive[1])


def test_killed_and_interrupted_the_file_is_the_same_in_the_end(
    large: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, every = large
    file = tmp_path / "out.jsonl"
    interrupt(
        lambda: start("get", folder, "--output", file, stdout=subprocess.DEVNULL),
        written=lambda: file.stat().st_size if file.exists() else 0,
        size=sum(map(len, every)),
    )
    assert file.read_bytes() == b"".join(every)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """An archive that takes some time to fetch, and its lines."""
    archive = tmp_path_factory.mktemp("large")
    every: list[bytes] = []
    for hour in range(4):
        lines = hour_of_lines(hour, 300, padding=20_000)
        previous = cursor(every[-1]) if every else 0
        add_hour(archive, lines, previous=previous, frame_bytes=300_000)
        every += lines
    return archive, every


def interrupt(
    begin: Callable[[], subprocess.Popen[bytes]], *, written: Callable[[], int], size: int
) -> None:
    """End a command while it writes, first by kill -9, then by Ctrl-C; then let it do it all."""
    chance = random.Random(7)
    for number, part in ((signal.SIGKILL, 0.01), (signal.SIGINT, 0.4)):
        goal = int(size * (part + chance.random() / 5))
        with begin() as process:
            while process.poll() is None and written() < goal:
                time.sleep(0.0005)
            process.send_signal(number)
            code = process.wait(timeout=20)
            assert code == (-number if number == signal.SIGKILL else 130)
    with begin() as process:
        assert process.wait(timeout=30) == 0


# A file an hour -----------------------------------------------------------------------------


def path_of(lines: Sequence[bytes], ending: str = "jsonl") -> str:
    name = Name(cursor(lines[0]), cursor(lines[-1]))
    return f"{name.key.removesuffix('jsonl.zst')}{ending}"


def test_by_hour_each_hour_has_a_file_of_its_objects_name(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, every = archive
    hours = [every[:60], every[60:120], every[120:]]
    assert turbod("get", folder, "--output", tmp_path, "--by-hour").code == 0
    assert files_below(tmp_path) == [path_of(hour) for hour in hours]
    assert [(tmp_path / path_of(hour)).read_bytes() for hour in hours] == list(map(b"".join, hours))


def test_by_hour_takes_the_whole_hours_that_the_range_touches(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, every = archive
    turbod(
        *("get", folder, "--output", tmp_path, "--by-hour"),
        *("--from", "2026-11-20T11:59:00Z", "--until", "2026-11-20T12:00:00Z"),
    )
    assert files_below(tmp_path) == [path_of(every[60:120])]
    assert (tmp_path / path_of(every[60:120])).read_bytes() == b"".join(every[60:120])


def test_by_hour_an_hour_of_which_nothing_was_wanted_has_an_empty_file(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    nobody = "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"
    turbod("get", archive[0], "--output", tmp_path, "--by-hour", "--dids", nobody)
    assert len(files_below(tmp_path)) == 3
    assert not any(path.stat().st_size for path in tmp_path.rglob("*.jsonl"))


def test_by_hour_what_is_there_is_not_fetched_again(
    turbod: Commands, archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, every = archive
    first = tmp_path / path_of(every[:60])
    first.parent.mkdir(parents=True)
    first.write_text("as it was")
    part = tmp_path / f"{path_of(every[60:120])}.part"
    part.parent.mkdir(parents=True)
    part.write_text("half an hour of an interrupted run\n" * 3000)
    ran = turbod("get", folder, "--output", tmp_path, "--by-hour")
    assert ran.code == 0
    assert first.read_text() == "as it was"
    assert len(files_below(tmp_path)) == 3
    assert (tmp_path / path_of(every[60:120])).read_bytes() == b"".join(every[60:120])
    assert "records=120" in ran.errors[-1]
    assert "records=0" in turbod("get", folder, "--output", tmp_path, "--by-hour").errors[-1]


def test_by_hour_an_hour_that_cannot_be_read_has_no_file(turbod: Commands, tmp_path: Path) -> None:
    archive, target = tmp_path / "archive", tmp_path / "hours"
    every = make_archive(archive, [0, 1, 2], count=30)
    next(archive.glob("dt=*/hour=11/*.zst")).write_bytes(b"not any more")
    ran = turbod("get", archive, "--output", target, "--by-hour")
    assert ran.code == getting.INCOMPLETE
    assert files_below(target) == [path_of(every[:30]), path_of(every[60:])]


def test_by_hour_killed_and_interrupted_the_files_are_the_same_in_the_end(
    large: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, every = large

    def written() -> int:
        found = 0
        for path in tmp_path.rglob("*.jsonl*"):
            with suppress(FileNotFoundError):  # it got its name meanwhile
                found += path.stat().st_size
        return found

    interrupt(
        lambda: start("get", folder, "--output", tmp_path, "--by-hour", stdout=subprocess.DEVNULL),
        written=written,
        size=sum(map(len, every)),
    )
    hours = [every[index : index + 300] for index in range(0, 1200, 300)]
    assert files_below(tmp_path) == [path_of(hour) for hour in hours]
    for hour in hours:
        assert (tmp_path / path_of(hour)).read_bytes() == b"".join(hour)


# What is missing, and what makes no sense ---------------------------------------------------


def test_where_events_are_missing_it_says_so_and_exits_3(turbod: Commands, tmp_path: Path) -> None:
    lines = hour_of_lines(0, 30)
    gap = Gap(cursor(lines[9]), cursor(lines[10]), "nobody had them")
    add_hour(tmp_path, lines, previous=0, gaps=[gap])
    ran = turbod("get", tmp_path)
    assert (ran.code, ran.output) == (3, b"".join(lines))
    assert len(ran.errors) == 1
    for words in ("archive_gap", str(gap.after), str(gap.before), "nobody had them"):
        assert words in ran.errors[0]


def test_a_missing_hour_at_the_end_of_the_range_is_noticed(
    turbod: Commands, tmp_path: Path
) -> None:
    every = make_archive(tmp_path, [0, 1, 2], count=30)
    next(tmp_path.glob("dt=*/hour=11/*.zst")).unlink()
    ran = turbod("get", tmp_path, "--until", "2026-11-20T12:00:00Z")
    assert (ran.code, ran.output) == (3, b"".join(every[:30]))
    target = tmp_path / "hours"
    ran = turbod("get", tmp_path, "--until=2026-11-20T12:00:00Z", "--by-hour", "--output", target)
    assert ran.code == 3
    assert files_below(target) == [path_of(every[:30])]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "yesterday"], "--from 'yesterday': expected a time such as"),
        (["--until", "-1y"], "--until '-1y': expected"),
        (["--from", "2026-13-01T00:00:00Z"], "--from '2026-13-01T00:00:00Z': expected"),
        (["--from", "-1h", "--until", "-2h"], "--until -2h: not after --from -1h"),
        (["--until", "0"], "--until 0: not after --from 0"),
        (["--from", "2200-01-01T00:00:00Z"], "in the future"),
        (["--until", "2200-01-01T00:00:00Z"], "in the future"),
        (["--collections", "post"], "--collections: 'post' is neither an NSID"),
        (["--collections", "app.*.post"], "neither an NSID"),
        (["--dids", "alice.test"], "--dids: 'alice.test' is not a DID"),
        (["--about-dids", "x"], "--about-dids: 'x' is not a DID"),
        (["--dids-file", "/nonexistent"], "--dids-file /nonexistent: No such file"),
        (["--dids-file", "/dev/null"], "no DID in it"),
        (["--kinds", "post"], "--kinds: 'post' is none of account, commit, identity"),
        (["--operations", "undo"], "--operations: 'undo' is none of create, delete, update"),
        (["--parallel", "0"], "--parallel: was '0': expected a whole number from 1 to 32"),
        (["--format", "csv"], "choose from"),
        (["--format", "parquet"], "--output: name a file"),
        (["--by-hour"], "--output: name a file or, with --by-hour, a folder"),
        (["--output", "/tmp"], "a folder; name a file, or add --by-hour"),
        (["--output", "/etc/passwd", "--by-hour"], "a file; --by-hour writes into a folder"),
        (["--s3-endpoint", "localhost"], "--s3-endpoint was 'localhost'"),
        (["--form", "x"], "turbod archive get: --form: no such option"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_2(
    turbod: Commands, archive: tuple[Path, list[bytes]], arguments: list[str], words: str
) -> None:
    ran = turbod("get", archive[0], *arguments)
    assert (ran.code, len(ran.errors), ran.output) == (2, 1, b"")
    assert words in ran.errors[0]


@pytest.mark.parametrize("action", ["ls", "get", "verify"])
@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("/nonexistent", 2, "/nonexistent: no such folder; expected a folder, s3://"),
        ("localhost:8080", 2, "no such folder"),
        ("s3://X", 2, "expected s3://BUCKET/PREFIX"),
        (
            "http://127.0.0.1:9",
            1,
            "127.0.0.1:9/archive cannot be read: refused: does the server run?",
        ),
        ("http://nowhere.invalid", 1, "nowhere.invalid/archive cannot be read: "),
    ],
)
def test_a_source_that_is_none_is_one_line(
    turbod: Commands, action: str, source: str, code: int, words: str
) -> None:
    ran = turbod(action, source)
    assert (ran.code, len(ran.errors)) == (code, 1)
    assert words in ran.errors[0]


@pytest.mark.parametrize("action", ["ls", "get"])
def test_a_folder_that_holds_no_archive_is_told_from_an_empty_one(
    turbod: Commands, tmp_path: Path, action: str
) -> None:
    ran = turbod(action, tmp_path)
    assert (ran.code, ran.errors) == (1, [f"turbod: {tmp_path}: nothing of an archive is there"])
    assert ran.output == b""
    (tmp_path / "turbod.json").write_text('{"format":1,"instance":"here"}')
    assert turbod(action, tmp_path).code == 0


@pytest.mark.parametrize("action", ["ls", "get", "verify"])
def test_who_names_the_data_folder_is_told_where_its_archive_is(
    turbod: Commands, tmp_path: Path, action: str
) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "turbod.json").write_text('{"format":1,"instance":"here"}')
    ran = turbod(action, tmp_path)
    told = f"turbod: {tmp_path}: a data folder; its archive is {tmp_path}/archive"
    assert (ran.code, ran.errors) == (2, [told])


def test_a_range_of_which_the_archive_has_nothing_is_one_line(
    turbod: Commands, archive: tuple[Path, list[bytes]]
) -> None:
    ran = turbod("get", archive[0], "--until", "2020-01-01T00:00:00Z")
    assert (ran.code, len(ran.errors), ran.output) == (0, 1, b"")
    assert "archive_range_empty" in ran.errors[0]
    assert "oldest=2026-11-20T1" in ran.errors[0]
