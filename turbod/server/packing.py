"""Chunks into messages ready to send, built once for all who want the same. Pure."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from turbod import frames
from turbod.eventlog.chunk import Chunk
from turbod.record import Head
from turbod.server.endpoints import Framing
from turbod.server.interests import Interest

Withhold = Callable[[Head, bytes], bytes | None]

PIECE_BYTES: Final = 64 * 1024  # of what nobody else is sent: a slow reader holds one

Compress = Callable[[bytes], bytes]


class View:
    """All that decides how records look to a subscriber: immutable.

    Attributes:
        batch: records in one message at most.
        key: equal for subscribers who are sent the same bytes.
    """

    __slots__ = ("batch", "compress", "framing", "interest", "key")

    def __init__(self, interest: Interest, *, framing: Framing, batch: int, compress: bool) -> None:
        self.interest = interest
        self.framing = framing
        self.batch = min(batch, framing.max_records)
        self.compress = compress
        self.key = (interest.serial, framing.name, self.batch, compress)

    def with_interest(self, interest: Interest) -> "View":
        """Return the same view of other records."""
        return View(interest, framing=self.framing, batch=self.batch, compress=self.compress)

    def records(self, run: frames.Run) -> bytes:
        """Return the frame of one message of records."""
        return self.frame(self.framing.records(run.lines))

    def frame(self, text: bytes) -> bytes:
        """Return the frame of a message, whatever it says."""
        if self.compress:
            return frames.frame(frames.compressed(text), frames.BINARY)
        return frames.frame(text, self.framing.opcode)

    def framed(self, piece: "Piece", compress: Compress = frames.compressed) -> "Frames":
        """Return the frames of some messages; in a thread with a compressor of its own."""
        opcode = frames.BINARY if self.compress else self.framing.opcode
        parts: list[bytes] = []
        for text in piece.texts:
            payload = compress(text) if self.compress else text
            parts += (frames.header(len(payload), opcode), payload)
        return Frames(tuple(parts), piece.last, len(piece.texts), piece.records)


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Messages of records for one subscriber, without their frames.

    Attributes:
        texts: one a message.
        last: the position behind them; the chunk's own last where no more of it is to be sent.
        records: how many records.
    """

    texts: list[bytes]
    last: int
    records: int

    def __len__(self) -> int:
        """Return how many bytes they are."""
        return sum(map(len, self.texts))


class Frames(msgspec.Struct, frozen=True, gc=False):
    """Whole frames of records, one behind the other, to be sent in one go.

    Attributes:
        parts: their bytes.
        last: the position behind them; the chunk's own last where no more of it is to be sent.
        messages: how many frames.
        records: how many records.
    """

    parts: tuple[bytes, ...]
    last: int
    messages: int
    records: int

    def __len__(self) -> int:
        """Return how many bytes they are."""
        return sum(map(len, self.parts))


def join(frame_list: Sequence[bytes], *, last: int, records: int) -> Frames:
    """Return frames as one piece."""
    return Frames((b"".join(frame_list),), last, len(frame_list), records)


def select(
    chunk: Chunk, after: int, interest: Interest, withhold: Withhold | None
) -> Iterator[tuple[int, bytes]]:
    """Yield cursor and line of each record above `after` that is to be sent."""
    start = chunk.count_until(after)
    if interest.is_everything and withhold is None:
        for index in range(start, len(chunk)):
            yield chunk.cursor(index), chunk.line(index)
        return
    heads, matches = chunk.heads, interest.filter.matches
    for index in range(start, len(chunk)):
        head = heads[index]
        if matches(head, chunk.size(index)):
            line = chunk.line(index)
            passed = line if withhold is None else withhold(head, line)
            if passed is not None:
                yield head.cursor, passed


class Packer:
    """Builds frames; those that several subscribers share are kept beside their chunk.

    Attributes:
        withhold: what a record's line becomes before it is passed on; `forget` when it changes.
    """

    def __init__(self, *, withhold: Withhold | None = None) -> None:
        self.withhold = withhold
        self._generation = 0

    def live(self, chunk: Chunk, after: int, view: View) -> Frames | None:
        """Return a chunk in memory for a subscriber who stands at `after`; None for no more.

        What others are sent too comes whole; for one alone it comes by the piece.
        """
        interest, dids = view.interest, view.interest.all_dids
        # Most of what a filter by DID is asked about is not for it.
        if dids is not None and chunk.dids is not None and chunk.dids.isdisjoint(dids):
            return None
        is_shared = after <= chunk.after and (interest.is_everything or interest.users > 1)
        if not is_shared:
            piece = self.piece(chunk, after, view)
            return None if piece is None else view.framed(piece)
        key = (self._generation, view.key)
        kept = chunk.texts.get(key)
        if isinstance(kept, Frames):
            return kept
        built = self._build(chunk, view)
        if built is not None:
            chunk.texts[key] = built
        return built

    def piece(
        self, chunk: Chunk, after: int, view: View, *, max_bytes: int = PIECE_BYTES
    ) -> Piece | None:
        """Return the next messages of a chunk for this view alone; None for no more.

        Together they have at most `max_bytes`, a single longer record apart. Room for the whole
        chunk saves whoever wants all of it the copying.
        """
        is_whole = len(chunk.array) <= max_bytes and self._is_whole_array(chunk, view)
        if is_whole and not chunk.count_until(after):
            return Piece([chunk.array], chunk.last, len(chunk))
        selected = select(chunk, after, view.interest, self.withhold)
        texts: list[bytes] = []
        size = records = last = 0
        for run in frames.runs(selected, batch=view.batch, max_bytes=max_bytes):
            text = view.framing.records(run.lines)
            if texts and size + len(text) > max_bytes:
                break
            texts.append(text)
            size, records, last = size + len(text), records + len(run.lines), run.last
            if size > max_bytes // 2:
                break  # another would be built in vain
        else:
            last = chunk.last
        return Piece(texts, last, records) if texts else None

    def forget(self) -> None:
        """Use nothing more of what was built: what is withheld has changed."""
        self._generation += 1

    def _build(self, chunk: Chunk, view: View) -> Frames | None:
        if self._is_whole_array(chunk, view):
            return view.framed(Piece([chunk.array], chunk.last, len(chunk)))
        selected = select(chunk, chunk.after, view.interest, self.withhold)
        cut = list(frames.runs(selected, batch=view.batch))
        if not cut:
            return None
        records = sum(len(run.lines) for run in cut)
        return join([view.records(run) for run in cut], last=chunk.last, records=records)

    def _is_whole_array(self, chunk: Chunk, view: View) -> bool:
        return (
            view.interest.is_everything
            and self.withhold is None
            and len(chunk) <= view.batch
            and view.framing.shares_arrays
        )
