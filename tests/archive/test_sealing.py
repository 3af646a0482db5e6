"""Sealing: the object holds the plain file's sound lines, or there is none; that file stays."""

import importlib
import json
import os
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import duckdb
import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.samples_archive import (
    COLLECTIONS,
    DIDS,
    HOUR,
    T0,
    cursor_of,
    line,
    plain_lines,
)
from turbod.archive import sealing
from turbod.archive.format import object_writer
from turbod.archive.format.did_filter import SoughtDids
from turbod.archive.format.hour_object import Damaged
from turbod.archive.format.index import Index
from turbod.archive.format.names import Name
from turbod.archive.sealing import Cancelled, check, seal
from turbod.eventlog.appender import DiskFull
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hour_file import LINE_BYTES
from turbod.eventlog.hours import PlainHour
from turbod.record import head_of_line

FILE = "2026-11-20T10.jsonl"
DAMAGED = f"{FILE} was damaged"
PREVIOUS = T0 - 77


class Hour:
    """A plain hour on disk, and the folder that its object goes to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.folder = folder / "sealed"
        self.folder.mkdir(exist_ok=True)

    def write(self, data: bytes, gaps: Sequence[Gap] = (), *, size: int | None = None) -> PlainHour:
        self.path.write_bytes(data)
        size = len(data) if size is None else size
        return PlainHour(self.path, T0, size, T0, T0, list(gaps))

    def seal(
        self,
        data: bytes,
        gaps: Sequence[Gap] = (),
        *,
        size: int | None = None,
        previous: int = PREVIOUS,
        frame_bytes: int = 3000,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Name | None:
        return seal(
            self.write(data, gaps, size=size),
            folder=self.folder,
            previous=previous,
            instance="here",
            upstreams=["wss://one", "wss://two"],
            cancelled=cancelled,
            frame_bytes=frame_bytes,
        )

    def index(self, name: Name | None) -> Index:
        assert name is not None
        return check(self.folder / name.file, name)

    def read(self, name: Name | None) -> bytes:
        """Return all lines as anybody reads them."""
        assert name is not None
        return zstdcat(self.folder / name.file)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def hour(tmp_path: Path) -> Hour:
    return Hour(tmp_path)


def zstdcat(path: Path) -> bytes:
    if shutil.which("zstdcat") is None:
        pytest.skip("zstdcat is not installed")
    return subprocess.run(["zstdcat", path], check=True, capture_output=True).stdout


def joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(each + b"\n" for each in lines)


lines_of_an_hour = st.lists(
    st.tuples(
        st.integers(1, HOUR // 60),
        st.sampled_from(DIDS),
        st.sampled_from([*COLLECTIONS, "identity", "account"]),
        st.sampled_from(["create", "update", "delete"]),
        st.sampled_from(DIDS),
        st.integers(0, 500),
    ),
    min_size=1,
    max_size=50,
)


@settings(max_examples=60, deadline=None)
@given(lines_of_an_hour, st.integers(1, 5000))
def test_the_object_holds_the_lines_and_its_index_is_true(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[int, str, str, str, str, int]],
    frame_bytes: int,
) -> None:
    """By a plain count of what is in the lines."""
    lines, cursor = [], T0 - 1
    for step, did, kind, operation, about, padding in drawn:
        cursor += step
        lines.append(
            line(cursor, did=did, kind=kind, operation=operation, about=about, padding=padding)
        )
    hour = Hour(tmp_path_factory.mktemp("hour"))
    name = hour.seal(joined(lines), frame_bytes=frame_bytes)
    assert name == Name(cursor_of(lines[0]), cursor)
    index = hour.index(name)
    assert (index.records, index.raw_bytes) == (len(lines), len(joined(lines)))
    assert index.sha256 == sha256(joined(lines)).hexdigest()
    assert index.collections == Counter(map(_collection, lines))
    assert (index.instance, index.previous, index.gaps) == ("here", PREVIOUS, [])
    assert index.upstreams == ["wss://one", "wss://two"]
    position = 0
    for frame in index.frames:
        held = lines[position : position + frame.records]
        position += frame.records
        assert (frame.first, frame.last) == (cursor_of(held[0]), cursor_of(held[-1]))
        assert frame.collections == sorted(set(map(_collection, held)))
        assert frame.raw_bytes == len(joined(held))
        assert frame is index.frames[-1] or frame.raw_bytes >= frame_bytes
        assert frame.raw_bytes - len(held[-1]) - 1 < frame_bytes
        heads = list(map(head_of_line, held))
        dids = {did for head in heads for did in (head.did, *head.about)}
        assert all(frame.dids.may_hold(SoughtDids([did])) for did in dids)


def _collection(text: bytes) -> str:
    message = json.loads(text)["message"]
    kind = message["kind"]
    return str(message["commit"]["collection"]) if kind == "commit" else f"#{kind}"


def test_zstdcat_duckdb_and_pyarrow_read_it_as_it_is(hour: Hour) -> None:
    lines = plain_lines(0, 500, padding=300)
    name = hour.seal(joined(lines), frame_bytes=20_000)
    assert name is not None
    assert len(hour.index(name).frames) > 10
    path = hour.folder / name.file
    pa = importlib.import_module("pyarrow")  # untyped
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        assert stream.read() == joined(lines)
    relation = duckdb.sql(
        f"select cursor, at_uri, message from read_json('{path}', columns="
        "{cursor:'BIGINT', at_uri:'VARCHAR', message:'JSON'}, format='newline_delimited')"
    )
    assert relation is not None
    found = relation.fetchall()
    plain = list(map(json.loads, lines))
    assert [row[:2] for row in found] == [(each["cursor"], each["at_uri"]) for each in plain]
    assert [json.loads(row[2]) for row in found] == [each["message"] for each in plain]
    assert zstdcat(path) == joined(lines)


UNSOUND: dict[str, bytes] = {
    "no JSON": b'{"cursor":1795168800000150,"at',
    "zeros": b"\0" * 5000,
    "nothing": b"",
    "invalid UTF-8": line(T0 + 150).replace(b'"create"', b'"\xff"'),
    "invalid UTF-8 where no decoder looks": line(T0 + 150).replace(
        b'"user":null', b'"user":"\xff"'
    ),
    "the cursor before": line(T0 + 100),
    "an hour before": line(T0 - 1),
    "an hour behind": line(T0 + HOUR),
    "no cursor": b"{}",
    "no record": b'{"cursor":1795168800000150,"message":{"did":"x"}}',
    "longer than any line": b"x" * (2 * LINE_BYTES + 100),
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_a_line_that_is_not_sound_is_left_out_and_a_gap_says_so(hour: Hour, kind: str) -> None:
    sound = [line(T0 + 100), line(T0 + 200), line(T0 + 300)]
    with structlog.testing.capture_logs() as logs:
        name = hour.seal(joined([sound[0], UNSOUND[kind], *sound[1:]]))
    assert hour.read(name) == joined(sound)
    assert hour.index(name).gaps == [Gap(T0 + 100, T0 + 200, DAMAGED)]
    assert [entry["event"] for entry in logs] == ["hour_damaged"]
    assert logs[0]["bytes_left_out"] == len(UNSOUND[kind]) + 1


def test_what_is_damaged_at_the_ends_is_told_there(hour: Hour) -> None:
    name = hour.seal(joined([b"?", line(T0 + 100), b"?", b"?"]))
    assert hour.index(name).gaps == [
        Gap(PREVIOUS, T0 + 100, DAMAGED),
        Gap(T0 + 100, T0 + HOUR, DAMAGED),
    ]
    name = hour.seal(joined([b"?", line(T0 + 100)]), previous=0)
    assert hour.index(name).gaps == [Gap(T0 - 1, T0 + 100, DAMAGED)]


@pytest.mark.parametrize("cut", [1, 30, 10_000])
def test_a_file_that_is_shorter_than_it_was_is_damaged_at_its_end(hour: Hour, cut: int) -> None:
    lines = [line(T0 + 100), line(T0 + 200, padding=20_000)]
    data = joined(lines)
    name = hour.seal(data[:-cut], size=len(data))
    assert hour.read(name) == joined(lines[:1])
    assert hour.index(name).gaps == [Gap(T0 + 100, T0 + HOUR, DAMAGED)]
    whole = joined(lines[:1])
    assert hour.index(hour.seal(whole, size=len(whole) + cut)).gaps == [
        Gap(T0 + 100, T0 + HOUR, DAMAGED)
    ]


def test_what_is_no_line_is_held_in_memory_only_in_part(hour: Hour) -> None:
    plain = hour.write(b"x" * (5 * LINE_BYTES))
    pieces = list(map(len, sealing._plain_lines(plain, lambda: None)))
    assert max(pieces) <= LINE_BYTES + 1024 * 1024
    assert sum(pieces) == 5 * LINE_BYTES


def test_only_the_bytes_that_count_are_read(hour: Hour) -> None:
    whole = joined([line(T0 + 100)])
    name = hour.seal(whole + b"torn", size=len(whole))
    assert hour.read(name) == whole
    assert hour.index(name).gaps == []


def test_gaps_stand_before_their_records_and_move_on_where_those_are_gone(hour: Hour) -> None:
    lines = [line(T0 + 100), b"?", line(T0 + 300), line(T0 + 400)]
    gaps = [
        Gap(T0 - HOUR, T0 + 100, "an earlier hour"),
        Gap(T0 + 100, T0 + 200, "before a damaged line"),
        Gap(T0 + 300, T0 + 400, "as it was"),
    ]
    name = hour.seal(joined(lines), gaps)
    merged = Gap(T0 + 100, T0 + 300, f"{DAMAGED}; before a damaged line")
    assert hour.index(name).gaps == [gaps[0], merged, gaps[2]]


def test_without_a_sound_line_there_is_no_object(hour: Hour) -> None:
    assert hour.seal(b"?\n\0\0\0") is None
    assert hour.seal(b"") is None
    assert hour.files == []
    assert hour.path.exists()


def test_sealing_again_gives_the_same_bytes_in_place_of_the_same_name(hour: Hour) -> None:
    data = joined(plain_lines(0, 30))
    (hour.folder / ".2026-11-20T10.jsonl.zst.making").write_bytes(b"of a crash" * 1000)
    name = hour.seal(data)
    assert name is not None
    before = (hour.folder / name.file).read_bytes()
    assert hour.seal(data) == name
    assert (hour.folder / name.file).read_bytes() == before
    assert hour.files == [name.file]


def test_a_full_disk_leaves_nothing_and_the_same_again_works(hour: Hour) -> None:
    data = joined(plain_lines(0, 200, padding=50))
    hour.write(data)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (0, 100, 3000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(DiskFull):
                _seal(hour)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert hour.files == []
    assert hour.read(_seal(hour)) == data


def _seal(hour: Hour) -> Name | None:
    """Seal what is in the plain file already."""
    plain = PlainHour(hour.path, T0, hour.path.stat().st_size, T0, T0, [])
    return seal(
        plain, folder=hour.folder, previous=0, instance="", upstreams=[], cancelled=lambda: False
    )


@pytest.mark.parametrize("asked", [1, 2, 5, 20])
def test_cancelled_at_any_moment_it_leaves_nothing(
    hour: Hour, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    monkeypatch.setattr(sealing, "BURST_SECONDS", 0)
    monkeypatch.setattr(sealing, "PAUSE_SECONDS", 0)
    answers = iter([False] * asked)
    with pytest.raises(Cancelled):
        hour.seal(joined(plain_lines(0, 30)), cancelled=lambda: next(answers, True))
    assert hour.files == []
    assert hour.path.exists()


def test_each_frame_is_synced_before_the_next_is_made(
    hour: Hour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred megabytes synced at once would hold up the log's own writes."""
    synced: list[int] = []

    def fdatasync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    index = hour.index(hour.seal(joined(plain_lines(0, 100))))
    assert len(index.frames) > 1
    assert synced == [frame.end for frame in index.frames]


def test_an_object_that_does_not_read_back_is_none(
    hour: Hour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk, or memory, gives other bytes than it was given."""

    def wrong(data: bytes = b"") -> object:
        return sha256(data + b"other")

    monkeypatch.setattr(object_writer, "sha256", wrong)
    with pytest.raises(Damaged):
        hour.seal(joined(plain_lines(0, 30)))
    assert hour.files == []
    assert hour.path.exists()


def test_bursts_of_python_are_short_and_pauses_three_times_as_long(
    hour: Hour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still but for each look at it, so that bursts are counted in looks."""
    now, slept, bursts = [0.0], [0.0], [0]

    def look() -> float:
        now[0] += 0.0001
        bursts[0] += 1
        return now[0]

    def sleep(seconds: float) -> None:
        slept[0] += seconds
        assert bursts[0] <= 12
        bursts[0] = 0

    monkeypatch.setattr(time, "perf_counter", look)
    monkeypatch.setattr(time, "sleep", sleep)
    hour.seal(joined(plain_lines(0, 500)))
    assert slept[0] / now[0] > 2
