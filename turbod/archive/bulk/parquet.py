"""Records as Parquet, through pyarrow, which only this module knows: the extra `parquet`."""

import os
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from turbod import __version__
from turbod.archive.bulk.output import CannotWrite
from turbod.archive.bulk.walk import Piece

GROUP_BYTES: Final = 32 * 1024 * 1024  # of lines in a row group, about: what is held in memory

# The last two are JSON, byte for byte as in the record.
SCHEMA: Final = pa.schema(
    [
        pa.field("cursor", pa.int64(), nullable=False),
        pa.field("at_uri", pa.string(), nullable=False),
        pa.field("did", pa.string(), nullable=False),
        pa.field("time_us", pa.int64(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("hydrated_metadata", pa.string(), nullable=False),
    ]
)
_SMALL: Final = ["cursor", "at_uri", "did", "time_us"]  # the rest never repeats and is not sought


class _Row(msgspec.Struct):
    cursor: int
    at_uri: str
    did: str
    time_us: int
    message: msgspec.Raw
    hydrated_metadata: msgspec.Raw


_decode_rows = msgspec.json.Decoder(_Row).decode_lines


class ParquetFile:
    """Writes one Parquet file, row group by row group.

    Its metadata has `turbod`, the version that wrote it, and `instance`, who gave the cursors.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(os.dup(descriptor), "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            SCHEMA,
            compression="zstd",
            use_dictionary=["did"],
            write_statistics=_SMALL,
        )
        self._batches: list[Any] = []
        self._bytes = 0
        self._instance = ""

    def write(self, piece: Piece) -> None:
        """Take a piece's records; write a row group where there are enough of them."""
        self._instance = piece.instance or self._instance
        try:
            rows = _decode_rows(piece.lines)
            self._batches.append(_batch(rows))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, pa.ArrowInvalid) as error:
            raise CannotWrite(f"{piece.name.key}: a record fits no Parquet: {error}") from None
        self._bytes += len(piece.lines)
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self, *, is_whole: bool) -> None:
        """End the file, with what it holds where it is whole."""
        if is_whole and self._bytes:
            self._flush()
        self._writer.add_key_value_metadata({"turbod": __version__, "instance": self._instance})
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._batches, schema=SCHEMA)
        self._batches, self._bytes = [], 0
        self._writer.write_table(table)


def _batch(rows: Sequence[_Row]) -> Any:
    columns = (
        [row.cursor for row in rows],
        [row.at_uri for row in rows],
        [row.did for row in rows],
        [row.time_us for row in rows],
        [bytes(row.message) for row in rows],
        [bytes(row.hydrated_metadata) for row in rows],
    )
    arrays = [
        pa.array(values, type=field.type) for values, field in zip(columns, SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
