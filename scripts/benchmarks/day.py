"""A day of believable objects in an archive: turbod's own writer, without its politeness."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.believable import Believable
from turbod.archive.format.hour_object import FRAME_BYTES
from turbod.archive.format.names import Name
from turbod.archive.format.object_writer import ObjectWriter
from turbod.cursor import HOUR_US
from turbod.event import POST
from turbod.eventlog.line import HEAD_BYTES, head_cursor
from turbod.record import head_of_line

HOURS: Final = 24
RARE: Final = "social.example.note"  # one event in a hundred is of this collection
RARE_EVERY: Final = 100
QUIET_US: Final = 100_000_000  # left out at the end of each hour: times are drawn
REPEATED: Final = 20_000  # more of them than a frame holds
STEP_US: Final = 15_000
_CURSOR_END: Final = 26  # of a line: behind `{"cursor":` and its digits


class Day(msgspec.Struct):
    """What was made.

    Attributes:
        median_did: who wrote a median number of records, of all who wrote any.
        rare_records: of the collection RARE.
    """

    folder: Path
    names: list[Name]
    records: int
    raw_bytes: int
    size: int
    dids: int
    median_did: str
    median_records: int
    rare_records: int

    @property
    def paths(self) -> list[Path]:
        """The objects, in order."""
        return [self.folder / name.key for name in self.names]

    @property
    def last(self) -> int:
        """The newest cursor."""
        return self.names[-1].last


def make_day(folder: Path, *, begin_us: int, records_an_hour: int, accounts: int) -> Day:
    """Make HOURS hours, the first of which begins at `begin_us`, below `folder`."""
    believable = Believable(
        first_us=begin_us, step_us=(HOUR_US - QUIET_US) // records_an_hour, accounts=accounts
    )
    written: Counter[str] = Counter()
    pending = []
    raw_bytes = previous = rare = 0
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(1) as pool:
        for hour in range(HOURS):
            believable.move_to(begin_us + hour * HOUR_US)
            lines = []
            for number, (cursor, record) in enumerate(believable.records(records_an_hour)):
                line = record.line(cursor)
                written[record.event.did] += 1
                if number % RARE_EVERY == RARE_EVERY // 2:
                    line, rare = _as_rare(line), rare + 1
                lines.append(line + b"\n")
            plain = folder / f"{hour}.jsonl"
            plain.write_bytes(b"".join(lines))
            raw_bytes += plain.stat().st_size
            pending.append(pool.submit(write_object, plain, folder, previous))
            previous = cursor
        names = [each.result() for each in pending]
    median_did, median_records = written.most_common()[len(written) // 2]
    return Day(
        folder=folder,
        names=names,
        records=HOURS * records_an_hour,
        raw_bytes=raw_bytes,
        size=sum((folder / name.key).stat().st_size for name in names),
        dids=len(written),
        median_did=median_did,
        median_records=median_records,
        rare_records=rare,
    )


def write_object(plain: Path, folder: Path, previous: int) -> Name:
    """Make an hour's object of its plain file, which is deleted, where an archive has it."""
    making = folder / ".making"
    with plain.open("rb") as lines, making.open("w+b") as file:
        writer = ObjectWriter(file, frame_bytes=FRAME_BYTES, pause=lambda: None)
        for line in lines:
            writer.add(line, head_of_line(line))
        writer.close_frame()
        name = writer.finish(previous=previous, instance="benchmark", upstreams=[], gaps=[])
    target = folder / name.key
    target.parent.mkdir(parents=True, exist_ok=True)
    making.rename(target)
    plain.unlink()
    return name


def lines_of_hour(hour: int, *, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of lines: the same records over and over, with the cursors of an hour."""
    lines = [line[_CURSOR_END:] + b"\n" for _, line in Believable().lines(REPEATED)]
    for number in range(HOUR_US // STEP_US):
        line = b'{"cursor":%d%b' % (hour + 1 + number * STEP_US, lines[number % REPEATED])
        yield line
        size -= len(line)
        if size <= 0:
            return


def _as_rare(line: bytes) -> bytes:
    """Return a post's line as that of a record of the other collection: URI, commit and record."""
    assert head_cursor(line[:HEAD_BYTES]), "a line begins with its cursor"
    rare, post = RARE.encode(), POST.encode()
    for before in (b"/", b'"collection":"', b'"$type":"'):
        line = line.replace(before + post, before + rare, 1)
    return line
