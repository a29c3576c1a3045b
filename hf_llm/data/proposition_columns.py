"""In which of CoNLL's columns words, predicates and roles stand, and what is wrong with columns that cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hf_llm.config import InputError
from hf_llm.data import word_columns
from hf_llm.data.columns import Column, quoted
from hf_llm.data.conll import CONLLU, Sentence

NONE = ("_", "-")  # what stands for no predicate: of CoNLL-U's kin, of CoNLL-2005 and 2012
MOST = 0.5  # of the words are predicates: then the column is another
SENSE = re.compile(r"[^\W\d].*\.\w\w")  # kill.01
UP_2 = re.compile(r"[\w-]+:\d+(-\d+)?(\|.+)?")  # A0:1-2|A1:4-6: all arguments of a predicate in one column
# Universal PropBank 1.0: after CoNLL-U's ten columns the senses, then the roles of each predicate
DEFAULTS = {"words": 1, "predicate": len(CONLLU), "roles": slice(len(CONLLU) + 1, None)}


def count_words(found: Sequence[Sentence]) -> bool:
    """Whether the first column counts the words of each sentence."""
    return bool(found) and word_columns.counts([sentence.words for sentence in found], 0)


def places(
    found: Sequence[Sentence], asked: Mapping[str, Column], names: list[str], form: str, where: str
) -> dict[str, Any]:
    """Kind of column -> its number, of roles a slice or None; no predicate where the file need not have any.

    Raises:
        InputError: a column is not numbered, or surely is another.
    """
    example = partial(_example, found)
    conllu = form == "conllu" and not names
    width = max(len(sentence.words[0]) for sentence in found)
    result: dict[str, Any] = {"roles": None}
    for kind, column in asked.items():
        if conllu and kind in DEFAULTS and column.source == column.name:
            if width <= len(CONLLU) and kind != "words":
                if "roles" not in asked:  # to predict on: the predicates are to be found
                    continue
                raise InputError(
                    f"{where}: CoNLL-U's ten columns, without predicates and roles; they stand after those in "
                    f"Universal PropBank's files, or give data.columns"
                )
            result[kind] = DEFAULTS[kind]
        else:
            result[kind] = _place(column, names, where, example)
    words = [sentence.words for sentence in found]
    if word_columns.counts(words, result["words"]):
        raise InputError(
            f"{where}: column {result['words']} counts the words (1, 2, 3, …) and holds none; give {example()}"
        )
    if "predicate" in result:
        _check_predicates(words, result["predicate"], where, example)
    if isinstance(result["roles"], slice):
        _refuse_arguments_in_one_column(words, result["roles"].start, where)
    return result


def _place(column: Column, names: list[str], where: str, example: Callable[[], str]) -> Any:
    """A column by its name or its number from the left; the first of the roles, or with the one after the last."""
    source = column.source
    if source in names:
        return slice(names.index(source), None) if column.kind == "roles" else names.index(source)
    if column.kind == "words" and source == column.name:
        return 0
    found = re.fullmatch(r"(\d+)(?::(-?\d+)?)?", source)
    if not found or (column.kind != "roles" and ":" in source):
        key = "group_by" if column.kind == "group" else f"columns.{column.name}"
        raise InputError(
            f"{where}: which column is data.{key}={source}? Number them from 0, as in {example()}, where tags is the "
            "first of the columns of roles"
        )
    first = int(found[1])
    return slice(first, int(found[2]) if found[2] else None) if column.kind == "roles" else first


def _example(found: Sequence[Sentence]) -> str:
    """The columns that look like words, predicates and the first roles; else some."""
    words = [sentence.words for sentence in found]
    width = min(len(fields) for sentence in words for fields in sentence)
    for place in range(1, width):
        values = [fields[place] for sentence in words for fields in sentence]
        senses = [value for value in values if value not in NONE]
        if senses and all(map(SENSE.fullmatch, senses)) and len(senses) <= MOST * len(values):
            text = word_columns.propose([[fields[:place] for fields in sentence] for sentence in words], None)["words"]
            return f"data.columns={{words: {text}, predicate: {place}, tags: {place + 1}}}"
    return "data.columns={words: 1, predicate: 4, tags: 5}"


def _check_predicates(words: Sequence[word_columns.Words], place: int, where: str, example: Callable[[], str]) -> None:
    values = [fields[place] for sentence in words for fields in sentence if place < len(fields)]
    given = [value for value in values if value not in NONE]
    if len(values) > 20 and len(given) > MOST * len(values):
        raise InputError(
            f"{where}: column {place} is no column of predicates: {len(given):,} of {len(values):,} words have "
            f"something in it ({', '.join(map(quoted, given[:3]))}, …), and what is no predicate has _ or -; give "
            f"{example()}"
        )


def _refuse_arguments_in_one_column(words: Sequence[word_columns.Words], place: int, where: str) -> None:
    values = [fields[place] for sentence in words for fields in sentence if place < len(fields)]
    given = [value for value in values if value not in NONE]
    if given and all(map(UP_2.fullmatch, given)):
        raise InputError(
            f"{where}: column {place} has all arguments of a predicate ({quoted(given[0])}), as Universal PropBank 2 "
            "has them; a column of roles for each predicate is read, or JSON lines with words, predicate and tags"
        )
