"""A row of JSON: an object, in which `json` would keep the last of two values of a key without a word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hf_llm.config import InputError
from hf_llm.data.columns import Column, shorten

# id -> the object, kept so that no other gets its id, and its keys as they stand in the text
Repeated = dict[int, tuple[dict[str, Any], list[str]]]


def loads(text: str) -> tuple[Any, Repeated]:
    """As `json.loads`; beside it the objects that have a key more than once."""
    repeated: Repeated = {}

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated[id(found)] = (found, [key for key, _ in pairs])
        return found

    return json.loads(text, object_pairs_hook=once), repeated


def refuse_repeated(row: Any, repeated: Repeated, columns: Sequence[Column], at: str) -> None:
    """Raises InputError where a key that is asked for is more than once in the row itself."""
    _, keys = repeated.get(id(row), (None, []))
    for column in columns:
        for key in (column.source, column.source.split(".")[0]):
            if keys.count(key) > 1:
                raise InputError(f"{at}: {twice(key)}")


def twice(key: str) -> str:
    """What is wrong with a row of two values for a key."""
    return f"key '{key}' is there twice; give each key of a row once"


def parse_row(line: str, at: str, columns: Sequence[Column]) -> dict[str, Any]:
    """The object of a line.

    Raises:
        InputError: it is no JSON or no object, or one of the columns is there twice.
    """
    try:
        row, repeated = loads(line)
    except ValueError as error:
        text = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{at}: not valid JSON: {text}; give an object a line") from error
    if not isinstance(row, dict):
        raise InputError(f"{at}: {shorten(line)} is not an object {{column: value}}")
    refuse_repeated(row, repeated, columns, at)
    return row
