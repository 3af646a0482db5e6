"""How small an hour becomes, what reading one frame takes, what sealing costs the event loop."""

import gzip
import os
import sqlite3
import time
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import msgspec
import trio
import zstandard

from benchmarks.believable import FIRST_US, Believable
from benchmarks.figures import Figure, say
from benchmarks.options import Options
from benchmarks.plain import INSERT, TABLE
from turbod.archive.format.hour_object import FRAME_BYTES, LEVEL, MIN_MATCH, read_frame
from turbod.archive.format.index import Index
from turbod.archive.format.names import Name
from turbod.archive.sealing import check, seal
from turbod.eventlog.hour_file import hour_of, records_name
from turbod.eventlog.hours import PlainHour

RECORDS: Final = 60_000
MEBIBYTE: Final = 1024 * 1024
TICK_SECONDS: Final = 0.002
_MEBIBYTES: Final = (4, 8, 16, 32, 64)
_LEVELS: Final = (3, 6, 9, 12, 15)
_READS: Final = 12


def measure(options: Options) -> Iterator[Figure]:
    """Seal a believable hour, and compare; with `--full` try other frames and levels before."""
    with options.folder() as folder:
        hour = _plain_hour(folder)
        lines = hour.path.read_bytes()
        gzipped = len(gzip.compress(lines, 6))
        if options.full:
            _table(lines, gzipped)
        yield Figure("raw", len(lines) / RECORDS, "B/record")
        yield Figure("gzip -6", gzipped / RECORDS, "B/record")
        zipped = _zipped_database(folder, lines)
        yield Figure("zip of SQLite, three indexes", zipped / RECORDS, "B/record")
        name, figures = trio.run(_sealed, hour, folder)
        size = (folder / name.file).stat().st_size
        yield Figure("object, index and all", size / RECORDS, "B/record")
        yield Figure("object / gzip -6", size / gzipped, "x", at_most=0.65)
        yield Figure("object / zip of SQLite", size / zipped, "x", at_most=0.55)
        yield from figures
        yield from _read(folder / name.file, name)


