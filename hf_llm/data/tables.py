"""Parquet and Arrow files, whole or some rows at a time: only the wanted columns, as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet

from hf_llm.config import InputError
from hf_llm.data import references
from hf_llm.data.columns import Column, present, shorten
from hf_llm.data.rows import Rows, from_table

ROWS = 1024  # read at once of a Parquet file


def parse_table(raw: bytes, where: str, form: str, columns: Sequence[Column]) -> Rows:
    """The rows of a Parquet or Arrow file's content."""
    return Rows(from_table(pa.concat_tables(pieces(pa.BufferReader(raw), where, form, columns))), where)


def pieces(source: IO[bytes] | pa.NativeFile, where: str, form: str, columns: Sequence[Column]) -> Iterator[pa.Table]:
    """The rows, from first to last. Arrow is what `save_to_disk` writes (a stream) or an IPC file (Feather).

    Raises:
        InputError: the file is not of the format, lacks a column or has no rows.
    """
    kind = "a Parquet" if form == "parquet" else "an Arrow"
    rows = 0
    try:
        schema, batches = _parquet(source) if form == "parquet" else _arrow(source)
        wanted = list(dict.fromkeys(c.source for c in present(columns, references.names_in(schema), where)))
        for batch in batches(list(dict.fromkeys(references.root(name, schema.names) for name in wanted))):
            rows += len(batch)
            yield references.lifted_table(pa.Table.from_batches([batch]), wanted)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{where}: not {kind} file that can be read: {shorten(str(error), 150)}") from error
    if not rows:
        raise InputError(f"{where}: the file has no rows")


def _parquet(source):
    file = pyarrow.parquet.ParquetFile(source)
    return file.schema_arrow, lambda wanted: file.iter_batches(ROWS, columns=wanted)


def _arrow(source):
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    if not is_file:
        reader = pa.ipc.open_stream(source)
        return reader.schema, lambda wanted: reader
    file = pa.ipc.open_file(source)
    return file.schema, lambda wanted: (file.get_batch(index) for index in range(file.num_record_batches))
