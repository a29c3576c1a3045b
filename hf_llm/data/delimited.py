"""csv and tsv, with pyarrow's reader: strict about the number of fields, and every column as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from hf_llm.config import DataConfig, InputError
from hf_llm.data.columns import Column, present, shorten
from hf_llm.data.rows import Rows, from_table

csv.field_size_limit(2**31 - 1)  # a document may be longer than the default of 128 KiB


def parse_delimited(text: str, where: str, columns: Sequence[Column], cfg: DataConfig, delimiter: str) -> Rows:
    """The rows of a csv or tsv file, every field as the text that it is.

    Raises:
        InputError: a row with another number of fields than the header, unless `cfg.bad_rows` is "skip"; a double
            quote that is never closed; a column that is missing or there twice; no rows.
    """
    if len(delimiter) != 1:
        raise InputError(f"data.delimiter={delimiter!r}: give a single character")
    dialect = {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if cfg.quoting else csv.QUOTE_NONE}
    first = next((row for row in csv.reader(io.StringIO(text, newline=""), **dialect) if row), [])  # type: ignore[arg-type]
    names = list(map(str, cfg.column_names)) if cfg.column_names else first
    if cfg.column_names and first == names:
        raise InputError(f"{where}: the file has a header ({', '.join(names)}); leave data.column_names out")
    hint = "" if cfg.column_names else "; for a file without a header line give data.column_names"
    if len(names) == 1 and (other := next((d for d in ";\t|," if d in names[0]), None)):
        hint = f"; set data.delimiter={other!r}?"
    columns = present(columns, names, where, hint)
    if cfg.quoting and '"' in text:
        _refuse_stray_quotes(text, where, dialect)

    encoded = text.encode()
    ragged: list[Any] = []

    def on_ragged(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(encoded),
            # one block, one thread: rows longer than a block are no error, and rows are counted
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=min(len(encoded) + 1, 2**31 - 1), column_names=cfg.column_names and names
            ),
            pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if cfg.quoting else False,
                newlines_in_values=cfg.quoting,
                invalid_row_handler=on_ragged,
            ),
            pyarrow.csv.ConvertOptions(
                include_columns=list(dict.fromkeys(column.source for column in columns)),
                column_types={column.source: pa.string() for column in columns},
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(f"{where}: not a csv file that can be read: {shorten(str(error), 200)}") from error
    header = 0 if cfg.column_names else 1
    rows = Rows(from_table(table), where, line_of=partial(_line_of, text=text, header=header, dialect=dialect))
    if ragged:
        bad = np.array([row.number - header for row in ragged])
        if cfg.bad_rows != "skip":
            raise InputError(_ragged_message(rows, ragged, header))
        rows.left_out["wrong number of fields"] = len(bad)
        rows.read += len(bad)
        rows.numbers = np.setdiff1d(np.arange(1, rows.read + 1), bad)
    if not rows.read:
        raise InputError(f"{where}: the file has a header line and no rows")
    return rows


def _line_of(number: int, text: str, header: int, dialect: dict[str, Any]) -> int:
    """The line on which data row `number` of a csv begins. For messages: the standard library's reader is slower."""
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    count, last = -header, 0
    for fields in reader:
        first, last = last + 1, reader.line_num
        count += bool(fields)
        if count == number:
            return first
    return last


def _ragged_message(rows: Rows, ragged: Sequence[Any], header: int) -> str:
    row = ragged[0]
    few = row.actual_columns < row.expected_columns
    cause = "is one missing?" if few else "quote a field that holds the delimiter, or set data.delimiter"
    return (
        f"{rows.at(row.number - header - 1)}: {row.actual_columns} fields, not {row.expected_columns} "
        f"({shorten(row.text or '', 40)}); {cause} ({len(ragged):,} such row{'s' * (len(ragged) > 1)}; "
        f"data.bad_rows=skip leaves them out)"
    )


def _refuse_stray_quotes(text: str, where: str, dialect: dict[str, Any]) -> None:
    """A stray quote at a field's beginning is swallowed with the next one, and with all rows between, silently."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
    start = 1
    try:
        for _ in reader:
            start = reader.line_num + 1
    except csv.Error as error:
        problem = "is never closed" if "end of data" in str(error) else "is closed before the field's end"
        raise InputError(
            f"{where}, line {start}: a double quote is opened that {problem}; mend it, or set data.quoting=false to "
            f"read double quotes as ordinary characters"
        ) from error
