"""Reading an object's index from a source, in one read or two."""

from functools import partial
from typing import Final

import trio

from turbod.archive.format.hour_object import TAIL_BYTES, check_seek_table, index_span, read_index
from turbod.archive.format.index import Index
from turbod.archive.format.names import Name
from turbod.archive.reading.bursts import Bursts
from turbod.archive.stores.store import Source

SMALL_BYTES: Final = 64 * 1024  # of an index: 0.1 ms; that of a busy hour, 12 MB, takes 50


async def load_index(
    source: Source,
    key: str,
    size: int,
    name: Name,
    *,
    threads: trio.CapacityLimiter | None = None,
    turn: trio.Lock | None = None,
) -> Index:
    """Read the index of an object of `size` bytes; a big one is decoded in one of the threads.

    What is beyond TAIL_BYTES is read by one task at a time of those that share `turn`.

    Raises:
        Damaged: it is not what an object of that name is.
        NotThere: it is gone.
        StoreFault: it could not be read.
    """
    begin = max(0, size - TAIL_BYTES)
    tail = await source.read(key, offset=begin, size=size - begin)
    offset, index_size = index_span(tail, size=size)
    if offset < begin:
        async with turn or trio.Lock():
            data = await source.read(key, offset=offset, size=index_size)
            return await trio.to_thread.run_sync(partial(_read, data, tail, name), limiter=threads)
    data = tail[offset - begin : offset - begin + index_size]
    if index_size <= SMALL_BYTES:
        return _read(data, tail, name)
    return await trio.to_thread.run_sync(partial(_read, data, tail, name), limiter=threads)


def _read(data: bytes, tail: bytes, name: Name) -> Index:
    index = read_index(data, name, pause=Bursts().pause)
    check_seek_table(index, tail)
    return index
