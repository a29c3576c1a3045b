"""The rows of a stream's file, or of a part of a data set, one at a time: as strict as `formats`, in little memory.

`formats` reads whole files with pyarrow's readers. A stream has only the row that it is at; so here the standard
library's readers do it, and what they call wrong is said in the same words.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, IterableDataset

from hf_llm.config import DataConfig, InputError
from hf_llm.data import decoding, files, formats, tables
from hf_llm.data.columns import Column, present, shorten
from hf_llm.data.delimited import HEADER_ONLY, WRONG_FIELDS, dialect_of, header, stray_quote, wrong_fields
from hf_llm.data.json_objects import parse_row
from hf_llm.data.jsonlines import two_types
from hf_llm.data.rows import Tally, not_text

Part = str | tuple[Dataset | IterableDataset, str]  # a file, or a part of a data set and what a message calls it
NO_LABEL = object()  # -1, where the column is a ClassLabel


class Record(NamedTuple):
    """A row as the source has it."""

    where: str
    number: int  # in its file, from 1
    values: dict[str, Any]  # by the source's own column names; a ClassLabel's as its name
    unit: str = "row"
    line: int | None = None  # where it begins in the file, if that says more

    def at(self) -> str:
        line = f" (line {self.line})" if self.line else ""
        return f"{self.where}, {self.unit} {self.number}{line}"


def name_of(part: Part) -> str:
    """What a message calls it."""
    return part if isinstance(part, str) else part[1]


def records(part: Part, columns: Sequence[Column], cfg: DataConfig, sample_by: str, tally: Tally) -> Iterator[Record]:
    """The part's rows. `tally` gets every row read, and those that make no record, with the reason.

    Raises:
        InputError: when the row is reached that cannot be read, or has another number of fields than the header
            unless `cfg.bad_rows` is "skip"; or the file is empty or lacks a column.
    """
    if not isinstance(part, str):
        dataset, where = part
        yield from _counted(_of_dataset(dataset, where, columns), tally)
        return
    form = files.format_of(part, cfg) if not part.lower().endswith(".zip") else None
    with files.readable(part):
        for name, stream in files.streams(part):
            yield from _of_file(stream, name, form or files.format_of(name, cfg), columns, cfg, sample_by, tally)


def _of_file(
    stream: IO[bytes], where: str, form: str, columns: Sequence[Column], cfg: DataConfig, sample_by: str, tally: Tally
) -> Iterator[Record]:
    if form in ("parquet", "arrow"):
        yield from _counted(_of_table(tables.pieces(stream, where, form, columns), where, columns), tally)
    elif form == "txt":
        lines = _lines(stream, where, cfg.encoding, newline=None)
        yield from _of_text(lines, where, columns, sample_by, tally)
    elif form in ("csv", "tsv"):
        delimiter = cfg.delimiter or ("\t" if form == "tsv" else ",")
        lines = _lines(stream, where, cfg.encoding, newline="")  # a field between quotes keeps its own line ends
        yield from _of_delimited(lines, where, columns, cfg, delimiter, tally)
    else:
        lines = _lines(stream, where, cfg.encoding, newline="\n")
        yield from _counted(_of_json(lines, where, columns, cfg), tally)


def _counted(rows: Iterator[Record], tally: Tally) -> Iterator[Record]:
    for record in rows:
        tally.read += 1
        yield record


class _Counted(io.BufferedIOBase):
    """A stream of bytes that knows how many it has given: not every decompressor's `tell` says."""

    def __init__(self, stream: IO[bytes]):
        self.stream, self.count = stream, 0

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        chunk = self.stream.read(2**16)
        self.count += len(chunk)
        return chunk


def _lines(stream: IO[bytes], where: str, encoding: str, newline: str | None) -> Iterator[str]:
    """Decoded lines with their ends (`newline` as `open` has it)."""
    count, counted = 0, _Counted(stream)
    try:
        text = io.TextIOWrapper(counted, decoding.codec(encoding), newline=newline)  # type: ignore[type-var]
        for line in text:
            count += 1
            yield line
    except UnicodeDecodeError as error:
        # all lines of the chunks before have been given out: what the decoder holds begins on the next one
        number = counted.count - len(error.object) + error.start + 1
        above = count + error.object.count(b"\n", 0, error.start)
        byte = error.object[error.start]
        first = counted.count == len(error.object)
        remedy = (decoding.no_text(error.object) if first else None) or decoding.REMEDY
        raise InputError(decoding.undecodable(where, above + 1, number, byte, encoding, remedy)) from error
    if not count:
        raise InputError(f"{where}: {formats.EMPTY}")


def _of_text(
    lines: Iterable[str], where: str, columns: Sequence[Column], sample_by: str, tally: Tally
) -> Iterator[Record]:
    column, _ = formats.text_column(columns, where)
    documents = {"document": _document, "paragraph": _paragraphs, "line": _bare}[sample_by](lines)
    blank = True
    for number, text in enumerate(documents, 1):
        tally.read += 1
        if text.strip():
            blank = False
            yield Record(where, number, {column: text}, sample_by)
        else:
            tally.left_out[f"blank {sample_by}s"] += 1
    if blank:
        raise InputError(f"{where}: {formats.BLANK}")


