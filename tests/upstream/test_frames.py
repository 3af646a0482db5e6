"""Frames are read alike in whatever pieces they come, and nothing a server sends breaks us."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto import events as ws
from wsproto.connection import Connection

from tests.upstream.fake_jetstream import frame
from turbod.upstream.frames import (
    MAX_TEXT_BYTES,
    FrameReader,
    ProtocolError,
    close,
    ping,
    pong,
)

texts = st.lists(st.one_of(st.binary(max_size=300), st.integers(65530, 65540).map(bytes)))


def fed(reader: FrameReader, wire: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    pieces = [wire[a:b] for a, b in pairwise(places)]
    return [message for piece in pieces for message in reader.feed(piece)]


@given(texts, st.lists(st.integers(0, 10**6), max_size=30))
def test_texts_come_out_as_they_went_in_whatever_the_pieces(
    messages: list[bytes], cuts: list[int]
) -> None:
    wire = b"".join(frame(message) for message in messages)
    assert fed(FrameReader(), wire, cuts) == messages


@given(
    st.lists(st.tuples(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.booleans())),
    st.lists(st.integers(0, 10**6), max_size=30),
)
def test_messages_in_parts_with_pings_between_them_are_joined(
    messages: list[tuple[list[bytes], bool]], cuts: list[int]
) -> None:
    wire, texts, pings, binaries = b"", [], 0, 0
    for parts, is_text in messages:
        for i, part in enumerate(parts):
            final = 0x80 if i == len(parts) - 1 else 0
            opcode = 0 if i else (1 if is_text else 2)
            wire += frame(part, final | opcode) + frame(b"p", 0x89)
            pings += 1
        binaries += not is_text
        if is_text:
            texts.append(b"".join(parts))
    reader = FrameReader()
    assert fed(reader, wire, cuts) == texts
    assert len(reader.pings) == pings
    assert reader.unreadable == ["frame"] * binaries


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 2),
    cuts=st.lists(st.integers(0, 10**7), max_size=20),
    in_parts=st.booleans(),
)
def test_what_is_too_large_is_passed_over_and_the_next_is_read(
    count: int, cuts: list[int], *, in_parts: bool
) -> None:
    large = bytes(MAX_TEXT_BYTES + 1)
    if in_parts:
        wire = frame(large[: MAX_TEXT_BYTES // 2 + 1], 1) * 1
        wire += frame(large[: MAX_TEXT_BYTES // 2 + 1], 0x80)
    else:
        wire = frame(large)
    reader = FrameReader()
    assert fed(reader, (frame(b"before") + wire) * count + frame(b"after"), cuts) == [
        *[b"before"] * count,
        b"after",
    ]
    assert reader.unreadable == ["size"] * count
    assert reader._held < 100


def test_one_of_exactly_the_limit_passes() -> None:
    message = bytes(MAX_TEXT_BYTES)
    assert FrameReader().feed(frame(message)) == [message]


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=10))
def test_no_bytes_raise_anything_but_a_protocol_error(wire: bytes, cuts: list[int]) -> None:
    with suppress(ProtocolError):
        fed(FrameReader(), wire, cuts)


@pytest.mark.parametrize(
    "wire",
    [b"\x83\x00", b"\xf1\x00", b"\x81\x80", b"\x81\x7f" + b"\xff" * 8, b"\x80\x00", b"\x09\x00"],
)
def test_what_no_server_may_send_is_refused(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(wire)


def test_a_close_ends_reading_and_keeps_code_and_reason() -> None:
    reader = FrameReader()
    assert reader.feed(frame(b"a") + frame(b"\x03\xe9bye", 0x88) + frame(b"b")) == [b"a"]
    assert reader.closed == (1001, "bye")


@given(st.binary(max_size=125))
def test_a_foreign_server_understands_what_we_send(payload: bytes) -> None:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(ping(payload) + pong(payload) + close(1000))
    first, second, third = server.events()
    assert isinstance(first, ws.Ping)
    assert isinstance(second, ws.Pong)
    assert isinstance(third, ws.CloseConnection)
    assert (first.payload, second.payload, third.code) == (payload, payload, 1000)
