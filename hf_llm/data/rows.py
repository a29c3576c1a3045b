"""Rows of one source, what is wrong with them, and what was left out and why."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value
from datasets.table import InMemoryTable

from hf_llm.config import InputError
from hf_llm.data import answers, predicates, references, words
from hf_llm.data.columns import Column, present

logger = logging.getLogger(__name__)


@dataclass
class Tally:
    """What came of the rows of one file, or of one part of a data set, that is read a row at a time."""

    read: int = 0
    used: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> rows


@dataclass
class Rows:
    """The rows of one file or of one split of a Hub data set, with what a message needs to point at one of them."""

    dataset: Dataset
    where: str  # the file, or the data set and its split
    numbers: np.ndarray | None = None  # (rows,) int: the number of each in its file, from 1; None: 1, 2, 3, …
    unit: str = "row"  # what is counted: row, line, paragraph or document
    read: int = 0  # rows in the file, those left out included
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> rows
    line_of: Callable[[int], int] | None = None  # row number -> its line in the file, where these differ

    def __post_init__(self) -> None:
        self.read = self.read or len(self.dataset) + sum(self.left_out.values())

    def at(self, index: int) -> str:
        """Where the row with this index is: "train.csv, row 3 (line 5)"."""
        number = index + 1 if self.numbers is None else int(self.numbers[index])
        line = f" (line {self.line_of(number)})" if self.line_of else ""
        return f"{self.where}, {self.unit} {number}{line}"

    def select(self, keep: np.ndarray) -> None:
        """Keeps the rows where `keep` (rows,) bool is true."""
        (indices,) = np.nonzero(keep)
        self.numbers = indices + 1 if self.numbers is None else self.numbers[indices]
        if self.dataset.cache_files:  # on disk, perhaps larger than memory
            self.dataset = self.dataset.select(indices).flatten_indices()
        else:
            table = InMemoryTable(self.dataset.data.table.filter(pa.array(keep)))
            self.dataset = Dataset(table, info=self.dataset.info)


def clean(rows: Rows, columns: Sequence[Column], bad_rows: str) -> None:
    """Gives `rows` the canonical columns, in order, texts as strings; bad rows are an error or are left out.

    A label column is left as it is: `labels.encode` turns it into ids, when those of every split have been seen.

    Raises:
        InputError: a column is missing or is not text; or, unless `bad_rows` is "skip", a text or label is null or
            empty.
    """
    columns = present(columns, rows.dataset.column_names, rows.where)
    dataset = rows.dataset.select_columns([column.source for column in columns])
    if [c.source for c in columns] != [c.name for c in columns]:
        dataset = dataset.rename_columns({c.source: c.name for c in columns if c.source != c.name})
    found: dict[str, dict[str, np.ndarray]] = {}  # column -> its problems, where they are known already
    for column in columns:
        if column.kind == "text":
            dataset = _as_text(dataset, column, rows)
        elif column.kind in words.KINDS:
            words.check(dataset, column, rows.where)
        elif column.kind == "answers":
            dataset, found[column.name] = answers.canonical(dataset, column)
        elif column.kind == "group":
            dataset = _as_group(dataset, column, rows.where)
        elif column.kind == "id":  # may be a number
            dataset = dataset.cast_column(column.name, Value("string"))
        elif column.kind == references.KIND:
            dataset = references.as_lists(dataset, column, rows.where)
        elif column.kind == "predicate":
            predicates.check(dataset, column, rows.where)
    rows.dataset = dataset

    keep = np.ones(len(dataset), dtype=bool)
    for column in columns:
        if column.kind in ("label", "tags", "roles") and column.optional:
            continue
        for problem, mask in (found[column.name] if column.name in found else _problems(dataset, column)).items():
            bad = keep & mask
            count = int(bad.sum())
            if not count:
                continue
            if bad_rows != "skip":
                raise InputError(
                    f"{rows.at(int(bad.argmax()))}: {problem} in column '{column.source}' "
                    f"({count:,} such {rows.unit}{'s' * (count > 1)}); data.bad_rows=skip leaves them out"
                )
            rows.left_out[f"{problem} in column '{column.source}'"] += count
            keep &= ~mask
    if not keep.all():
        rows.select(keep)


BLANK_LINES = "blank lines"  # why lines of a text are left out


def refuse_blank_lines(rows: Rows) -> None:
    """Raises InputError where blank lines of a text are left out: what is after one would be off by it."""
    count = rows.left_out[BLANK_LINES]
    if not count or rows.numbers is None:
        return
    shifted = np.flatnonzero(rows.numbers != np.arange(1, len(rows.numbers) + 1))
    line = (int(shifted[0]) if len(shifted) else len(rows.numbers)) + 1
    raise InputError(
        f"{rows.where}, line {line}: blank ({count:,} such line{'s' * (count > 1)}), and a line is a row; "
        f"data.bad_rows=skip leaves them out"
    )


def _as_text(dataset: Dataset, column: Column, rows: Rows) -> Dataset:
    kind = dataset.data.column(column.name).type
    if pa.types.is_string(kind):
        return dataset
    if pa.types.is_large_string(kind) or pa.types.is_null(kind) or pa.types.is_string_view(kind):
        return dataset.cast_column(column.name, Value("string"))
    raise InputError(f"{rows.where}: {not_text(column, kind)}")


def _as_group(dataset: Dataset, column: Column, where: str) -> Dataset:
    kind = dataset.data.column(column.name).type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise InputError(f"{where}: data.group_by={column.source}: the column holds {kind}, not one value a row")
    return dataset.cast_column(column.name, Value("string"))


def not_text(column: Column, kind: object) -> str:
    """What is wrong with a text column of another type."""
    key = column.name.removesuffix("_pair")
    return f"column '{column.source}' holds {kind}, not text; set data.columns.{key} to a text column"


def _problems(dataset: Dataset, column: Column) -> dict[str, np.ndarray]:
    """Problem -> (rows,) bool."""
    if column.kind in words.KINDS:
        return words.problems(dataset, column)
    if column.kind == "predicate":
        return predicates.problems(dataset, column)
    values, feature = dataset.data.column(column.name), dataset.features[column.name]
    if column.kind == references.KIND:
        return references.problems(values)
    null = pc.is_null(values)
    problems = {"null": null.to_numpy()}
    if pa.types.is_string(values.type):
        empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), False)
        problems[f"empty {column.kind}"] = empty.to_numpy()
    elif isinstance(feature, ClassLabel):
        # -1 is how the Hub's benchmarks (GLUE, …) write "not given"
        problems["no label (-1)"] = pc.fill_null(pc.equal(values, -1), False).to_numpy()
    return problems


def report(split: str, parts: Sequence[Rows | Tally], used: int, unit: str, note: str = "") -> dict[str, Any]:
    """One INFO line for a split: rows read, used, and left out with the reason for each. Returns what it says."""
    left_out: Counter[str] = Counter()
    for rows in parts:
        left_out.update(rows.left_out)
    read = sum(rows.read for rows in parts)
    why = "; left out: " + ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) if left_out else ""
    logger.info("%s: %s read%s, %s used%s", split, f"{read:,} {unit}{'s' * (read != 1)}", note, f"{used:,}", why)
    return {"read": read, "used": used, "left_out": dict(left_out)}


def from_table(table: pa.Table) -> Dataset:
    """A data set over a table in memory; text columns of any Arrow type become plain strings."""
    for index, (name, kind) in enumerate(zip(table.schema.names, table.schema.types, strict=True)):
        if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
            table = table.set_column(index, name, table.column(index).cast(pa.string()))
    return Dataset(InMemoryTable(table))
