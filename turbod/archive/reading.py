"""Reading an object's index from a source, in one read or two."""

from turbod.archive.hour_object import TAIL_BYTES, check_seek_table, index_span, read_index
from turbod.archive.index import Index
from turbod.archive.names import Name
from turbod.archive.store import Source


async def load_index(source: Source, key: str, size: int, name: Name) -> Index:
    """Read the index of an object of `size` bytes.

    Raises:
        Damaged: it is not what an object of that name is.
        NotThere: it is gone.
        StoreFault: it could not be read.
    """
    begin = max(0, size - TAIL_BYTES)
    tail = await source.read(key, offset=begin, size=size - begin)
    offset, index_size = index_span(tail, size=size)
    if offset < begin:
        data = await source.read(key, offset=offset, size=index_size)
    else:
        data = tail[offset - begin : offset - begin + index_size]
    index = read_index(data, name)
    check_seek_table(index, tail)
    return index
