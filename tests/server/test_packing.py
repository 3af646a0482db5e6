import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from tests.server.harness import did, post, record
from turbod.eventlog.chunk import Chunk, merged
from turbod.eventlog.tail import Tail
from turbod.filter import EVERYTHING, Filter
from turbod.frames import MAX_MESSAGE_BYTES
from turbod.server.endpoints import TURBOSTREAM_JSON
from turbod.server.interests import Interest
from turbod.server.packing import PIECE_BYTES, Frames, Packer, View

FIRST = 10**15


def chunk(start: int, count: int, *, padding: int = 0) -> Chunk:
    """Records with the cursors FIRST + start + 1 and on."""
    records = [
        record(post(n, author=did(n % 5)), padding=padding) for n in range(start, start + count)
    ]
    cursors = range(FIRST + start + 1, FIRST + start + count + 1)
    return Chunk(
        [one.pieces(cursor) for one, cursor in zip(records, cursors, strict=True)],
        after=FIRST + start,
        last=cursors[-1],
        heads=[one.head(cursor) for one, cursor in zip(records, cursors, strict=True)],
        ordinal=start,
    )


def view(chosen: Filter = EVERYTHING, *, users: int = 1, batch: int = 100) -> View:
    interest = Interest(chosen)
    interest.users = users
    return View(interest, framing=TURBOSTREAM_JSON, batch=batch, compress=False)


def piece(
    packer: Packer, one: Chunk, after: int, wanted: View, *, max_bytes: int = PIECE_BYTES
) -> Frames | None:
    """The next piece, in its frames."""
    found = packer.piece(one, after, wanted, max_bytes=max_bytes)
    return None if found is None else wanted.framed(found)


def messages(frames: Frames | None) -> list[list[dict[str, Any]]]:
    """What a client makes of frames."""
    client, found, text = Connection(ConnectionType.CLIENT), [], ""
    client.receive_data(b"" if frames is None else b"".join(frames.parts))
    for event in client.events():
        assert isinstance(event, TextMessage)
        text += event.data
        if event.message_finished:
            found.append(json.loads(text))
            text = ""
    assert not text
    return found


def cursors(frames: Frames | None) -> list[int]:
    return [one["cursor"] - FIRST for message in messages(frames) for one in message]


def test_all_who_want_everything_are_sent_the_same_bytes() -> None:
    packer, one = Packer(), chunk(0, 10)
    first = packer.live(one, FIRST, view())
    assert packer.live(one, FIRST, view()) is not first  # another interest
    shared = view()
    assert packer.live(one, FIRST, shared) is packer.live(one, FIRST, shared)
    assert first is not None
    assert (first.messages, first.records, first.last) == (1, 10, FIRST + 10)


def test_equal_filters_are_sent_the_same_bytes_and_a_lonely_one_keeps_nothing() -> None:
    packer, one = Packer(), chunk(0, 10)
    lonely, shared = (
        view(Filter(dids=frozenset({did(1)}))),
        view(Filter(dids=frozenset({did(1)})), users=2),
    )
    assert cursors(packer.live(one, FIRST, lonely)) == [2, 7]
    assert not one.texts
    assert packer.live(one, FIRST, shared) is packer.live(one, FIRST, shared)
    assert cursors(packer.live(one, FIRST, shared)) == [2, 7]
    other = view(Filter(dids=frozenset({did(2)})), users=2)
    assert cursors(packer.live(one, FIRST, other)) == [3, 8]


def test_who_stands_inside_a_chunk_gets_the_rest_and_spoils_nothing_for_others() -> None:
    packer, one, shared = Packer(), chunk(0, 10), view()
    assert cursors(packer.live(one, FIRST + 6, shared)) == [7, 8, 9, 10]
    assert cursors(packer.live(one, FIRST, shared)) == list(range(1, 11))
    assert cursors(packer.live(one, FIRST + 9, shared)) == [10]


