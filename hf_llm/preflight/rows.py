"""What can be said of rows before they are trained on: lengths, labels, and how many two splits have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from hf_llm.data.duplicates import digests, text_columns

SHARES = (50, 90, 99)  # per cent of the rows that are no longer
LIMIT = 1_000_000  # rows of a split that are compared: some seconds
LIMIT_BYTES = 2**31  # of their text, likewise


@dataclass
class Lengths:
    """Of the rows of a split, in tokens."""

    percentiles: tuple[int, ...]  # 50, 90, 99 and 100: so many per cent of the rows are no longer
    tokens: int  # in all, those that are cut off left out
    cut: int | None = None  # rows that are longer than the task takes; None where nothing is cut


@dataclass
class Seen:
    """Rows of a held-out split whose text stands in train as well."""

    rows: int
    other_label: int | None  # of them, how many are labelled otherwise there; None where there are no labels
    example: tuple[int, int] | None  # one such row, and where it stands in train, from 1
    compared: tuple[int, int]  # rows of the split, and of train: all of them up to `LIMIT`


def lengths(tokens: np.ndarray, kept: np.ndarray | None = None) -> Lengths:
    """Percentiles of `tokens` (rows,); `kept` (rows,) is how many of them are left when long rows have been cut."""
    found = np.percentile(tokens, [*SHARES, 100], method="inverted_cdf") if len(tokens) else [0] * (len(SHARES) + 1)
    percentiles = tuple(int(length) for length in found)
    if kept is None:
        return Lengths(percentiles, int(tokens.sum()))
    return Lengths(percentiles, int(kept.sum()), int((kept < tokens).sum()))


def of_encoded(split: Any) -> Lengths | None:
    """The lengths of an encoded split: of the documents of packed blocks, of the rows of a classifier; None of a
    stream."""
    if hasattr(split, "document_lengths"):
        return lengths(split.document_lengths)
    split = getattr(split, "encoded", split)
    if isinstance(split, Dataset) and "full_length" in split.column_names:
        return lengths(_column(split, "full_length"), _column(split, "length"))
    return None


def label_counts(raw: Mapping[str, Any], column: str, labels: list[str]) -> dict[str, dict[str, int]]:
    """Split -> label -> rows, or words where each has a tag; for the splits whose labels are at hand."""
    counts = {}
    for name, rows in raw.items():
        if isinstance(rows, Dataset) and column in rows.column_names:
            values = np.concatenate([np.atleast_1d(value) for value in _column(rows, column)])
            counts[name] = dict(zip(labels, np.bincount(values, minlength=len(labels)).tolist(), strict=True))
    return counts


def seen_in_train(raw: Mapping[str, Any]) -> dict[str, Seen]:
    """Held-out split -> which of its rows stand in train too, by a 64-bit hash of their texts, with 8 bytes a row.

    Equal hashes of different texts are not to be expected: of a million rows and a million, one time in ten million.
    Nothing is said of a streamed train split.
    """
    train = raw.get("train")
    held_out = {name: rows for name, rows in raw.items() if name != "train" and isinstance(rows, Dataset)}
    if not isinstance(train, Dataset) or not held_out:
        return {}
    known = _digests(train)
    order = np.argsort(known, kind="stable")
    known = known[order]
    labels = _labels(train, len(known))
    if labels is not None:
        labels = labels[order]
    found = {}
    for name, rows in held_out.items():
        digests = _digests(rows)
        first, last = (np.searchsorted(known, digests, side=side) for side in ("left", "right"))
        (places,) = np.nonzero(last > first)
        theirs = _labels(rows, len(digests))
        other = None
        if labels is not None and theirs is not None:
            other = sum(bool((labels[first[i] : last[i]] != theirs[i]).any()) for i in places)
        example = (int(places[0]) + 1, int(order[first[places[0]]]) + 1) if len(places) else None
        found[name] = Seen(len(places), other, example, (len(digests), len(known)))
    return found


def _labels(rows: Dataset, count: int) -> np.ndarray | None:
    if "label" not in rows.column_names:
        return None
    return _column(rows, "label")[:count]


def _column(rows: Dataset, name: str) -> np.ndarray:
    """(rows,) numbers. `rows[name]` would be read one by one."""
    return rows.with_format("numpy", columns=[name])[:][name]


def _digests(rows: Dataset) -> np.ndarray:
    """(rows,) uint64, of the first `LIMIT` rows, or of those that hold the first `LIMIT_BYTES` of text."""
    return digests(rows, text_columns(rows), LIMIT, LIMIT_BYTES)
