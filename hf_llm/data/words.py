"""Sentences as lists of words, with a tag for each: the column kinds "words" and "tags"."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_llm.config import InputError
from hf_llm.data.columns import Column

KINDS = ("words", "tags", "roles")


# Clitics as the Penn Treebank has them (do n't, she 's), numbers, words, and runs of a punctuation mark.
WORD = re.compile(
    r"\w+?(?=n['’]t\b)|n['’]t\b|['’](?:s|m|d|re|ve|ll)\b|\d+(?:[.,:]\d+)*|\w+|([^\w\s])\1*", re.IGNORECASE
)


def split(text: str) -> list[str]:
    """The words of a text: white space and punctuation part them, and a punctuation mark is a word."""
    return [found[0] for found in WORD.finditer(text)]


def is_list_of_text(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and (pa.types.is_string(kind.value_type) or pa.types.is_null(kind.value_type))


def check(dataset: Dataset, column: Column, where: str) -> None:
    """The column holds lists: of texts where it is "words", of what `labels` takes where it is "tags".

    Raises:
        InputError: it does not.
    """
    kind = dataset.data.column(column.name).type
    if pa.types.is_large_list(kind):
        raise InputError(f"{where}: column '{column.source}' holds {kind}; save it as a list")
    good = is_list_of_text(kind) if column.kind == "words" else pa.types.is_list(kind)
    if not good:
        right = "a list of words" if column.kind == "words" else "a list of tags, one for each word"
        raise InputError(
            f"{where}: column '{column.source}' holds {kind}, not {right}; set data.columns.{column.name}, and "
            "give such rows as conll, jsonl or parquet"
        )


def problems(dataset: Dataset, column: Column) -> dict[str, np.ndarray]:
    """Problem -> (rows,) bool."""
    values = dataset.data.column(column.name)
    lengths = pc.list_value_length(values)
    found = {"null": pc.is_null(values).to_numpy(), "no words": pc.fill_null(pc.equal(lengths, 0), False).to_numpy()}
    items = flat(values)
    blank = pc.is_null(items)
    if pa.types.is_string(items.type):
        blank = pc.or_kleene(blank, pc.equal(pc.utf8_trim_whitespace(items), ""))
    of_row = np.repeat(np.arange(len(values)), pc.fill_null(lengths, 0).to_numpy())
    empty = np.zeros(len(values), dtype=bool)
    empty[of_row[pc.fill_null(blank, True).to_numpy(zero_copy_only=False)]] = True
    found["an empty word" if column.kind == "words" else "a missing tag"] = empty
    if column.kind == "roles" and pa.types.is_string(items.type):
        wrong = np.zeros(len(values), dtype=bool)
        wrong[
            of_row[
                ~pc.fill_null(pc.match_substring_regex(items, "^(O|[BI]-.+)$"), True).to_numpy(zero_copy_only=False)
            ]
        ] = True
        found["a tag that is none of O, B-ROLE and I-ROLE"] = wrong
    if column.kind != "words" and "words" in dataset.column_names:
        words = pc.list_value_length(dataset.data.column("words"))
        found["another number of tags than of words"] = pc.fill_null(pc.not_equal(lengths, words), False).to_numpy()
    return found


def flat(values: pa.ChunkedArray) -> pa.Array:
    """The values of all lists, one after the other."""
    return pa.chunked_array([chunk.flatten() for chunk in values.chunks], type=values.type.value_type).combine_chunks()
