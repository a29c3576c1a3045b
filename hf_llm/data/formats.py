"""The bytes of a file -> its rows, strictly: nothing is guessed, merged or dropped without a word.

`datasets`' own csv and json builders (pandas, and pyarrow with types inferred) turn "NA" into null, "007" into 7 and a
date into a timestamp, fill a short row up and cut a long one, and cannot say which row of which file was bad.
pyarrow's readers, told that every column is text, do none of this, and are faster.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from hf_llm.config import DataConfig, InputError
from hf_llm.data.columns import Column, present, shorten
from hf_llm.data.delimited import parse_delimited
from hf_llm.data.jsonlines import parse_json
from hf_llm.data.rows import Rows, from_table

FORMATS = ("txt", "csv", "tsv", "json", "jsonl", "parquet", "arrow")
ENDINGS = {**{f".{name}": name for name in FORMATS}, ".text": "txt", ".md": "txt", ".ndjson": "jsonl"}


def parse(raw: bytes, where: str, form: str, columns: Sequence[Column], cfg: DataConfig, sample_by: str) -> Rows:
    """The rows of a file's content, with the columns that are asked for, under the file's own names for them.

    Raises:
        InputError: the file is empty, cannot be decoded, is not of the format, or lacks a column.
    """
    if not raw or raw.isspace():
        raise InputError(f"{where}: the file is empty")
    if form == "parquet":
        return _parquet(raw, where, columns)
    if form == "arrow":
        return _arrow(raw, where, columns)
    text = decode(raw, where, cfg.encoding)
    if form == "txt":
        return parse_text(text, where, columns, sample_by)
    if form in ("csv", "tsv"):
        return parse_delimited(text, where, columns, cfg, delimiter=cfg.delimiter or ("\t" if form == "tsv" else ","))
    return parse_json(text, where, columns)


def decode(raw: bytes, where: str, encoding: str) -> str:
    """The text of a file, without a byte order mark."""
    try:
        # a byte order mark is no part of the text; utf-8-sig reads files with and without
        return raw.decode("utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise InputError(f"data.encoding={encoding}: no such encoding; utf-8, gb18030 and cp1252 are some") from error
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = raw.count(b"\n", 0, start) + 1
        raise InputError(
            f"{where}, line {line}: byte {start + 1:,} of the file "
            f"(0x{raw[start]:02x}) is not {encoding}; set data.encoding{_encoding_hint(raw, encoding)}"
        ) from error


def _encoding_hint(raw: bytes, encoding: str) -> str:
    """ "=NAME" of an encoding that reads all of it; a guess, so only for a message."""
    candidates = ["utf-16"] if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8", "gb18030", "cp1252", "latin-1"]
    for candidate in candidates:
        try:
            raw.decode(candidate)
        except UnicodeError:
            continue
        return f" ({candidate} would read it)"
    return ""


def parse_text(text: str, where: str, columns: Sequence[Column], sample_by: str) -> Rows:
    """Documents: the lines, the blank-line-separated paragraphs or the whole of a text. Blank ones are left out.

    They are the task's text column, whatever it is called: a run trained on a csv's `message` reads a txt as well.
    """
    column = next(column for column in columns if column.kind == "text")
    present(columns, [column.source], where, hint=": a text file has no other (csv, tsv, jsonl and parquet may)")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if sample_by == "document":
        documents = pa.array([text])
    elif sample_by == "paragraph":
        documents = pa.array(re.split(r"\n(?:[ \t]*\n)+", text.strip("\n")))
    else:
        documents = pa.array(text.removesuffix("\n").split("\n"))
    keep = pc.not_equal(pc.utf8_trim_whitespace(documents), "")
    blank = len(documents) - pc.sum(keep).as_py()
    if blank == len(documents):
        raise InputError(f"{where}: the file is empty but for white space")
    return Rows(
        from_table(pa.table({column.source: documents.filter(keep) if blank else documents})),
        where,
        numbers=np.nonzero(keep.to_numpy(zero_copy_only=False))[0] + 1 if blank else None,
        unit=sample_by,
        left_out=Counter({f"blank {sample_by}s": blank} if blank else {}),
    )


def _parquet(raw: bytes, where: str, columns: Sequence[Column]) -> Rows:
    try:
        file = pyarrow.parquet.ParquetFile(pa.BufferReader(raw))
        columns = present(columns, file.schema_arrow.names, where)
        table = file.read(columns=list(dict.fromkeys(column.source for column in columns)))
    except pa.ArrowException as error:
        raise InputError(f"{where}: not a Parquet file that can be read: {shorten(str(error), 150)}") from error
    return _table(table, where)


def _arrow(raw: bytes, where: str, columns: Sequence[Column]) -> Rows:
    """What `save_to_disk` writes (a stream) or an IPC file (Feather)."""
    try:
        is_file = raw.startswith(b"ARROW1")
        buffer = pa.BufferReader(raw)
        table = (pa.ipc.open_file(buffer) if is_file else pa.ipc.open_stream(buffer)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{where}: not an Arrow file that can be read: {shorten(str(error), 150)}") from error
    columns = present(columns, table.column_names, where)
    return _table(table.select(list(dict.fromkeys(column.source for column in columns))), where)


def _table(table: pa.Table, where: str) -> Rows:
    if not len(table):
        raise InputError(f"{where}: the file has no rows")
    return Rows(from_table(table), where)
