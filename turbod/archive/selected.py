"""The lines of a frame that were asked for, exactly. For threads: it takes milliseconds."""

from bisect import bisect_right
from collections.abc import Sequence

from turbod.archive.hour_object import Damaged, count_lines, read_frame
from turbod.archive.index import Frame
from turbod.archive.parts import Asked
from turbod.event import Malformed
from turbod.eventlog.line import cursor_of
from turbod.filter import EVERYTHING, Filter
from turbod.record import head_of_line


def selected(data: bytes, frame: Frame, *, asked: Asked, filter: Filter) -> tuple[bytes, int]:  # noqa: A002 - what it is called everywhere
    """Decompress a frame; return the lines that were asked for and how many they are.

    Raises:
        Damaged: the frame is not what the index says, or holds a line that is no record.
    """
    lines = _between(read_frame(data, frame), frame, asked)
    if filter == EVERYTHING:
        return lines, count_lines(lines)
    try:
        chosen = [line for line in lines.split(b"\n")[:-1] if _matches(line, filter)]
    except (Malformed, ValueError) as error:
        raise Damaged(f"the frame at {frame.offset} holds what is no record: {error}") from None
    return _joined(chosen), len(chosen)


def _matches(line: bytes, filter: Filter) -> bool:  # noqa: A002 - as above
    return filter.matches(head_of_line(line), len(line))


def _between(lines: bytes, frame: Frame, asked: Asked) -> bytes:
    """Cut off what lies outside of the cursors that were asked for."""
    if frame.last <= asked.until and frame.first > asked.after:
        return lines
    every = lines.split(b"\n")[:-1]
    begin = bisect_right(every, asked.after, key=cursor_of)
    return _joined(every[begin : bisect_right(every, asked.until, key=cursor_of)])


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"\n".join((*lines, b""))
