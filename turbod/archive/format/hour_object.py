"""An hour's object: zstd frames of lines, the index, the seek table. Pure.

    zstd frame, zstd frame, ...         content size and checksum on, whole lines each
    skippable frame 0x184D2A5D          the index as JSON, its own checksum as the last key
    skippable frame 0x184D2A5E          the seek table of Zstandard's seekable format

The seek table's last entry is the index, with decompressed size 0.
"""

import struct
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Final

import msgspec
import zstandard

from turbod.archive.format.index import OTHERS, OTHERS_FORMAT, Frame, Index
from turbod.archive.format.names import Name
from turbod.cursor import hour_name
from turbod.eventlog.chunk import Gap
from turbod.eventlog.line import cursor_of

# Measured by `scripts/bench small`; the table is in docs/benchmarks.md. Bigger frames are smaller
# in all and take longer to read one of. A match of five bytes costs more than it saves in text that
# is full of random identifiers: from six on, an object is 2 % smaller.
FRAME_BYTES: Final = 14 * 1024 * 1024  # of lines; a frame ends with the line that fills it
LEVEL: Final = 10
WINDOW_LOG: Final = 24
MIN_MATCH: Final = 6
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
LEAST_LINE_BYTES: Final = 64  # no record is shorter: millions of lines are not made of few bytes
MAX_INDEX_BYTES: Final = 16 * 1024 * 1024
# What is decoded at one go holds the interpreter: 40 ms for a million values that are passed over,
# 1 ms for 2,000 that are kept. So what has more commas is refused, or taken to name OTHERS only.
MAX_FRAME_COMMAS: Final = 1_000_000  # in all frames together
MAX_LIST_COMMAS: Final = 20_000  # in gaps, and in upstreams
MAX_NAME_COMMAS: Final = 5_000  # in the collections of a frame, and in those of the hour
TAIL_BYTES: Final = 512 * 1024  # what is read first: holds index and seek table of most hours
INDEX_MAGIC: Final = 0x184D2A5D
SEEK_TABLE_MAGIC: Final = 0x184D2A5E
SEEKABLE_MAGIC: Final = 0x8F92EAB1

_CHECKSUM_BYTES: Final = len(',"index_sha256":""}') + 64

_header = struct.Struct("<II")  # a skippable frame's: magic number, bytes behind
_entry = struct.Struct("<II")  # of the seek table: compressed size, decompressed size
_footer = struct.Struct("<IBI")  # number of entries, descriptor, magic number
_encode = msgspec.json.Encoder().encode


class _Format(msgspec.Struct):
    format: int


class _Outline(Index, frozen=True):
    """An index of which whatever may be long is yet to be decoded."""

    collections: msgspec.Raw  # type: ignore[assignment]  # in place of what they decode to
    frames: msgspec.Raw  # type: ignore[assignment]
    gaps: msgspec.Raw  # type: ignore[assignment]
    upstreams: msgspec.Raw  # type: ignore[assignment]


class _VagueFrame(Frame, frozen=True):
    """A frame that names too many collections."""

    collections: msgspec.Raw  # type: ignore[assignment]  # passed over


_decode_format = msgspec.json.Decoder(_Format).decode
_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_collections = msgspec.json.Decoder(dict[str, int]).decode
_decode_frames = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_frame = msgspec.json.Decoder(Frame).decode
_decode_vague_frame = msgspec.json.Decoder(_VagueFrame).decode
_decode_gaps = msgspec.json.Decoder(list[Gap]).decode
_decode_upstreams = msgspec.json.Decoder(list[str]).decode


class Damaged(ValueError):
    """Bytes are not what an object of the archive has there: one line that says what is wrong."""


