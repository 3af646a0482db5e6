"""Six hours in a folder and in two kinds of buckets: exact for every reader, and faults are found.

The archive is what a real turbod left behind after hours that were raced through it, with a quiet
hour among them, and events that came late.
"""

import importlib
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import trio

import turbod
from tests.acceptance.archive_places import BucketPlace, FolderPlace, Place
from tests.acceptance.archive_plain import (
    PlainObject,
    dids_of,
    hour_of,
    may_hold,
    seek_table,
    take_apart,
    true_index,
)
from tests.acceptance.archive_trace import BUSY, QUIET, Raced, race, race_with_a_loss, run
from tests.acceptance.follower import cursor_of
from tests.acceptance.plain_scan import differences, events_of, line_differences
from tests.archive.s3_servers import moto_server, rclone_server

pytestmark = pytest.mark.timeout(120)

# As the description of the format has it, to the letter.
RECIPE = (
    "read_json('{prefix}/dt=*/hour=*/*.jsonl.zst', columns={{cursor:'BIGINT', at_uri:'VARCHAR', "
    "did:'VARCHAR', time_us:'BIGINT', message:'JSON', hydrated_metadata:'JSON'}}, "
    "hive_partitioning=true)"
)
SLOW_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4)]


@dataclass(frozen=True)
class Left:
    """What one run left behind.

    Attributes:
        data: the data folder.
        place: the archive.
        raced: what was given out.
        copy: the archive's files, where readers of files find them.
    """

    data: Path
    place: Place
    raced: Raced
    copy: Path

    @property
    def keys(self) -> list[str]:
        """The objects, oldest first."""
        return [key for key in self.place.listing() if key.endswith(".zst")]

    @property
    def files(self) -> list[Path]:
        """The copies of the objects, oldest first."""
        return [self.copy / key for key in self.keys]

    @property
    def plain(self) -> list[bytes]:
        """The lines of the current hour's plain file."""
        paths = sorted((self.data / "live").glob("*.jsonl"))
        assert len(paths) == 1, "only the current hour is plain"
        return paths[0].read_bytes().split(b"\n")[:-1]


@pytest.fixture(
    scope="module",
    params=[
        "folder",
        pytest.param("rclone", marks=pytest.mark.slow),
        pytest.param("moto", marks=pytest.mark.slow),
    ],
)
def left(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Left]:
    """Race the hours through turbod, with each kind of archive."""
    folder = tmp_path_factory.mktemp("exact")
    data, copy = folder / "data", folder / "copy"
    with ExitStack() as stack:
        place: Place = FolderPlace(data / "archive")
        if request.param != "folder":
            make = {"rclone": rclone_server, "moto": moto_server}[request.param]
            server = stack.enter_context(make())
            place = BucketPlace(server, server.bucket())
        raced = trio.run(race, data, place.options)
        for key in place.listing():
            path = copy / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(place.read(key))
        yield Left(data, place, raced, copy)
    shutil.rmtree(folder)


def parts_of(left: Left) -> list[PlainObject]:
    return [take_apart(file.read_bytes()) for file in left.files]


# What is there ------------------------------------------------------------------------------


def test_what_was_delivered_live_is_what_the_upstreams_sent(left: Left) -> None:
    """Each once, in order of cursor, without a gap; what follows is compared with that."""
    raced = left.raced
    cursors = list(map(cursor_of, raced.delivered))
    assert differences(raced.events, events_of(raced.delivered)) == ""
    assert cursors == sorted(set(cursors))
    assert not raced.gaps
    late = [line for line in raced.delivered if json.loads(line)["time_us"] < cursor_of(line)]
    assert {hour_of(json.loads(line)["time_us"]) for line in late} >= {
        hour_of(raced.hour(number)) for number in range(5)
    }, "of every hour some came late"
    assert raced.hour(1) - 1 in cursors, "the last microsecond of an hour"
    assert raced.hour(1) in cursors, "what came behind it begins the next"


def test_each_hour_has_one_object_and_the_quiet_hour_none(left: Left) -> None:
    """Under the names that its records give, and nothing else is there."""
    raced = left.raced
    hours: dict[str, list[int]] = {}
    for line in raced.archived:
        hours.setdefault(hour_of(cursor_of(line)), []).append(cursor_of(line))
    assert hour_of(raced.hour(QUIET)) not in hours
    assert any(hour_of(event["time_us"]) == hour_of(raced.hour(QUIET)) for event in raced.events)
    assert len(hours) >= 5
    names = [
        f"dt={hour[:10]}/hour={hour[11:]}/{found[0]}-{found[-1]}.jsonl.zst"
        for hour, found in hours.items()
    ]
    assert left.place.listing() == [*names, "turbod.json"]