def _plain_hour(folder: Path) -> PlainHour:
    """Write a little less than an hour's records, all of one UTC hour."""
    hour = hour_of(FIRST_US)
    path = folder / records_name(hour)
    believable = Believable(step_us=3_500_000_000 // RECORDS)
    with path.open("wb") as file:
        file.writelines(line + b"\n" for _, line in believable.lines(RECORDS))
    return PlainHour(path, hour, path.stat().st_size, FIRST_US, 0, [])


def _zipped_database(folder: Path, lines: bytes) -> int:
    """Pack the records as Graze's Turbostream does; return the size."""
    path = folder / "records.sqlite"
    database = sqlite3.connect(path)
    database.executescript(TABLE)
    database.executemany(INSERT, map(_row, lines.splitlines()))
    database.commit()
    database.close()
    zipped = folder / "records.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(path, path.name)
    return zipped.stat().st_size


class _Line(msgspec.Struct):
    at_uri: str
    did: str
    time_us: int
    message: msgspec.Raw
    hydrated_metadata: msgspec.Raw


def _row(line: bytes) -> tuple[str, str, int, str, str]:
    read = msgspec.json.decode(line, type=_Line)
    metadata = bytes(read.hydrated_metadata).decode()
    return read.at_uri, read.did, read.time_us, bytes(read.message).decode(), metadata


async def _sealed(hour: PlainHour, folder: Path) -> tuple[Name, list[Figure]]:
    """Seal in a thread while the event loop wakes every two milliseconds and does a little."""
    late: list[float] = []
    job = partial(
        seal,
        hour,
        folder=folder,
        previous=0,
        instance="benchmark",
        upstreams=(),
        cancelled=lambda: False,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tick, late)
        begun, cpu = time.perf_counter(), time.process_time()
        name = await trio.to_thread.run_sync(job)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        nursery.cancel_scope.cancel()
    assert name is not None
    return name, [
        Figure("sealing, raw lines", hour.size / 1e6 / seconds, "MB/s"),
        Figure("CPU time of that, the loop's included", cpu / RECORDS * 1e6, "us/record"),
        Figure("event loop woken late meanwhile, p99", quantiles(late, n=100)[98], "ms", None, 10),
        Figure("slowest", max(late), "ms"),
    ]


async def _tick(late: list[float]) -> None:
    reader, writer = os.pipe()
    while True:
        begun = time.perf_counter()
        await trio.sleep(TICK_SECONDS)
        for _ in range(10):  # each lets go of the interpreter, and has to get it back
            os.write(writer, b".")
            os.read(reader, 1)
        late.append((time.perf_counter() - begun - TICK_SECONDS) * 1000)


def _read(path: Path, name: Name) -> Iterator[Figure]:
    """Read each frame as a history reader does; what was read is kept, as its cache keeps it."""
    index = check(path, name)
    yield Figure("index", _index_bytes(path, index) / RECORDS, "B/record")
    data = path.read_bytes()
    kept, seconds = [], []
    for frame in index.frames[:_READS]:
        part = data[frame.offset : frame.end]
        begun = time.perf_counter()
        kept.append(read_frame(part, frame))
        seconds.append(time.perf_counter() - begun)
    yield Figure("one frame read, its memory new, median", median(seconds) * 1000, "ms", None, 15)
    del kept
    again = []
    for frame in index.frames[:_READS]:
        part = data[frame.offset : frame.end]
        begun = time.perf_counter()
        read_frame(part, frame)
        again.append(time.perf_counter() - begun)
    yield Figure("the same, its memory used before, median", median(again) * 1000, "ms")


def _index_bytes(path: Path, index: Index) -> int:
    return path.stat().st_size - index.frames[-1].end


def _table(lines: bytes, gzipped: int) -> None:
    say("  frame  level  LDM  match  B/record  / gzip     MB/s  one frame decoded, ms")
    for mebibytes, level, ldm in product(_MEBIBYTES, _LEVELS, (False, True)):
        _try(lines, gzipped, mebibytes, level, ldm=ldm)
    for mebibytes, level in product((8, 12, 14, 16, 32), (9, 10, 12)):
        _try(lines, gzipped, mebibytes, level, ldm=False, min_match=MIN_MATCH)
    say(f"  chosen: {FRAME_BYTES // MEBIBYTE} MiB, level {LEVEL}, matches from {MIN_MATCH} on")


def _try(
    lines: bytes, gzipped: int, mebibytes: int, level: int, *, ldm: bool, min_match: int = 0
) -> None:
    """Say what one choice gives, without an index: CPU times, which others disturb less."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        window_log=min(27, 20 + (mebibytes - 1).bit_length()),
        enable_ldm=ldm,
        write_checksum=True,
        **({"min_match": min_match} if min_match else {}),
    )
    frames = _cut(lines, mebibytes * MEBIBYTE)
    begun = time.process_time()
    packed = list(map(zstandard.ZstdCompressor(compression_params=parameters).compress, frames))
    seconds = time.process_time() - begun
    size = sum(map(len, packed))
    say(
        f"  {mebibytes:>3} MiB {level:>4} {'yes' if ldm else 'no':>6} {min_match or '':>5} "
        f"{size / RECORDS:>9.1f} {size / gzipped:>8.3f} {len(lines) / 1e6 / seconds:>8.0f} "
        f"{_decoding_ms(packed):>8.1f}"
    )


def _cut(lines: bytes, size: int) -> list[bytes]:
    frames, begin = [], 0
    while begin < len(lines):
        end = lines.find(b"\n", min(begin + size, len(lines)) - 1) + 1
        frames.append(lines[begin:end])
        begin = end
    return frames


def _decoding_ms(packed: Sequence[bytes]) -> float:
    kept, seconds = [], []
    for frame in packed[:-1] or packed:
        begun = time.process_time()
        kept.append(zstandard.ZstdDecompressor().decompress(frame))
        seconds.append(time.process_time() - begun)
    return median(seconds) * 1000
