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

from hf_llm.config import DataConfig, InputError
from hf_llm.data import propositions
from hf_llm.data.columns import Column, present
from hf_llm.data.conll import parse_conll, refuse_columns
from hf_llm.data.decoding import decode, lines
from hf_llm.data.delimited import parse_delimited
from hf_llm.data.jsonlines import parse_json
from hf_llm.data.rows import Rows, from_table
from hf_llm.data.tables import parse_table

FORMATS = ("txt", "csv", "tsv", "json", "jsonl", "parquet", "arrow", "conll", "conllu")
EMPTY = "the file is empty"
BLANK = "the file is empty but for white space"
ENDINGS = {**{f".{name}": name for name in FORMATS}, ".text": "txt", ".md": "txt", ".ndjson": "jsonl", ".bio": "conll"}


def parse(raw: bytes, where: str, form: str, columns: Sequence[Column], cfg: DataConfig, sample_by: str) -> Rows:
    """The rows of a file's content, with the columns that are asked for, under the file's own names for them.

    Raises:
        InputError: the file is empty, cannot be decoded, is not of the format, or lacks a column.
    """
    if not raw or raw.isspace():
        raise InputError(f"{where}: {EMPTY}")
    if form in ("parquet", "arrow"):
        return parse_table(raw, where, form, columns)
    text = decode(raw, where, cfg.encoding)
    if form in ("txt", "conll", "conllu", "json", "jsonl") and any(column.kind == "predicate" for column in columns):
        return propositions.parse(text, where, form, columns, cfg)
    if form == "txt":
        return parse_text(text, where, columns, sample_by)
    if form in ("csv", "tsv"):
        return parse_delimited(text, where, columns, cfg, delimiter=cfg.delimiter or ("\t" if form == "tsv" else ","))
    if form in ("conll", "conllu"):
        return parse_conll(text, where, form, columns, cfg)
    return parse_json(text, where, columns)


def parse_text(text: str, where: str, columns: Sequence[Column], sample_by: str) -> Rows:
    """Documents: the lines, the blank-line-separated paragraphs or the whole of a text. Blank ones are left out."""
    if any(column.kind == "words" for column in columns):
        refuse_columns(text, where)
    (column, kind) = text_column(columns, where)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if sample_by == "document":
        documents = pa.array([text])
    elif sample_by == "paragraph":
        documents = pa.array(re.split(r"\n(?:[ \t]*\n)+", text.strip("\n")))
    else:
        documents = pa.array(lines(text))
    keep = pc.not_equal(pc.utf8_trim_whitespace(documents), "")
    blank = len(documents) - pc.sum(keep).as_py()
    if blank == len(documents):
        raise InputError(f"{where}: {BLANK}")
    documents = documents.filter(keep) if blank else documents
    return Rows(
        from_table(pa.table({column: pc.utf8_split_whitespace(documents) if kind == "words" else documents})),
        where,
        numbers=np.nonzero(keep.to_numpy(zero_copy_only=False))[0] + 1 if blank else None,
        unit=sample_by,
        left_out=Counter({f"blank {sample_by}s": blank} if blank else {}),
    )


def text_column(columns: Sequence[Column], where: str) -> tuple[str, str]:
    """What a text file's only column is called, and its kind: a text, or words that white space separates.

    It is the task's text column, whatever its name: a run trained on a csv's `message` reads a txt as well.

    Raises:
        InputError: another column is wanted too.
    """
    column = next(column for column in columns if column.kind in ("text", "words"))
    others = "csv, tsv, jsonl and parquet may"
    if column.kind == "words":
        others = "jsonl and parquet may, and a word a line is data.format=conll"
    present(columns, [column.source], where, hint=f": a text file has no other ({others})")
    return column.source, column.kind