def compressor() -> zstandard.ZstdCompressor:
    """Return what makes frames, one after the other; it holds some memory until it is dropped."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        window_log=WINDOW_LOG,
        min_match=MIN_MATCH,
        write_content_size=True,
        write_checksum=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def ending(index: Index) -> bytes:
    """Return what stands behind the frames: the index and the seek table."""
    text = _encode(index)[:-1]
    data = text + _checksum(text)
    skippable = _header.pack(INDEX_MAGIC, len(data)) + data
    sizes = [(frame.size, frame.raw_bytes) for frame in index.frames]
    return skippable + seek_table([*sizes, (len(skippable), 0)])


def seek_table(sizes: Sequence[tuple[int, int]]) -> bytes:
    """Return the seek table of frames with these sizes, compressed and not."""
    entries = b"".join(_entry.pack(*pair) for pair in sizes)
    footer = _footer.pack(len(sizes), 0, SEEKABLE_MAGIC)
    return _header.pack(SEEK_TABLE_MAGIC, len(entries) + len(footer)) + entries + footer


def index_span(tail: bytes, *, size: int) -> tuple[int, int]:
    """Return offset and size of the skippable frame that holds the index.

    `tail` is the last min(size, TAIL_BYTES) bytes of an object of `size` bytes.

    Raises:
        Damaged: it does not end as an object does.
    """
    sizes = _seek_table(tail)
    index_size, index_raw = sizes[-1]
    table = _header.size + len(sizes) * _entry.size + _footer.size
    if index_raw or sum(compressed for compressed, _ in sizes) + table != size:
        raise Damaged("the seek table does not agree with the object's size")
    if not _header.size < index_size <= MAX_INDEX_BYTES:
        raise Damaged(f"an index of {index_size} bytes")
    return size - table - index_size, index_size


def read_index(data: bytes, name: Name, *, pause: Callable[[], None] = lambda: None) -> Index:
    """Read the skippable frame that holds the index of the object called `name`.

    It takes 4 ms for each MB, and calls `pause` after each frame.

    Raises:
        Damaged: it is none, contradicts itself or the name, or is of a later format.
    """
    if len(data) < _header.size or _header.unpack_from(data) != (
        INDEX_MAGIC,
        len(data) - _header.size,
    ):
        raise Damaged("no index where the seek table says it is")
    text = data[_header.size :]
    body = text[:-_CHECKSUM_BYTES]
    if text[-_CHECKSUM_BYTES:] != _checksum(body):
        raise Damaged("the index has another SHA-256 than the one at its end")
    try:
        written = _decode_format(text).format
        if written > OTHERS_FORMAT:
            known = f"this turbod reads up to {OTHERS_FORMAT}: update turbod"
            raise Damaged(f"its format is {written}; {known}")
        pause()
        index = _whole(_decode_outline(text), pause)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"the index cannot be read: {error}") from None
    _check_name(index, name)
    _check_frames(index)
    _check_gaps(index, name)
    return index


def check_seek_table(index: Index, tail: bytes) -> None:
    """Compare the seek table at the end of `tail` with the index.

    Raises:
        Damaged: it tells of other frames, so that not every byte is accounted for.
    """
    *frames, _ = _seek_table(tail)
    if frames != [(frame.size, frame.raw_bytes) for frame in index.frames]:
        raise Damaged("the seek table does not agree with the index")


def read_frame(data: bytes, frame: Frame) -> bytes:
    """Return the lines of a frame from its bytes in the object.

    Raises:
        Damaged: they are not what the index says.
    """
    # zstd's own checksum is of the lines: it would miss a bit of which the decoder makes nothing.
    if sha256(data).hexdigest() != frame.sha256:
        raise Damaged(f"the frame at {frame.offset} has another SHA-256 than the index says")
    lines = _decompressed(data, frame)
    if count_lines(lines, most=frame.records) != frame.records:
        raise Damaged(f"the frame at {frame.offset} has not {frame.records} lines")
    if _edges(lines) != (frame.first, frame.last):
        raise Damaged(f"the frame at {frame.offset} has other cursors than the index says")
    return lines


def _whole(outline: _Outline, pause: Callable[[], None]) -> Index:
    """Decode what may be long."""
    frames = _decode_frames(_bounded(outline.frames, "frames", MAX_FRAME_COMMAS))
    decoded = {
        "collections": _collections(outline),
        "frames": [_frame(raw, pause) for raw in frames],
        "gaps": _decode_gaps(_bounded(outline.gaps, "gaps", MAX_LIST_COMMAS)),
        "upstreams": _decode_upstreams(_bounded(outline.upstreams, "upstreams", MAX_LIST_COMMAS)),
    }
    return Index(**msgspec.structs.asdict(outline) | decoded)


def _bounded(raw: msgspec.Raw, what: str, most_commas: int) -> bytes:
    data = bytes(raw)
    if data.count(b",") > most_commas:
        raise Damaged(f"the index has too many {what}")
    return data


def _collections(outline: _Outline) -> dict[str, int]:
    data = bytes(outline.collections)
    if data.count(b",") > MAX_NAME_COMMAS:
        return {OTHERS: outline.records}
    return _decode_collections(data)


def _frame(raw: msgspec.Raw, pause: Callable[[], None]) -> Frame:
    pause()
    data = bytes(raw)
    if data.count(b",") <= MAX_NAME_COMMAS:
        return _decode_frame(data)
    vague = _decode_vague_frame(data)
    return Frame(**msgspec.structs.asdict(vague) | {"collections": [OTHERS]})


def count_lines(lines: bytes, *, most: int) -> int:
    """Return how many line breaks there are: a sixth of the time that `bytes.count` takes.

    Where there are more than `most`, it ends with one more than that.
    """
    find, count, position = lines.find, 0, 0
    while count <= most and (position := find(b"\n", position) + 1):
        count += 1
    return count


def _checksum(text: bytes) -> bytes:
    """Return the end of the index's JSON, behind `text`: the SHA-256 of all bytes before it."""
    return b',"index_sha256":"%b"}' % sha256(text).hexdigest().encode()


