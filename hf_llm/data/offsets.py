"""Where in their contexts answers begin: real data sets have it wrong now and then."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features
from datasets.table import InMemoryTable

from hf_llm.config import InputError
from hf_llm.data.answers import FEATURE, UNKNOWN
from hf_llm.data.rows import Rows

logger = logging.getLogger(__name__)

NEARBY = 100  # characters from where an answer is said to be; beyond them it must be the only one of the text
SHOWN = 5  # rows that a message names


def mend(splits: Mapping[str, Sequence[Rows]], answers: str = "answers", context: str = "context") -> None:
    """Puts right where answers begin, and says which rows were wrong.

    An answer that does not stand where it is said to is looked for: within `NEARBY` characters, where it must stand
    once, or else once in the whole text. One that is not found keeps no place (`UNKNOWN`): it still counts for the
    metrics, which go by its text, and a train row with no other answer is left out.

    Raises:
        InputError: no row of train is left.
    """
    for split, parts in splits.items():
        for part in parts:
            if answers not in part.dataset.column_names:
                continue
            found = [
                _mended(text, given) for text, given in zip(part.dataset[context], part.dataset[answers], strict=True)
            ]
            _report(split, part, [outcome for _, outcome in found])
            features = Features({**part.dataset.features, answers: FEATURE})
            columns = part.dataset.data.table
            values = pa.array([value for value, _ in found], features.arrow_schema.field(answers).type)
            columns = columns.set_column(columns.column_names.index(answers), answers, values)
            part.dataset = Dataset(InMemoryTable(columns.replace_schema_metadata(None).cast(features.arrow_schema)))
            if split == "train":
                keep = np.array([not value["text"] or max(value["answer_start"]) >= 0 for value, _ in found])
                if not keep.all():
                    part.left_out["answer that does not stand in its context"] += int((~keep).sum())
                    part.select(keep)
        if split == "train" and parts and not any(len(part.dataset) for part in parts):
            raise InputError(f"{parts[0].where}: no row can be used; no answer stands in its context")


def _mended(context: str, given: dict[str, list[Any]] | None) -> tuple[dict[str, list[Any]], str]:
    """The answers with where they begin, and "", "mended" or "lost"."""
    texts, starts = (given or {}).get("text") or [], (given or {}).get("answer_start") or []
    places, outcome = [], ""
    for text, start in zip(texts, starts, strict=True):
        place = start if start >= 0 and text and context.startswith(text, start) else _place(context, text, start)
        if place == UNKNOWN:
            outcome = "lost"
        elif place != start and start >= 0:  # none is said to be wrong where none is given
            outcome = outcome or "mended"
        places.append(place)
    return {"text": texts, "answer_start": places}, outcome


def _place(context: str, text: str, start: int) -> int:
    around = (max(start - NEARBY, 0), start + NEARBY + len(text)) if start >= 0 else (0, len(context))
    for low, high in (around, (0, len(context))):
        if text and context.count(text, low, high) == 1:
            return context.index(text, low, high)
    return UNKNOWN


def _report(split: str, part: Rows, outcomes: list[str]) -> None:
    counts = Counter(outcomes)
    for outcome, what in (
        ("mended", "an answer does not stand where answer_start says; found once, and mended"),
        ("lost", "an answer does not stand where answer_start says, nor once elsewhere"),
    ):
        if counts[outcome]:
            rows = [index for index, value in enumerate(outcomes) if value == outcome]
            some = "; ".join(part.at(index) for index in rows[:SHOWN]) + ("; …" if len(rows) > SHOWN else "")
            logger.warning("%s: %d rows: %s: %s", split, counts[outcome], what, some)
