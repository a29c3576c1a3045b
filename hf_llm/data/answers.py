"""Answers to questions on a text: the column kind "answers", and SQuAD's nested JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hf_llm.config import InputError
from hf_llm.data.columns import Column, shorten

ANSWERS = pa.struct({"text": pa.list_(pa.string()), "answer_start": pa.list_(pa.int64())})
UNKNOWN = -1  # where an answer begins whose text is not found


def flat(rows: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Questions, one a row, of SQuAD's articles with their paragraphs; rows that are questions already stay."""
    if not rows or "paragraphs" not in rows[0]:
        return rows
    result = []
    for number, article in enumerate(rows, 1):
        try:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    kept = {
                        name: value for name, value in asked.items() if name not in ("answers", "plausible_answers")
                    }
                    given = [] if asked.get("is_impossible") else asked.get("answers")
                    result.append({**kept, "context": paragraph["context"], "answers": given})
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{where}, article {number}: not as in SQuAD, paragraphs with context and qas: {error}"
            ) from error
    return result


def table(rows: list[dict[str, Any]], columns: Sequence[Column], where: str) -> pa.Table:
    """The columns that are asked for, answers as {text: [...], answer_start: [...]}.

    Raises:
        InputError: a value is of another kind.
    """
    arrays = {}
    for column in columns:
        values = [row.get(column.source) for row in rows]
        if column.kind == "answers":
            arrays[column.source] = pa.array([_answers(v, where, n) for n, v in enumerate(values, 1)], ANSWERS)
            continue
        for number, value in enumerate(values, 1):
            if not (value is None or isinstance(value, (str, int))):
                kind = type(value).__name__
                raise InputError(f"{where}, row {number}: column '{column.source}' holds {kind}, not text")
        arrays[column.source] = pa.array([None if v is None else str(v) for v in values], pa.string())
    return pa.table(arrays)


def _answers(value: Any, where: str, number: int) -> dict[str, list[Any]] | None:
    """{text, answer_start}, each one or a list; or a list of them; or the text alone."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        texts, starts = value.get("text", []), value.get("answer_start")
        texts = [texts] if isinstance(texts, str) else texts
        starts = [UNKNOWN] * len(texts) if starts is None else [starts] if isinstance(starts, int) else starts
    else:
        alone = [value] if isinstance(value, str) else value
        parts: list[Any] = [{"text": part} if isinstance(part, str) else part for part in alone]
        parts = [part if isinstance(part, Mapping) else {} for part in parts]  # one without a text, refused below
        texts = [part.get("text") for part in parts]
        starts = [part.get("answer_start", UNKNOWN) for part in parts]
    good = all(isinstance(text, str) for text in texts) and all(isinstance(start, int) for start in starts)
    if not good or len(texts) != len(starts):
        raise InputError(
            f"{where}, row {number}: {shorten(repr(value))} are no answers: give "
            '{"text": ["…"], "answer_start": [0]}, with as many of the one as of the other'
        )
    return {"text": texts, "answer_start": starts}


def check(dataset: Dataset, column: Column, where: str) -> None:
    """The column holds what `table` makes: of the Hub and of Parquet files too.

    Raises:
        InputError: it does not.
    """
    kind = dataset.data.column(column.name).type
    names = {field.name for field in kind} if pa.types.is_struct(kind) else set()
    if not {"text", "answer_start"} <= names:
        raise InputError(
            f"{where}: column '{column.source}' holds {kind}, no answers; set data.columns.{column.name} to a column "
            "of {text: […], answer_start: […]}"
        )
