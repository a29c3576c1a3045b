"""Predicates with the roles of the words around them, a row for each: the column kinds "predicate" and "roles".

A row is a sentence, the number of its predicate among its words (from 0), and BIO tags. A sentence without predicates
is one row, without a number. Rows of one sentence stand together, in the order of their predicates.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from hf_llm.config import DataConfig, InputError
from hf_llm.data import proposition_columns
from hf_llm.data.columns import Column, present, shorten
from hf_llm.data.conll import Sentence, refuse_columns, sentences, without_ranges
from hf_llm.data.decoding import lines
from hf_llm.data.json_objects import parse_row
from hf_llm.data.jsonlines import json_lines
from hf_llm.data.rows import BLANK_LINES, Rows, from_table
from hf_llm.data.words import split

TAG = re.compile(r"O|[BI]-.+")
BRACKETS = re.compile(r"(?:\((?P<role>[^()*]+))?\*(?P<end>\))?")  # (A0*, *, *), (V*)


@dataclass
class Row:
    line: int  # where it begins, from 1
    words: Any
    predicate: Any = None
    tags: Any = None
    group: str | None = None  # its value in the column of data.group_by


def parse(text: str, where: str, form: str, columns: Sequence[Column], cfg: DataConfig) -> Rows:
    """The rows of a text, of CoNLL's columns or of JSON lines; a text is split as `words.split` does.

    Raises:
        InputError: what is wrong, with the file and the place; with `cfg.bad_rows` "skip" a sentence of CoNLL that is
            not as it should be is left out.
    """
    asked = {column.kind: column for column in columns}
    left_out: Counter[str] = Counter()
    rows: list[Row] = []
    if form == "txt":
        refuse_columns(text, where)
        given = lines(text)
        rows = [Row(n, split(line)) for n, line in enumerate(given, 1) if line.strip()]
        left_out += Counter({BLANK_LINES: len(given) - len(rows)})  # less those of which there are none
        present(
            list(asked.values()),
            [asked["words"].source],
            where,
            hint=": a text file has no other (conll, jsonl, parquet may)",
        )
    elif form in ("conll", "conllu"):
        found = list(sentences(text, "propositions", cfg.delimiter))
        if form == "conllu" or proposition_columns.count_words(found):
            found = [sentence for sentence in map(without_ranges, found) if sentence.words]
        if found:
            rows = list(_of_conll(found, where, form, asked, cfg, left_out))
    else:
        rows = list(_of_json(text, where, columns))
    if not rows:
        raise InputError(f"{where}: no row; a sentence is a line of text, JSON with words, or CoNLL's lines of words")
    table = {"words": pa.array([row.words for row in rows], pa.list_(pa.string()))}
    table["predicate"] = pa.array([row.predicate for row in rows], pa.int64())
    if "roles" in asked and any(row.tags is not None for row in rows):
        table["roles"] = pa.array([row.tags for row in rows], pa.list_(pa.string()))
    if "group" in asked:
        table["group"] = pa.array([row.group for row in rows], pa.string())
    here = {kind: values for kind, values in table.items() if kind in asked}
    starts = np.array([row.line for row in rows])
    return Rows(
        from_table(pa.table({asked[kind].source: values for kind, values in here.items()})),
        where,
        numbers=starts if form == "txt" else None,
        unit="line" if form == "txt" else "row",
        left_out=left_out,
        line_of=(lambda number: int(starts[number - 1])) if form in ("conll", "conllu") else None,
    )


def _of_conll(
    found: Sequence[Sentence],
    where: str,
    form: str,
    asked: dict[str, Column],
    cfg: DataConfig,
    left_out: Counter[str],
) -> Iterator[Row]:
    """A row for each column of roles: they stand side by side, in the order of their predicates."""
    places = proposition_columns.places(found, asked, list(cfg.column_names or ()), form, where)
    for sentence in found:
        try:
            yield from list(_of_sentence(sentence, places, heads=form == "conllu"))
        except _Bad as bad:
            if cfg.bad_rows != "skip":
                raise InputError(
                    f"{where}, line {bad.line}: {bad} (data.bad_rows=skip leaves out the sentence)"
                ) from bad
            left_out[bad.kind] += 1


class _Bad(Exception):
    def __init__(self, line: int, kind: str, more: str = ""):
        super().__init__(f"{kind}{more}")
        self.line, self.kind = line, kind


def _of_sentence(sentence: Sentence, places: dict[str, Any], heads: bool) -> Iterator[Row]:
    width = len(sentence.words[0])
    least = max(place + 1 for place in places.values() if isinstance(place, int))
    for offset, fields in enumerate(sentence.words):
        if len(fields) != width or len(fields) < least:
            right = f"{width}, as the first word of the sentence" if width >= least else f"{least} at least"
            raise _Bad(
                sentence.line + offset, "a word with another number of columns", f": {len(fields)}, not {right}"
            )
    words = [fields[places["words"]] for fields in sentence.words]
    group = sentence.words[0][places["group"]] if "group" in places else None
    given = [fields[places["predicate"]] for fields in sentence.words] if "predicate" in places else []
    predicates = [i for i, sense in enumerate(given) if sense not in proposition_columns.NONE]
    if places["roles"] is None:
        yield from (Row(sentence.line, words, i, group=group) for i in predicates or (None,))
        return
    columns = list(zip(*(fields[places["roles"]] for fields in sentence.words), strict=True))
    if len(columns) != len(predicates):
        raise _Bad(
            sentence.line,
            "another number of columns of roles than of predicates",
            f": {len(columns)} from column {places['roles'].start} on, and {len(predicates)} in column "
            f"{places['predicate']}",
        )
    if not predicates:
        yield Row(sentence.line, words, None, ["O"] * len(words), group)
    for i, column in zip(predicates, columns, strict=True):
        is_bio = any(TAG.fullmatch(tag) or "*" in tag for tag in column)
        tags = _of_heads(column, i) if heads and not is_bio else _bio(column, sentence.line)
        marked = [place for place, tag in enumerate(tags) if tag == "B-V"]
        if marked and i not in marked:
            said = f": {words[marked[0]]!r}, where column {places['predicate']} has {words[i]!r}"
            raise _Bad(sentence.line + marked[0], "a column of roles whose V is another word than the predicate", said)
        yield Row(sentence.line, words, i, tags, group)


def _of_heads(column: Sequence[str], predicate: int) -> list[str]:
    """The roles of Universal PropBank, which stand at the head words of arguments: spans of one word each."""
    tags = ["O" if role in proposition_columns.NONE else f"B-{role}" for role in column]
    return tags if "B-V" in tags else [*tags[:predicate], "B-V", *tags[predicate + 1 :]]


def _bio(column: Sequence[str], line: int) -> list[str]:
    """BIO as it is; the brackets of CoNLL-2005 and 2012, `(A0*`, `*`, `*)`, made so."""
    tags, role = [], None
    for offset, tag in enumerate(column):
        if TAG.fullmatch(tag):
            tags.append(tag)
            continue
        found = BRACKETS.fullmatch(tag)
        if not found or (found["role"] and role) or (found["end"] and not (found["role"] or role)):
            raise _Bad(line + offset, "a role that is neither BIO nor a bracket", f": {shorten(tag)!r}")
        beginning, role = found["role"], found["role"] or role
        tags.append("O" if role is None else f"{'B' if beginning else 'I'}-{role}")
        role = None if found["end"] else role
    return tags


def _of_json(text: str, where: str, columns: Sequence[Column]) -> Iterator[Row]:
    """An object a line: words, or in their place a text; a predicate by its number, or as a word that occurs once."""
    asked = {column.kind: column for column in columns}
    source = asked["words"].source
    for number, line in enumerate((line for line in json_lines(text, where, columns).split("\n") if line.strip()), 1):
        at = f"{where}, row {number}"
        values = parse_row(line, at, columns)
        found = {kind: values.get(column.source, values.get(column.name)) for kind, column in asked.items()}
        words = values.get("text") if found["words"] is None else found["words"]
        if isinstance(words, str):
            words = split(words)
        elif words is None and not {source, "words", "text"} & set(values):
            present([asked["words"]], list(values), at, hint="; or give a 'text'")
        elif words is not None and not _are_texts(words):
            raise InputError(
                f"{at}: column '{source}' holds {shorten(json.dumps(words))}, not a list of words or a text"
            )
        tags = found.get("roles")
        if tags is not None and not _are_texts(tags):
            said = f"column '{asked['roles'].source}' holds {shorten(json.dumps(tags))}, not a list of tags"
            raise InputError(f"{at}: {said}")
        group = found.get("group")
        if "group" in asked and group is None:
            present([asked["group"]], list(values), at)
        group = group if group is None or isinstance(group, str) else json.dumps(group)
        yield Row(number, words, _number(found.get("predicate"), words or [], at), tags, group)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(item is None or isinstance(item, str) for item in value)


def _number(predicate: Any, words: Sequence[str], at: str) -> int | None:
    """Which of the words the predicate is; whether there are so many is seen to with the rows of every format."""
    if predicate is None or (isinstance(predicate, int) and not isinstance(predicate, bool)):
        return predicate
    if not isinstance(predicate, str):
        raise InputError(
            f"{at}: predicate {shorten(json.dumps(predicate))}: give the number of a word, from 0, or a word"
        )
    if (count := words.count(predicate)) != 1:
        said = "stands there" if count else "does not stand there"
        times = f" {count} times: give its number, from 0" if count else f": {shorten(' '.join(words))!r}"
        raise InputError(f"{at}: predicate {predicate!r} {said}{times}")
    return words.index(predicate)
