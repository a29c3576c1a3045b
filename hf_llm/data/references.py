"""The kind "texts": a text, or a list of texts that are all right, such as the references of a translation.

Each row has a list, of one text or more. And the columns that are fields of an object: "translation.en" of
{"translation": {"en": …, "zh": …}}, as the Hub's translation data sets have it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, List, Value
from datasets.table import InMemoryTable

from hf_llm.config import InputError
from hf_llm.data import json_objects
from hf_llm.data.columns import Column

KIND = "texts"


def as_lists(dataset: Dataset, column: Column, where: str) -> Dataset:
    """`dataset` with lists of strings in the column.

    Raises:
        InputError: it holds neither texts nor lists of them.
    """
    kind = dataset.data.column(column.name).type
    wanted = List(Value("string"))
    if _is_list(kind) and (_is_text(kind.value_type) or pa.types.is_null(kind.value_type)):
        return dataset if dataset.features[column.name] == wanted else dataset.cast_column(column.name, wanted)
    if not _is_text(kind) and not pa.types.is_null(kind):
        raise InputError(
            f"{where}: column '{column.source}' holds {kind}, not a text or a list of texts; set "
            f"data.columns.{column.name} to such a column"
        )
    table = dataset.data.table
    index = table.column_names.index(column.name)
    texts = table.column(index).cast(pa.string()).chunks
    lists = [pa.ListArray.from_arrays(pa.array(range(len(chunk) + 1), pa.int32()), chunk) for chunk in texts]
    values = pa.chunked_array(lists, pa.list_(pa.string()))
    return Dataset(InMemoryTable(table.set_column(index, column.name, values).replace_schema_metadata()))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def problems(values: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """Problem -> (rows,) bool, for a column of lists of texts."""
    lists = values.combine_chunks()
    texts = pc.list_flatten(lists)
    rows = pc.list_parent_indices(lists).to_numpy()
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), False)
    found = {"null": pc.is_null(lists), "no text": pc.fill_null(pc.equal(pc.list_value_length(lists), 0), False)}
    masks = {problem: mask.to_numpy(zero_copy_only=False) for problem, mask in found.items()}
    for problem, mask in (("null", pc.is_null(texts)), ("empty text", blank)):
        masks[problem] = masks.get(problem, np.zeros(len(lists), dtype=bool)).copy()
        masks[problem][rows[mask.to_numpy(zero_copy_only=False)]] = True
    return masks


def is_path(source: str, names: Sequence[str]) -> bool:
    """Whether a column is to be looked for inside another: "translation.en", and not of that very name."""
    return source not in names and "." in source and source.split(".")[0] in names


def root(source: str, names: Sequence[str]) -> str:
    """The column that `source` is in."""
    return source.split(".")[0] if is_path(source, names) else source


def names_in(schema: pa.Schema) -> list[str]:
    """The columns, and the fields of those that are structs: translation, translation.en, translation.zh."""
    names = []
    for field in schema:
        names.append(field.name)
        if pa.types.is_struct(field.type):
            names += [f"{field.name}.{name}" for name in names_in(pa.schema(list(field.type)))]
    return names


def lifted_table(table: pa.Table, sources: Sequence[str]) -> pa.Table:
    """The columns `sources` of a table, out of the structs that they are in."""
    if not any(is_path(source, table.column_names) for source in sources):
        return table.select(sources)  # with what its metadata say of label names
    columns = {}
    for source in sources:
        path = source.split(".") if is_path(source, table.column_names) else [source]
        column = table.column(path[0])
        columns[source] = pc.struct_field(column, path[1:]) if path[1:] else column
    return pa.table(columns)


def lifted_dataset(dataset: Dataset, columns: Sequence[Column]) -> Dataset:
    """`dataset`, with its structs taken apart where a column is in one."""
    if any(is_path(column.source, dataset.column_names) for column in columns):
        return dataset.flatten()
    return dataset


def lifted_json(lines: str, where: str, columns: Sequence[Column]) -> str:
    """JSON lines in which objects within objects are lifted out, texts stand in lists, and groups are texts, as
    `columns` have them.

    Raises:
        InputError: naming the row that holds something else than a text or a list of texts.
    """
    if not any(column.kind in (KIND, "group") or "." in column.source for column in columns):
        return lines
    result, number = [], 0
    for line in lines.split("\n"):
        number += bool(line.strip())
        try:
            row, repeated = json_objects.loads(line)
        except ValueError:  # pyarrow will say what is wrong with it, and where
            row, repeated = None, {}
        if isinstance(row, dict):
            json_objects.refuse_repeated(row, repeated, columns, f"{where}, row {number}")
            _lift(row, columns, f"{where}, row {number}")
            line = json.dumps(row)
        result.append(line)
    return "\n".join(result)


def _lift(row: dict[str, Any], columns: Sequence[Column], at: str) -> None:
    for column in columns:
        source = column.source
        if is_path(source, list(row)):
            value: Any = row
            for name in source.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            row[source] = value
        if column.kind == "group" and not isinstance(row.get(source), (str, type(None))):
            row[source] = json.dumps(row[source])
        if column.kind == KIND and row.get(source) is not None:
            texts = row[source] if isinstance(row[source], list) else [row[source]]
            wrong = next((text for text in texts if not isinstance(text, str) and text is not None), None)
            if wrong is not None:
                kind = {bool: "true or false", dict: "an object", list: "a list"}.get(type(wrong), "a number")
                inside = " in its list" if isinstance(row[source], list) else ""
                raise InputError(f"{at}: column '{source}' holds {kind}{inside}; give a text, or a list of texts")
            row[source] = texts
