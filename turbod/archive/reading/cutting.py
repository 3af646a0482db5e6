"""A frame's lines as chunks, and those of them that a filter selects. Pure.

Either takes milliseconds and belongs in a thread; `pause` is called after every fraction of one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from operator import lt
from typing import Final

import msgspec

from turbod.archive.format.hour_object import Damaged
from turbod.archive.reading.selection import Selection
from turbod.envelope import Malformed
from turbod.eventlog.chunk import MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, Chunk, Gap, Lines
from turbod.eventlog.cutter import Cutter
from turbod.eventlog.hour_file import LINE_BYTES
from turbod.eventlog.line import HEAD_BYTES, cursor_of, head_cursor
from turbod.record import head_of_line

_LINES_A_BURST: Final = 1000  # 0.2 ms of looking for line breaks

Item = Chunk | Gap


class _Line(msgspec.Struct):
    cursor: int


_decode_lines = msgspec.json.Decoder(list[_Line]).decode


class Selected(msgspec.Struct, frozen=True):
    """What was selected of a frame.

    Attributes:
        items: chunks and gaps, in order.
        last: the position behind it.
        size: the bytes of the chunks.
    """

    items: list[Item]
    last: int
    size: int


def cut(
    lines: bytes,
    *,
    after: int,
    gaps: Sequence[Gap],
    is_checked: bool = False,
    pause: Callable[[], None],
) -> list[Chunk]:
    """Return a frame's lines as chunks: 3 us a record, 1 us of those that are checked already.

    Args:
        lines: whole ones with their breaks.
        after: the position before the first.
        gaps: those that stand before records in here, in order; each begins a chunk.
        is_checked: whether each line is known to be whole JSON with a cursor above the one before.
        pause: see above.

    Raises:
        Damaged: a line is not. What clients are sent as it lies would be told by none of them from
            a fault of the server.
    """
    ends = _ends(lines, pause)
    gap_at = _places(lines, ends, gaps)
    borders = [*sorted(gap_at), len(ends)]
    chunks: list[Chunk] = []
    begin = start = 0
    while begin < len(ends):
        border = borders[bisect_right(borders, begin)]
        most = min(border, begin + MAX_CHUNK_RECORDS)
        # The array has one byte more than its lines: a bracket on either side, a break less.
        stop = max(bisect_right(ends, start + MAX_CHUNK_BYTES - 1, begin, most), begin + 1)
        end = ends[stop - 1]
        if end - start > LINE_BYTES:
            raise Damaged(f"a line of {end - start} bytes")
        text = Lines(
            b"".join((b"[", lines[start : end - 1].replace(b"\n", b","), b"]")),
            [each - start for each in ends[begin:stop]],
        )
        last = _cursor(lines, ends, stop - 1) if is_checked else _last_cursor(text, after)
        chunks.append(Chunk(text, after=after, last=last, gap=gap_at.get(begin)))
        begin, start, after = stop, end, last
        pause()
    return chunks


def select(
    chunks: Sequence[Chunk],
    after: int,
    selection: Selection,
    *,
    max_bytes: int,
    pause: Callable[[], None],
) -> Selected:
    """Return what a filter selects of a frame's chunks above a cursor, exactly.

    About `max_bytes` of it: the last chunk that is looked at is looked at whole.

    Raises:
        Damaged: a line that the filter may select is no record.
    """
    items: list[Item] = []
    cutter = Cutter(after=after)
    size = 0
    for chunk in chunks:
        if chunk.last <= after:
            continue
        if size + cutter.size >= max_bytes:
            break
        if chunk.gap is not None and chunk.gap.before > after:
            cutter.close()
            items += [*cutter.chunks, chunk.gap]
            size += cutter.size
            cutter = Cutter(after=after)
        _select(chunk, after, selection, cutter, pause)
        after = chunk.last
    cutter.close()
    return Selected([*items, *cutter.chunks], after, size + cutter.size)


def whole(chunks: Sequence[Chunk], after: int, *, max_bytes: int) -> Selected:
    """Return the chunks that reach above a cursor, about `max_bytes` of them."""
    items: list[Item] = []
    size = 0
    begin = bisect_right(chunks, after, key=_last)
    for chunk in chunks[begin:]:
        if size >= max_bytes:
            break
        items.append(chunk)
        size += len(chunk.array)
        after = chunk.last
    return Selected(items, after, size)


def _select(
    chunk: Chunk, after: int, selection: Selection, cutter: Cutter, pause: Callable[[], None]
) -> None:
    """Give the cutter every record of a chunk that is selected."""
    array, ends, may_match, matches = (
        chunk.array,
        chunk.ends,
        selection.may_match,
        selection.filter.matches,
    )
    begin = chunk.count_until(after)
    start = ends[begin - 1] if begin else 0
    for end in ends[begin:]:
        if may_match(array, start + 1, end):
            line = array[start + 1 : end]
            try:
                head = head_of_line(line)
            except Malformed as error:
                raise Damaged(f"a line that is no record: {error.reason}") from None
            if matches(head, len(line)):
                cutter.add((line, b""), head.cursor, head)
            pause()
        start = end
    pause()


def _ends(lines: bytes, pause: Callable[[], None]) -> list[int]:
    """Return where each line ends, behind its break."""
    ends: list[int] = []
    find, end = lines.find, 0
    while end := find(b"\n", end) + 1:
        ends.append(end)
        if not len(ends) % _LINES_A_BURST:
            pause()
    return ends


def _places(lines: bytes, ends: Sequence[int], gaps: Sequence[Gap]) -> Mapping[int, Gap]:
    """Return the gaps by the number of the line that each stands before."""
    gap_at: dict[int, Gap] = {}
    for gap in gaps:
        number = bisect_left(
            range(len(ends)), gap.before, key=lambda each: _cursor(lines, ends, each)
        )
        if number < len(ends):
            gap_at[number] = gap
    return gap_at


def _cursor(lines: bytes, ends: Sequence[int], number: int) -> int:
    """Return a line's cursor.

    Raises:
        Damaged: it has none.
    """
    start = ends[number - 1] if number else 0
    if cursor := head_cursor(lines[start : start + HEAD_BYTES]):
        return cursor
    try:
        return cursor_of(lines[start : ends[number] - 1])
    except (ValueError, RecursionError):
        raise Damaged(f"line {number} of its lines has no cursor") from None


def _last_cursor(lines: Lines, after: int) -> int:
    """Return the last line's cursor, where all are sound: 1.5 us for a line of 3.4 KB.

    Raises:
        Damaged: one is not.
    """
    try:
        lines.array.decode()  # the decoder passes over the text of what it is not asked for
        cursors = [each.cursor for each in _decode_lines(lines.array)]
    except (ValueError, RecursionError):
        raise Damaged(f"a line behind {after} is no JSON with a cursor") from None
    if len(cursors) != len(lines.ends) or not all(map(lt, [after, *cursors], cursors)):
        raise Damaged(f"the cursors behind {after} do not rise")
    return cursors[-1]


def _last(chunk: Chunk) -> int:
    return chunk.last
