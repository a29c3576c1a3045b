"""The column kind "predicate": which of a row's words it is about, by its number from 0; null where none is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_llm.config import InputError
from hf_llm.data.columns import Column


def check(dataset: Dataset, column: Column, where: str) -> None:
    """Raises InputError where the column of predicates holds no whole numbers."""
    kind = dataset.data.column(column.name).type
    if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InputError(f"{where}: column '{column.source}' holds {kind}, not the numbers of words, from 0")


def problems(dataset: Dataset, column: Column) -> dict[str, np.ndarray]:
    """Problem -> (rows,) bool. None is no problem: of a sentence without predicates, or whose are to be found."""
    values = dataset.data.column(column.name)
    words = pc.list_value_length(dataset.data.column("words"))
    beyond = pc.or_(pc.less(values, 0), pc.greater_equal(values, words))
    return {"a number that no word has": pc.fill_null(beyond, False).to_numpy()}


@dataclass
class Sentence:
    """What consecutive rows of one sentence say of it."""

    row: int  # the first of them
    words: list[str]
    predicates: list[int]


def sentences(words: Sequence[list[str]], predicates: Sequence[int | None]) -> Iterator[Sentence]:
    """Rows of the same words, with predicates that follow each other, are one sentence."""
    sentence: Sentence | None = None
    for row, (here, predicate) in enumerate(zip(words, predicates, strict=True)):
        before = sentence.predicates if sentence else []
        if sentence and before and predicate is not None and here == sentence.words and predicate > before[-1]:
            before.append(predicate)
            continue
        if sentence:
            yield sentence
        sentence = Sentence(row, here, [] if predicate is None else [predicate])
    if sentence:
        yield sentence