def _decompressed(data: bytes, frame: Frame) -> bytes:
    try:
        claimed = zstandard.get_frame_parameters(data).content_size
        if claimed != frame.raw_bytes:  # before memory is taken for it
            raise Damaged(f"the frame at {frame.offset} is of another size than the index says")
        lines = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged(f"the frame at {frame.offset} cannot be decompressed: {error}") from None
    if not lines.endswith(b"\n"):
        raise Damaged(f"the frame at {frame.offset} does not end with a line")
    return lines


def _edges(lines: bytes) -> tuple[int, int]:
    """Return the cursors of the first and the last line, 0 where there is none."""
    try:
        first = cursor_of(lines[: lines.index(b"\n")])
        return first, cursor_of(lines[lines.rfind(b"\n", 0, -1) + 1 : -1])
    except (ValueError, RecursionError):
        return 0, 0


def _seek_table(tail: bytes) -> list[tuple[int, int]]:
    if len(tail) < _footer.size:
        raise Damaged("too short for an object")
    count, descriptor, magic = _footer.unpack_from(tail, len(tail) - _footer.size)
    if magic != SEEKABLE_MAGIC or descriptor:
        raise Damaged("no seek table at the end: cut off, or no object of an archive")
    behind = count * _entry.size + _footer.size
    begin = len(tail) - behind - _header.size
    if count < 2 or begin < 0 or _header.unpack_from(tail, begin) != (SEEK_TABLE_MAGIC, behind):  # noqa: PLR2004 - a frame and the index
        raise Damaged("the seek table is damaged")
    entries = tail[begin + _header.size : len(tail) - _footer.size]
    return list(_entry.iter_unpack(entries))


def _check_name(index: Index, name: Name) -> None:
    if (index.first, index.last) != (name.first, name.last) or index.hour != hour_name(name.first):
        raise Damaged(f"the index is that of {index.first}-{index.last}, not of {name.file}")
    if not 0 <= index.previous < index.first:
        raise Damaged("the index contradicts itself: previous")


def _check_frames(index: Index) -> None:
    frames = index.frames
    if not frames:
        raise Damaged("the index contradicts itself: no frames")
    edges = (frames[0].first, frames[-1].last)
    sound = {
        "frames": all(map(_is_possible, frames)) and _offsets(frames) == [f.offset for f in frames],
        "cursors": edges == (index.first, index.last)
        and all(former.last < latter.first for former, latter in pairwise(frames)),
        "records": index.records == sum(frame.records for frame in frames),
        "collections": index.records == sum(index.collections.values())
        and all(count > 0 for count in index.collections.values()),
        "raw_bytes": index.raw_bytes == sum(frame.raw_bytes for frame in frames),
    }
    if wrong := [word for word, is_sound in sound.items() if not is_sound]:
        raise Damaged(f"the index contradicts itself: {', '.join(wrong)}")


def _check_gaps(index: Index, name: Name) -> None:
    gaps = index.gaps
    is_sound = all(
        0 <= gap.after < gap.before and index.first <= gap.before <= name.end for gap in gaps
    ) and all(former.before < latter.before for former, latter in pairwise(gaps))
    if not is_sound:
        raise Damaged("the index contradicts itself: gaps")


def _is_possible(frame: Frame) -> bool:
    return (
        frame.size > 0
        and 0 < frame.raw_bytes <= MAX_FRAME_BYTES
        and 0 < frame.records <= frame.raw_bytes // LEAST_LINE_BYTES
        and frame.last - frame.first >= frame.records - 1
    )


def _offsets(frames: Sequence[Frame]) -> list[int]:
    return [0, *accumulate(frame.size for frame in frames)][:-1]
