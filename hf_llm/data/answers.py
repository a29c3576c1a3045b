"""Answers to questions on a text: the column kinds "answers" and "id", SQuAD's nested JSON and CMRC's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from datasets.table import InMemoryTable

from hf_llm.config import InputError
from hf_llm.data.columns import Column

KINDS = ("answers", "id")
FEATURE = {"text": List(Value("string")), "answer_start": List(Value("int64"))}
UNKNOWN = -1  # where an answer begins whose text is not found
NO_ANSWERS = "no {text: [...], answer_start: [...]}"
UNEVEN = "another number of texts than of answer_start"
EMPTY = "an empty answer"
NEGATIVE = "an answer_start below 0 (leave it out, or give -1, where the place is not known)"


def flat(rows: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Questions, one a row, of SQuAD's articles with their paragraphs, or of CMRC's: [{context_text, qas: [{query_id,
    query_text, answers: [text, …]}]}]. Rows that are questions already stay."""
    if not rows or not rows[0].keys() & {"paragraphs", "qas"}:
        return rows
    result = []
    for number, article in enumerate(rows, 1):
        try:
            for paragraph in article.get("paragraphs", [article]):
                context = paragraph["context_text"] if "context_text" in paragraph else paragraph["context"]
                for asked in paragraph["qas"]:
                    kept = {
                        {"query_id": "id", "query_text": "question"}.get(name, name): value
                        for name, value in asked.items()
                        if name not in ("answers", "plausible_answers")
                    }
                    given = [] if asked.get("is_impossible") else asked.get("answers")
                    result.append({**kept, "context": context, "answers": given})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{where}, article {number}: not as in SQuAD, paragraphs with context and qas: {error}"
            ) from error
    return result


def table(rows: list[dict[str, Any]], columns: Sequence[Column], where: str) -> pa.Table:
    """The columns that are asked for, as texts; answers, which come in several forms, as JSON, for `canonical`.

    Raises:
        InputError: a value is of another kind.
    """
    arrays = {}
    for column in columns:
        values = [row.get(column.source) for row in rows]
        if column.kind == "answers" or (column.kind == "group" and not all(isinstance(v, str) for v in values)):
            values = [None if value is None else json.dumps(value) for value in values]
        for number, value in enumerate(values, 1):
            if not (value is None or isinstance(value, (str, int))):
                kind = type(value).__name__
                raise InputError(f"{where}, row {number}: column '{column.source}' holds {kind}, not text")
        arrays[column.source] = pa.array([None if v is None else str(v) for v in values], pa.string())
    return pa.table(arrays)


def canonical(dataset: Dataset, column: Column) -> tuple[Dataset, dict[str, np.ndarray]]:
    """The rows with `FEATURE` in the column, whatever form it came in, and what is wrong: problem -> (rows,) bool.

    Each of text and answer_start may be one or a list; or there is a list of such pairs, or of texts; or a text alone.
    In csv it is this as JSON, or the text.
    """
    values = dataset.data.column(column.name).to_pylist()
    problems: dict[str, np.ndarray] = {}
    results = []
    for row, value in enumerate(values):
        answers = "null" if value is None else _answers(value)
        if isinstance(answers, str):
            problems.setdefault(answers, np.zeros(len(values), dtype=bool))[row] = True
            answers = {"text": [], "answer_start": []}
        results.append(answers)
    features = Features({**dataset.features, column.name: FEATURE})
    columns = dataset.data.table
    array = pa.array(results, features.arrow_schema.field(column.name).type)
    columns = columns.set_column(columns.column_names.index(column.name), column.name, array)
    return Dataset(InMemoryTable(columns.replace_schema_metadata(None).cast(features.arrow_schema))), problems


def _answers(value: Any) -> dict[str, list[Any]] | str:
    """{text: […], answer_start: […]}, or what is wrong."""
    if isinstance(value, str):
        value = _decoded(value)
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        texts = [texts] if isinstance(texts, str) else texts
        starts = [starts] if isinstance(starts, int) else starts
    else:
        alone = [value] if isinstance(value, str) else value
        if not isinstance(alone, list):
            return NO_ANSWERS
        pairs = [{"text": part} if isinstance(part, str) else part for part in alone]
        if not all(isinstance(pair, Mapping) for pair in pairs):
            return NO_ANSWERS
        texts, starts = ([pair.get(name) for pair in pairs] for name in ("text", "answer_start"))
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return NO_ANSWERS
    starts = [None] * len(texts) if starts is None else starts
    if not isinstance(starts, list) or not all(start is None or type(start) is int for start in starts):
        return NO_ANSWERS
    if len(texts) != len(starts):
        return UNEVEN
    if not all(text.strip() for text in texts):
        return EMPTY
    if any(start is not None and start < UNKNOWN for start in starts):
        return NEGATIVE
    return {"text": texts, "answer_start": [UNKNOWN if start is None else start for start in starts]}


def _decoded(text: str) -> Any:
    """What a text holds as JSON; the text itself, where that is neither list nor object."""
    try:
        value = json.loads(text)
    except ValueError:
        return None if text.lstrip().startswith(("{", "[")) else text
    return value if isinstance(value, (dict, list, str)) else text