def test_objects_and_the_current_hour_are_what_was_delivered(left: Left) -> None:
    """Byte for byte, each record once, the hour's file that is not sealed among them."""
    archived = [line for each in parts_of(left) for line in each.lines]
    assert line_differences(left.raced.delivered, [*archived, *left.plain]) == ""


def test_objects_kept_on_this_disk_are_those_of_the_archive(left: Left) -> None:
    """Nothing waits, and what is kept for reading is the same bytes."""
    assert list((left.data / "sealed").iterdir()) == []
    kept = {path.name: path.read_bytes() for path in (left.data / "verified").iterdir()}
    assert kept == {file.name: file.read_bytes() for file in left.files}


def is_hour(key: str, hour: int) -> bool:
    name = hour_of(hour)
    return key.startswith(f"dt={name[:10]}/hour={name[11:]}/")


# Every index is true ------------------------------------------------------------------------


def test_every_index_says_what_the_lines_say(left: Left) -> None:
    """All of it, counted anew: sums, frames, collections, the DIDs in the filters, `previous`."""
    instance = json.loads((left.copy / "turbod.json").read_bytes())["instance"]
    assert instance == (left.data / "instance").read_text().strip()
    previous = 0
    for found in parts_of(left):
        expected = true_index(
            found,
            instance=instance,
            previous=previous,
            upstreams=left.raced.upstreams,
            turbod=turbod.__version__,
        )
        for key, value in expected.items():
            assert found.index[key] == value, key
        assert found.index.keys() == expected.keys()
        previous = found.index["last"]


def test_a_filter_holds_whom_its_frame_is_from_or_about_and_hardly_anybody_else(left: Left) -> None:
    """No DID of the frame is denied; of others fewer than three in a hundred are taken for one."""
    objects = parts_of(left)
    everybody = dids_of(json.loads(line) for each in objects for line in each.lines)
    asked = wrong = 0
    for each in objects:
        for part, frame in zip(each.parts, each.index["frames"], strict=True):
            here = dids_of(map(json.loads, part.split(b"\n")[:-1]))
            assert all(may_hold(frame["dids"], did) for did in here)
            strangers = [f"{did}x" for did in everybody]
            asked += len(strangers)
            wrong += sum(may_hold(frame["dids"], did) for did in strangers)
    assert wrong < asked * 0.03


def test_the_busy_hour_has_frames_that_are_whole_by_themselves(left: Left) -> None:
    """By the seek table alone: each piece is decompressed without the others, by the tool too."""
    key = next(key for key in left.keys if is_hour(key, left.raced.hour(BUSY)))
    data = (left.copy / key).read_bytes()
    sizes, _ = seek_table(data)
    assert len(sizes) > 2
    begin = 0
    for compressed, raw in sizes:
        lines = zstdcat(data[begin : begin + compressed])
        assert len(lines) == raw
        assert all(line.startswith(b'{"cursor":') for line in lines.split(b"\n")[:-1])
        begin += compressed


# Other people's readers ---------------------------------------------------------------------