def _bare(lines: Iterable[str]) -> Iterator[str]:
    return (line.removesuffix("\n") for line in lines)


def _document(lines: Iterable[str]) -> Iterator[str]:
    yield "".join(lines)


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip(" \t\n"):
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph).removesuffix("\n")
            paragraph = []
    if paragraph:
        yield "".join(paragraph).removesuffix("\n")


def _of_delimited(
    lines: Iterable[str], where: str, columns: Sequence[Column], cfg: DataConfig, delimiter: str, tally: Tally
) -> Iterator[Record]:
    reader = csv.reader(lines, strict=cfg.quoting, **dialect_of(cfg, delimiter))
    names: list[str] = []
    wanted: dict[str, int] = {}
    number, last = 0, 0
    try:
        for fields in reader:
            line, last = last + 1, reader.line_num
            if not fields:  # a blank line
                continue
            if not names:
                names, columns = header(fields, where, columns, cfg)
                wanted = {column.source: names.index(column.source) for column in columns}
                if not cfg.column_names:
                    continue
            number += 1
            tally.read += 1
            record = Record(where, number, {}, line=line)
            if len(fields) == len(names):
                yield record._replace(values={name: fields[index] for name, index in wanted.items()})
            elif cfg.bad_rows == "skip":
                tally.left_out[WRONG_FIELDS] += 1
            else:
                wrong = wrong_fields(len(fields), len(names), delimiter.join(fields))
                raise InputError(f"{record.at()}: {wrong} (data.bad_rows=skip leaves such rows out)")
    except csv.Error as error:
        raise InputError(f"{where}, line {last + 1}: {stray_quote(error)}") from error
    if not number:
        raise InputError(f"{where}: {HEADER_ONLY if names else formats.EMPTY}")


def _of_json(lines: Iterable[str], where: str, columns: Sequence[Column], cfg: DataConfig) -> Iterator[Record]:
    number = 0
    kinds: dict[str, str] = {}  # of each label column
    for line in lines:
        if not line.strip():
            continue
        number += 1
        record = Record(where, number, {})
        if number == 1 and line.lstrip().startswith("["):
            raise InputError(f"{where}: an array is read whole; give an object a line, or set data.streaming=false")
        row = parse_row(line, record.at(), columns)
        if number == 1 and cfg.bad_rows != "skip":
            columns = present(columns, list(row), where)
        for column in columns:
            kind = kind_of(row.get(column.source)) if column.kind == "label" else "null"
            if kind != "null" and kind != kinds.setdefault(column.source, kind):
                raise InputError(f"{record.at()}: {two_types(column.source, kind)}")
        yield record._replace(values={column.source: row.get(column.source) for column in columns})
    if not number:
        raise InputError(f"{where}: {formats.EMPTY}")


def kind_of(value: Any) -> str:
    """What JSON calls it."""
    kinds = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", dict: "object"}
    return kinds.get(type(value), "array" if isinstance(value, list) else type(value).__name__)


def _of_table(pieces: Iterable[pa.Table], where: str, columns: Sequence[Column]) -> Iterator[Record]:
    number = 0
    for table in pieces:
        features = Features.from_arrow_schema(table.schema)
        _refuse_other_types(features, columns, where)
        for values in table.to_pylist():
            number += 1
            yield Record(where, number, _named(values, features))


def _of_dataset(dataset: Dataset | IterableDataset, where: str, columns: Sequence[Column]) -> Iterator[Record]:
    features = dataset.features or {}
    rows, number = iter(dataset), 0
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except Exception as error:  # whatever `datasets` and the network raise
            after = f", after row {number}" if number else ""
            cause = shorten(str(error.__cause__ or error), 200)
            raise InputError(f"{where}{after}: cannot be read: {cause}") from error
        number += 1
        if number == 1:
            columns = present(columns, list(values), where)
            _refuse_other_types(features, columns, where)
        yield Record(where, number, _named({column.source: values[column.source] for column in columns}, features))


def _refuse_other_types(features: Mapping[str, Any], columns: Sequence[Column], where: str) -> None:
    for column in columns:
        kind = getattr(features.get(column.source), "dtype", None)
        if column.kind == "text" and kind not in (None, "string", "large_string", "string_view", "null"):
            raise InputError(f"{where}: {not_text(column, kind)}")


def _named(values: dict[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with a ClassLabel's name in place of its number."""
    for name, value in values.items():
        feature = features.get(name)
        if isinstance(feature, ClassLabel) and isinstance(value, int):
            values[name] = feature.names[value] if value >= 0 else NO_LABEL
    return values


def label_names(part: Part, column: Column, cfg: DataConfig) -> list[str] | None:
    """Those of the source's own ClassLabel; None where it has none, or says nothing of types."""
    features: Mapping[str, Any] = {}
    if not isinstance(part, str):
        features = part[0].features or {}
    elif not part.lower().endswith(".zip") and files.format_of(part, cfg) in ("parquet", "arrow"):
        with files.readable(part):
            for name, stream in files.streams(part):
                table = next(tables.pieces(stream, name, files.format_of(part, cfg), [column]))
                features = Features.from_arrow_schema(table.schema)
    feature = features.get(column.source)
    return list(feature.names) if isinstance(feature, ClassLabel) else None
