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

WRONG_FIELDS = "wrong number of fields"
HEADER_ONLY = "the file has a header line and no rows"


def parse_delimited(text: str, where: str, columns: Sequence[Column], cfg: DataConfig, delimiter: str) -> Rows:
    """The rows of a csv or tsv file, every field as the text that it is.

    Raises:
        InputError: a row with another number of fields than the header, unless `cfg.bad_rows` is "skip"; a double
            quote that is never closed; a column that is missing or there twice; no rows.
    """
    dialect = dialect_of(cfg, delimiter)
    first = next((row for row in csv.reader(io.StringIO(text, newline=""), **dialect) if row), [])
    names, columns = header(first, where, columns, cfg)
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
    above = 0 if cfg.column_names else 1  # rows that are no data
    rows = Rows(from_table(table), where, line_of=partial(_line_of, text=text, above=above, dialect=dialect))
    if ragged:
        bad = np.array([row.number - above for row in ragged])
        if cfg.bad_rows != "skip":
            row = ragged[0]
            raise InputError(
                f"{rows.at(row.number - above - 1)}: "
                f"{wrong_fields(row.actual_columns, row.expected_columns, row.text or '')} "
                f"({len(ragged):,} such row{'s' * (len(ragged) > 1)}; data.bad_rows=skip leaves them out)"
            )
        rows.left_out[WRONG_FIELDS] = len(bad)
        rows.read += len(bad)
        rows.numbers = np.setdiff1d(np.arange(1, rows.read + 1), bad)
    if not rows.read:
        raise InputError(f"{where}: {HEADER_ONLY}")
    return rows


def dialect_of(cfg: DataConfig, delimiter: str) -> dict[str, Any]:
    """What `csv.reader` is to be told.

    Raises:
        InputError: the delimiter is not a single character.
    """
    if len(delimiter) != 1:
        raise InputError(f"data.delimiter={delimiter!r}: give a single character")
    return {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if cfg.quoting else csv.QUOTE_NONE}


def header(
    first: Sequence[str], where: str, columns: Sequence[Column], cfg: DataConfig
) -> tuple[list[str], list[Column]]:
    """The names of a file's columns (of its first row, or `cfg.column_names`), and those of `columns` that it has.

    Raises:
        InputError: as `columns.present`, with what may be meant; or both a header and `cfg.column_names` are given.
    """
    names = list(map(str, cfg.column_names)) if cfg.column_names else list(first)
    if cfg.column_names and list(first) == names:
        raise InputError(f"{where}: the file has a header ({', '.join(names)}); leave data.column_names out")
    hint = "" if cfg.column_names else "; for a file without a header line give data.column_names"
    if len(names) == 1 and (other := next((d for d in ";\t|," if d in names[0]), None)):
        hint = f"; set data.delimiter={other!r}?"
    return names, present(columns, names, where, hint)


def _line_of(number: int, text: str, above: int, dialect: dict[str, Any]) -> int:
    """The line on which data row `number` of a csv begins. For messages: the standard library's reader is slower."""
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    count, last = -above, 0
    for fields in reader:
        first, last = last + 1, reader.line_num
        count += bool(fields)
        if count == number:
            return first
    return last


def wrong_fields(found: int, expected: int, text: str) -> str:
    """What is wrong with a row of another number of fields than the header."""
    cause = "is one missing?" if found < expected else "quote a field that holds the delimiter, or set data.delimiter"
    return f"{found} fields, not {expected} ({shorten(text, 40)}); {cause}"


def _refuse_stray_quotes(text: str, where: str, dialect: dict[str, Any]) -> None:
    """A stray quote at a field's beginning is swallowed with the next one, and with all rows between, silently."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
    start = 1
    try:
        for _ in reader:
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{where}, line {start}: {stray_quote(error)}") from error


def stray_quote(error: csv.Error) -> str:
    """What the strict reader's complaint means."""
    problem = "is never closed" if "end of data" in str(error) else "is closed before the field's end"
    return (
        f"a double quote is opened that {problem}; mend it, or set data.quoting=false to read double quotes as "
        f"ordinary characters"
    )