def zstdcat(data: bytes) -> bytes:
    """Decompress with the tool."""
    program = shutil.which("zstdcat")
    if program is None:
        pytest.skip("zstdcat is not here: install zstd")
    ran = subprocess.run([program], input=data, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    return ran.stdout


def test_zstdcat_prints_what_was_delivered(left: Left) -> None:
    """The objects one after the other, as one stream of bytes."""
    everything = b"".join(file.read_bytes() for file in left.files)
    lines = zstdcat(everything).split(b"\n")
    assert lines.pop() == b""
    assert line_differences(left.raced.delivered, [*lines, *left.plain]) == ""


def test_duckdb_reads_what_was_delivered(left: Left) -> None:
    """By the recipe as it stands: every record once, its parts, and its hour's partition."""
    recipe = RECIPE.format(prefix=left.copy)
    with duckdb.connect() as database:
        columns = "cursor, at_uri, did, time_us, message, hydrated_metadata, dt, hour"
        rows = database.sql(f"select {columns} from {recipe} order by cursor").fetchall()
        unordered = database.sql(f"select cursor from {recipe}").fetchall()
    names = ("cursor", "at_uri", "did", "time_us", "message", "hydrated_metadata")
    expected = [json.loads(line) for line in left.raced.archived]
    assert [row[:4] for row in rows] == [tuple(each[n] for n in names[:4]) for each in expected]
    for row, each in zip(rows, expected, strict=True):
        assert json.loads(row[4]) == each["message"]
        rest = json.loads(row[5])
        assert rest == each["hydrated_metadata"]
        assert f"{row[6]}T{int(row[7]):02}" == hour_of(row[0])
    assert sorted(unordered) == [(each["cursor"],) for each in expected]


def test_pyarrow_reads_what_was_delivered(left: Left) -> None:
    """Its decompression gives the bytes, its JSON reader the columns."""
    pa, pa_json = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.json"))
    types = {"cursor": "int64", "at_uri": "string", "did": "string", "time_us": "int64"}
    options = pa_json.ParseOptions(
        explicit_schema=pa.schema([(name, getattr(pa, kind)()) for name, kind in types.items()]),
        unexpected_field_behavior="ignore",
    )
    lines: list[bytes] = []
    rows: list[dict[str, Any]] = []
    for file in left.files:
        with pa.CompressedInputStream(pa.OSFile(str(file)), "zstd") as stream:
            lines += stream.read().split(b"\n")[:-1]
        with pa.CompressedInputStream(pa.OSFile(str(file)), "zstd") as stream:
            read = pa_json.ReadOptions(block_size=4 * 1024 * 1024)
            rows += pa_json.read_json(stream, read, options).to_pylist()
    assert line_differences(left.raced.delivered, [*lines, *left.plain]) == ""
    expected = map(json.loads, left.raced.archived)
    assert rows == [{name: each[name] for name in types} for each in expected]


# turbod's own readers -----------------------------------------------------------------------


def test_archive_get_prints_what_was_delivered(left: Left) -> None:
    """All hours that are over, from the store and from the running turbod, and nothing is amiss."""
    for ran in (run("get", *left.place.words), left.raced.fetched):
        lines = ran.stdout.split(b"\n")
        assert (ran.returncode, lines.pop()) == (0, b""), ran.stderr
        assert line_differences(left.raced.archived, lines) == ""
        assert b"archive_gap" not in ran.stderr


def test_turbod_tail_prints_what_was_delivered(left: Left) -> None:
    """From the oldest to the newest, through archive, disk and memory."""
    assert line_differences(left.raced.delivered, left.raced.tailed) == ""


def test_pages_of_records_are_what_was_delivered(left: Left) -> None:
    """From the oldest to the newest, a thousand at a time."""
    assert line_differences(left.raced.delivered, left.raced.paged) == ""


def test_the_status_counts_what_is_there(left: Left) -> None:
    """The archive is well, and has neither conflicts nor what is none of its own."""
    archive = left.raced.status["archive"]
    archiver, history = archive["archiver"], archive["history"]
    assert (archiver["state"], archiver["fault"]) == ("ok", None)
    assert archiver["stored_hours"] == archive["hours"] == len(left.files)
    assert archiver["stored_bytes"] == sum(file.stat().st_size for file in left.files)
    assert (archiver["foreign"], archiver["conflicts"]) == (0, 0)
    assert (history["damaged"], history["holes"], history["fault"]) == (0, 0, None)
    assert archive["floor"] < cursor_of(left.raced.delivered[0])


# Faults at rest -----------------------------------------------------------------------------


@contextmanager
def tampering(left: Left) -> Iterator[dict[str, bytes]]:
    """Give the objects' bytes; afterwards all is as it was."""
    before = {key: left.place.read(key) for key in left.place.listing()}
    try:
        yield {key: data for key, data in before.items() if key.endswith(".zst")}
    finally:
        for key in {*left.place.listing()} - before.keys():
            left.place.remove(key)
        for key, data in before.items():
            left.place.write(key, data)


def verified(left: Left) -> list[str]:
    """Verify; return what was found, the exit code and the summary having been looked at."""
    ran = run("verify", *left.place.words)
    *found, summary = ran.stdout.decode().splitlines()
    assert ran.returncode == (1 if found else 0), (ran.stdout, ran.stderr)
    assert summary.endswith(f": {len(found)} findings" if found else ": all is whole")
    assert "Traceback" not in ran.stderr.decode()
    assert hour_of(left.raced.hour(QUIET)) not in "".join(found), "the quiet hour is none"
    return found


def blamed(found: list[str]) -> list[str]:
    """Return whom findings call damaged."""
    assert all(": damaged: " in line for line in found), found
    return [line.partition(": damaged: ")[0] for line in found]


def flipped(data: bytes, place: int, *, bit: int = 2) -> bytes:
    """Return the bytes with one bit changed."""
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def in_a_frame(data: bytes) -> int:
    sizes, _ = seek_table(data)
    return sizes[0][0] // 2


def in_the_index(data: bytes) -> int:
    sizes, table_bytes = seek_table(data)
    return len(data) - table_bytes - sizes[-1][0] // 2


def in_the_seek_table(data: bytes) -> int:
    """Where it has the decompressed size of the first frame, which nothing else tells wrong."""
    _, table_bytes = seek_table(data)
    return len(data) - table_bytes + 8 + 4


def test_verify_calls_the_archive_whole_its_quiet_hour_included(left: Left) -> None:
    """No finding, and exit code 0."""
    assert verified(left) == []


def test_verify_finds_flipped_bits_what_is_cut_off_and_what_is_foreign(left: Left) -> None:
    """Each in a finding of its own, that names it; what is whole among them is not named."""
    with tampering(left) as objects:
        keys = list(objects)
        for key, place in zip(keys, (in_a_frame, in_the_index, in_the_seek_table), strict=False):
            left.place.write(key, flipped(objects[key], place(objects[key])))
        left.place.write(keys[3], objects[keys[3]][: len(objects[keys[3]]) // 2])
        foreign = ["README.txt", keys[0].rpartition("/")[0] + "/copy.jsonl.zst"]
        for key in foreign:
            left.place.write(key, b"not turbod's")
        found = verified(left)
    assert found[:2] == [f"{key}: none of the archive's files" for key in foreign]
    assert blamed(found[2:]) == keys[:4]


@pytest.mark.parametrize("seed", [0, *SLOW_SEEDS])
def test_verify_finds_any_flipped_bit(left: Left, seed: int) -> None:
    """One bit of each object, drawn from all that it has: as many findings as objects."""
    draw = random.Random(seed)
    with tampering(left) as objects:
        for key, data in objects.items():
            left.place.write(key, flipped(data, draw.randrange(len(data)), bit=draw.randrange(8)))
        found = verified(left)
    assert blamed(found) == list(objects)


@pytest.mark.parametrize("left_bytes", [0, pytest.param(30, marks=pytest.mark.slow), -1])
def test_verify_finds_truncated_objects(left: Left, left_bytes: int) -> None:
    """Nothing left of each, a little, or all but the last byte."""
    with tampering(left) as objects:
        for key, data in objects.items():
            left.place.write(key, data[:left_bytes])
        found = verified(left)
    assert blamed(found) == list(objects)


def test_verify_finds_a_missing_hour(left: Left) -> None:
    """By what the hour behind it says of the cursor before; the quiet hour is told apart."""
    with tampering(left) as objects:
        _, _, gone, behind, *_ = objects
        assert is_hour(gone, left.raced.hour(QUIET - 1))
        left.place.remove(gone)
        found = verified(left)
    hour = hour_of(left.raced.hour(QUIET - 1))
    assert found == [f"{behind}: the hour before it is missing, {hour} or a part of it"]


# A gap of the upstream ----------------------------------------------------------------------


@pytest.mark.slow
async def test_what_the_upstreams_lost_is_a_gap_in_the_index_at_its_place(tmp_path: Path) -> None:
    """Between the cursors that were told live; `get` names it, and for `verify` all is whole."""
    data = tmp_path / "data"
    raced = await race_with_a_loss(data)
    (told,) = raced.gaps
    after, before = told["after"], told["before"]
    place = FolderPlace(data / "archive")
    objects = {key: take_apart(place.read(key)) for key in place.listing() if key[-4:] == ".zst"}
    named = {key: each.index["gaps"] for key, each in objects.items() if each.index["gaps"]}
    (key,) = named
    assert is_hour(key, raced.base)
    assert [(gap["after"], gap["before"]) for gap in named[key]] == [(after, before)]
    lines = [line for each in objects.values() for line in each.lines]
    assert line_differences(raced.archived, lines) == ""
    cursors = list(map(cursor_of, lines))
    assert cursors.index(before) == cursors.index(after) + 1
    verifying = run("verify", *place.words)
    assert verifying.returncode == 0
    assert b"1 gaps of the upstream: all is whole" in verifying.stdout
    assert line_differences(raced.delivered, raced.tailed) == ""
    assert line_differences(raced.delivered, raced.paged) == ""
    for getting in (run("get", *place.words), raced.fetched):
        assert getting.returncode == 3
        assert getting.stderr.count(b"archive_gap") == 1
        assert b"after=%d before=%d" % (after, before) in getting.stderr
        assert line_differences(raced.archived, getting.stdout.split(b"\n")[:-1]) == ""
