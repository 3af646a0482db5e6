"""Lines and hour files, without a disk."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventlog.samples import HOUR, T0, line
from turbod.eventlog.chunk import Gap
from turbod.eventlog.hour_file import (
    gap_line,
    gaps_name,
    parse_name,
    read_gaps,
    records_name,
    sound_bytes,
)
from turbod.eventlog.line import HEAD_BYTES, cursor_of, head_cursor, sound_cursor


def test_a_cursor_is_read_from_the_first_bytes() -> None:
    text = line(T0 + 7)
    assert head_cursor(text[:HEAD_BYTES]) == cursor_of(text) == sound_cursor(text) == T0 + 7
    assert head_cursor(text[: HEAD_BYTES - 1]) == 0


def test_a_line_that_looks_otherwise_is_parsed() -> None:
    text = json.dumps(dict(reversed(json.loads(line(T0 + 7)).items()))).encode()
    assert head_cursor(text) == 0
    assert cursor_of(text) == sound_cursor(text) == T0 + 7


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"\0" * 4096,
        b"{}",
        b"[1]",
        line(T0)[:-1],
        line(T0) + b"}",
        line(T0).replace("é".encode(), b"\xe9"),
        line(T0).replace("é".encode(), b"\0"),
        line(T0).replace(b"create", b"cre\0\0\0"),
        line(T0).replace(b"%d" % T0, b"12"),
        line(T0).replace(b"%d" % T0, b"%d" % 2**53),
        line(T0).replace(b"{}", b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_a_line_that_is_not_whole_has_no_cursor(spoilt: bytes) -> None:
    assert sound_cursor(spoilt) == 0


def plainly_sound(block: bytes) -> tuple[int, int]:
    """Return what sound_bytes should, found in the plainest way."""
    kept, last = 0, T0 - 1
    for text in block.split(b"\n")[:-1]:
        try:
            cursor = json.loads(text.decode())["cursor"]
        except (ValueError, KeyError):
            break
        if cursor <= last:
            break
        kept, last = kept + len(text) + 1, cursor
    return kept, last


@given(st.data())
def test_only_whole_lines_before_the_first_spoilt_byte_are_sound(data: st.DataObject) -> None:
    lines = data.draw(st.integers(0, 5))
    block = b"".join(line(T0 + 10 * number) + b"\n" for number in range(lines))
    cut = data.draw(st.integers(0, len(block)))
    junk = data.draw(st.sampled_from([b"", b"\0" * 4096, b"\n\n", b"\xff{}\n", line(T0) + b"\n"]))
    torn = block[:cut] + junk
    assert sound_bytes(torn, hour=T0, last=0) == plainly_sound(torn)
    assert sound_bytes(torn, hour=T0, last=0)[0] >= block[:cut].rfind(b"\n") + 1


def test_a_cursor_of_another_hour_is_not_sound() -> None:
    for cursor in (T0 - 1, T0 + HOUR):
        assert sound_bytes(line(cursor) + b"\n", hour=T0, last=0)[0] == 0


def test_names_tell_hour_and_kind_and_nothing_else_is_ours() -> None:
    assert records_name(T0) == "2026-11-20T10.jsonl"
    assert parse_name(records_name(T0)) == (T0, False)
    assert parse_name(gaps_name(T0)) == (T0, True)
    for name in ("2026-11-20T10.jsonl.zst", "2026-13-20T10.jsonl", "x2026-11-20T10.jsonl", "a"):
        assert parse_name(name) is None


def test_gaps_survive_a_torn_line_behind_them() -> None:
    gap = Gap(1, 3, 'a "quoted"\nmessage')
    assert read_gaps(gap_line(gap) + b'{"after":3,"bef') == [gap]
    assert gap_line(gap).count(b"\n") == 1