def test_a_merged_chunk_is_not_taken_for_its_last_part() -> None:
    packer, shared, tail = Packer(), view(), Tail(memory_bytes=2**20, start=FIRST)
    parts = [chunk(n, 1) for n in range(3)]
    for part in parts:
        tail.publish(part)
    assert cursors(packer.live(parts[-1], FIRST + 2, shared)) == [3]
    assert cursors(packer.live(merged(parts), FIRST, shared)) == [1, 2, 3]
    assert cursors(packer.live(parts[-1], FIRST + 2, shared)) == [3]


def test_what_is_built_is_forgotten_when_what_is_withheld_changes() -> None:
    hidden: set[str] = set()
    packer = Packer(withhold=lambda head, line: None if head.did in hidden else line)
    one, shared = chunk(0, 5), view()
    assert cursors(packer.live(one, FIRST, shared)) == [1, 2, 3, 4, 5]
    hidden.add(did(2))
    packer.forget()
    assert cursors(packer.live(one, FIRST, shared)) == [1, 2, 4, 5]
    assert cursors(piece(packer, one, FIRST, shared)) == [1, 2, 4, 5]


def test_what_is_for_one_alone_comes_by_the_piece() -> None:
    """A thousand who stand inside chunks and take nothing would hold half a GB else."""
    packer, one, alone = Packer(), chunk(0, 100, padding=3_000), view()
    position, found = FIRST + 1, []
    while (sent := packer.live(one, position, alone)) is not None:
        assert len(sent) <= PIECE_BYTES + 10
        found += cursors(sent)
        position = sent.last
    assert found == list(range(2, 101))
    assert position == one.last
    assert not one.texts


def test_behind_the_last_piece_nothing_of_the_chunk_is_looked_at_again() -> None:
    few = Filter(dids=frozenset({did(1)}))
    for users in (1, 2):
        frames = Packer().live(chunk(0, 10), FIRST, view(few, users=users))
        assert frames is not None
        assert cursors(frames) == [2, 7]
        assert frames.last == FIRST + 10


def test_the_whole_of_a_chunk_is_sent_as_it_lies_in_memory() -> None:
    """To copy it would cost as much again as to send it."""
    packer, one = Packer(), chunk(0, 100, padding=3_000)
    whole = packer.piece(one, FIRST, view(), max_bytes=MAX_MESSAGE_BYTES)
    assert whole is not None
    assert whole.texts[0] is one.array
    assert (whole.last, whole.records, len(whole.texts)) == (one.last, 100, 1)
    assert view().framed(whole).parts[1] is one.array
    for wanted, after in ((view(batch=99), FIRST), (view(), FIRST + 1)):
        part = packer.piece(one, after, wanted, max_bytes=MAX_MESSAGE_BYTES)
        assert part is not None
        assert part.records == 99
    hiding = Packer(withhold=lambda head, line: None if head.did == did(2) else line)
    assert len(cursors(piece(hiding, one, FIRST, view(), max_bytes=MAX_MESSAGE_BYTES))) == 80


@pytest.mark.parametrize("max_bytes", [PIECE_BYTES, MAX_MESSAGE_BYTES])
@pytest.mark.parametrize("padding", [0, 3_000, 70_000])
@given(
    after=st.integers(0, 20),
    batch=st.integers(1, 100),
    chosen=st.sampled_from(
        [EVERYTHING, Filter(dids=frozenset({did(1), did(3)})), Filter(about=frozenset({did(1)}))]
    ),
)
def test_pieces_together_are_what_a_scan_selects(
    padding: int, max_bytes: int, after: int, batch: int, chosen: Filter
) -> None:
    packer, one, wanted = Packer(), chunk(0, 20, padding=padding), view(chosen, batch=batch)
    position, found = FIRST + after, []
    while (sent := piece(packer, one, position, wanted, max_bytes=max_bytes)) is not None:
        sizes = [len(message) for message in messages(sent)]
        assert max(sizes) <= batch
        assert (sent.messages, sent.records) == (len(sizes), sum(sizes))
        assert len(sent) <= max_bytes + 10 * len(sizes) or sent.records == 1
        found += cursors(sent)
        position = sent.last
    assert found == [n + 1 for n in range(after, 20) if chosen.matches(one.heads[n], one.size(n))]
