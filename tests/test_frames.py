import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, TextMessage

from turbod import frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_another_implementation_reads_our_frames(size: int) -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(
        frames.frame(b"t" * size)
        + frames.frame(b"b" * size, frames.BINARY)
        + frames.frame(b"p", frames.PING)
    )
    text, binary = "", b""
    pings = 0
    for event in client.events():
        if isinstance(event, TextMessage):
            text += event.data
        elif isinstance(event, BytesMessage):
            binary += event.data
        elif isinstance(event, Ping):
            pings += 1
    assert (text, binary, pings) == ("t" * size, b"b" * size, 1)


def test_a_compressed_text_is_one_frame_that_tells_its_size() -> None:
    text = b'[{"a":1}]' * 1000
    packed = frames.compressed(text)
    assert zstandard.get_frame_parameters(packed).content_size == len(text)
    assert zstandard.ZstdDecompressor().decompress(packed) == text
    assert len(packed) < len(text) / 10


@given(
    sizes=st.lists(st.integers(2, 60), max_size=60),
    batch=st.integers(1, 10),
    max_bytes=st.integers(4, 100),
)
def test_runs_keep_every_line_in_order_within_both_bounds(
    sizes: list[int], batch: int, max_bytes: int
) -> None:
    records = [(n, b"1" * size) for n, size in enumerate(sizes, 1)]
    cut = list(frames.runs(records, batch=batch, max_bytes=max_bytes))
    assert [line for run in cut for line in run.lines] == [line for _, line in records]
    assert [run.last for run in cut] == [
        sum(len(run.lines) for run in cut[: n + 1]) for n in range(len(cut))
    ]
    for run, following in zip(cut, [*cut[1:], None], strict=False):
        size = len(frames.array(run.lines))
        assert 1 <= len(run.lines) <= batch
        assert size <= max_bytes or len(run.lines) == 1
        if following is not None:  # no message is smaller than it need be
            assert len(run.lines) == batch or size + 1 + len(following.lines[0]) > max_bytes


def test_an_array_of_lines_is_json() -> None:
    assert json.loads(frames.array([b'{"a":1}', b'{"b":2}'])) == [{"a": 1}, {"b": 2}]
