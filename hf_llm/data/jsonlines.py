"""json and jsonl, with pyarrow's reader told which columns are text: a date stays the text that it is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.json

from hf_llm.config import InputError
from hf_llm.data import answers, references
from hf_llm.data.columns import Column, present, shorten
from hf_llm.data.json_objects import loads, parse_row, refuse_repeated, twice
from hf_llm.data.labels import no_label
from hf_llm.data.rows import Rows, from_table


def parse_json(text: str, where: str, columns: Sequence[Column]) -> Rows:
    """An object a line, or one array of objects (also as the only list in an object, like {"data": [...]})."""
    lines = json_lines(text, where, columns)
    if any(column.kind in answers.KINDS for column in columns):
        return _of_questions(lines, columns, where)
    lines = references.lifted_json(lines, where, columns)
    encoded = lines.encode("utf-8", "surrogatepass")
    known = {
        "text": pa.string(),
        "group": pa.string(),
        "words": pa.list_(pa.string()),
        references.KIND: pa.list_(pa.string()),
    }
    texts = {column.source: known[column.kind] for column in columns if column.kind in known}
    tags = [column.source for column in columns if column.kind == "tags"]
    labels = [column.source for column in columns if column.kind == "label"] + tags
    error: Exception | None = None
    for kind in (pa.string(), pa.int64(), pa.bool_(), pa.float64()) if labels else (None,):
        schema = pa.schema({**texts, **{name: pa.list_(kind) if name in tags else kind for name in labels}})
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(encoded),
                pyarrow.json.ReadOptions(use_threads=False, block_size=min(len(encoded) + 1, 2**31 - 1)),
                pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
            break
        except pa.ArrowInvalid as problem:
            error = error or problem
            # only a label of another type is worth another try
            again = [f"Column(/{label}" for label in labels] + ["Failed to convert JSON to"]
            if not any(cause in str(problem) for cause in again):
                raise InputError(_json_message(problem, where, labels)) from problem
    else:
        raise InputError(_json_message(error, where, labels))
    unseen = {name for name in table.column_names if table[name].null_count == len(table)}
    if unseen:  # all null, or not there at all?
        keys = dict.fromkeys(key for line in lines.split("\n") if line.strip() for key in json.loads(line))
        columns = present(columns, list(keys), where)
        table = table.select([column.source for column in columns])
    return Rows(from_table(table), where)


def _of_questions(lines: str, columns: Sequence[Column], where: str) -> Rows:
    """Rows with answers, which are lists in objects, or of SQuAD's articles: both come in several forms."""
    given = (line for line in lines.split("\n") if line.strip())
    rows = [parse_row(line, f"{where}, row {number}", columns) for number, line in enumerate(given, 1)]
    rows = answers.flat(rows, where)
    columns = present(columns, list(dict.fromkeys(key for row in rows for key in row)), where)
    return Rows(from_table(answers.table(rows, columns, where)), where)


def json_lines(text: str, where: str, columns: Sequence[Column]) -> str:
    """The text of a JSON file as an object a line; of an object over many lines, and of an array, too."""
    if not text.lstrip().startswith("[") and "\n" in text.strip():
        first = text.lstrip().split("\n", 1)[0]
        try:
            if isinstance(json.loads(first), dict):
                return text
        except ValueError:
            pass  # one object over many lines
    try:
        whole, repeated = loads(text)
    except ValueError:
        return text  # the error will name the row
    if isinstance(whole, dict):
        lists = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        whole = lists[0] if len(lists) == 1 else [whole]
    if isinstance(whole, list) and whole and all(isinstance(row, str) for row in whole):
        whole = [{"text": row} for row in whole]
    if not isinstance(whole, list) or not whole:
        raise InputError(f"{where}: no rows; give an object a line, or an array of objects")
    for number, row in enumerate(whole, 1):
        if not isinstance(row, dict):
            raise InputError(f"{where}, row {number}: {shorten(json.dumps(row))} is not an object {{column: value}}")
        refuse_repeated(row, repeated, columns, f"{where}, row {number}")
    return "\n".join(map(json.dumps, whole))


def _json_message(error: Exception | None, where: str, labels: Sequence[str]) -> str:
    message = str(error).removeprefix("JSON parse error: ")
    found = re.search(r" in row (\d+)", message)
    at = f"{where}, row {int(found[1]) + 1}" if found else where
    change = re.search(r"Column\(/(.+)\) changed from (\w+) to (\w+)", message)
    if change and change[1] in labels:
        wrong = no_label if change[3] in ("array", "object") else two_types
        return f"{at}: {wrong(change[1], change[3])}"
    if change:
        return f"{at}: column '{change[1]}' holds {change[3]}, not {change[2]}"
    if repeated := re.search(r"Column\(/(.+)\) was specified twice", message):
        return f"{at}: {twice(repeated[1])}"
    return f"{at}: not valid JSON: {message.split(' in row ')[0]}; give an object a line"


def two_types(column: str, kind: str) -> str:
    """What is wrong with a label of another type than those before it."""
    return f"column '{column}' holds {kind} here and another type elsewhere; use one type for labels"
