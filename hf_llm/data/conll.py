"""CoNLL's columns: a word a line with its tags, a blank line after each sentence.

CoNLL-U (universaldependencies.org/format.html) names its ten columns; other files name none, so that here they are
"0", "1", … from the left, and "-1" is the last. `data.column_names` names them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pyarrow as pa

from hf_llm.config import DataConfig, InputError
from hf_llm.data import word_columns
from hf_llm.data.columns import Column, present, shorten
from hf_llm.data.decoding import lines
from hf_llm.data.rows import Rows, from_table

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
DOCUMENT = "-DOCSTART-"  # of CoNLL-2003: where a document begins
DEFAULTS = {"conllu": {"words": "form", "tags": "upos"}, "conll": {"words": "0", "tags": "-1"}}


@dataclass
class Sentence:
    line: int  # of its first word, from 1
    words: list[list[str]] = field(default_factory=list)  # a list of fields for each


def parse_conll(text: str, where: str, form: str, columns: Sequence[Column], cfg: DataConfig) -> Rows:
    """The sentences of a file as rows, each column a list of strings.

    Comments, and where the first column counts the words, as in CoNLL-U, the ranges (`1-2`) and empty nodes (`8.1`),
    which are no words of the sentence, are passed over.

    Raises:
        InputError: a word has another number of columns than the first, or a column is not there or holds no words.
    """
    found = list(sentences(text, form, cfg.delimiter))
    documents = [s for s in found if s.words[0][0].strip() == DOCUMENT]
    found = [s for s in found if s.words[0][0].strip() != DOCUMENT]
    if form == "conllu" or (found and word_columns.counts([s.words for s in found], 0)):
        found = [s for s in (without_ranges(s) for s in found) if s.words]
    if not found:
        raise InputError(f"{where}: no sentence; give a word a line, and a blank line after each sentence")
    width = len(found[0].words[0])
    for sentence in found:
        _check_width(sentence, width, where)
    names = list(cfg.column_names or (CONLLU if form == "conllu" else map(str, range(width))))
    if len(names) != width:
        given = "data.column_names has" if cfg.column_names else "CoNLL-U has"
        raise InputError(f"{where}, line {found[0].line}: {width} columns, and {given} {len(names)}")
    wanted = [_by_number(column, names, form) for column in columns]
    here = present(wanted, names, where)
    if form == "conll":
        _refuse_mistaken(found, columns, {column.name: column.source for column in here}, names, where)
    table = {}
    for asked, column in zip(columns, wanted, strict=True):
        if column in here:
            values = [[word[names.index(column.source)] for word in s.words] for s in found]
            table[asked.source] = pa.array([words[0] for words in values] if asked.kind == "group" else values)
    lines = np.array([sentence.line for sentence in found])
    return Rows(
        from_table(pa.table(table)),
        where,
        unit="sentence",
        left_out=Counter({"document marks": len(documents)} if documents else {}),
        line_of=lambda number: int(lines[number - 1]),
    )


def refuse_columns(text: str, where: str) -> None:
    """Raises InputError where a text, to be read as a sentence a line, is columns whose first one counts the words."""
    rows = [sentence.words for sentence in islice(sentences(text, "conll", None), 20)]
    widths = {len(fields) for words in rows for fields in words}
    if "\t" not in text or len(widths) != 1 or not word_columns.counts(rows, 0):
        return
    (width,) = widths
    if len(rows) > 1 or width > 3:
        form = "conllu" if width == len(CONLLU) else "conll"
        words = word_columns.propose(rows, None)["words"]
        raise InputError(
            f"{where}: the lines are CoNLL's, a word a line in {width} columns, and no sentences; set "
            f"data.format={form}" + (f" and data.columns.words={words}" if form == "conll" else "")
        )


def _refuse_mistaken(
    found: Sequence[Sentence], asked: Sequence[Column], sources: dict[str, str], names: list[str], where: str
) -> None:
    """Raises InputError where the column of words holds none, or that of tags surely is another."""
    places = {column.kind: names.index(sources[column.name]) for column in asked if column.name in sources}
    by_default = any(column.kind == "tags" and column.source == column.name for column in asked)
    rows = [sentence.words for sentence in found]
    if "words" in places and (wrong := word_columns.refusal(rows, places["words"], places.get("tags"), by_default)):
        raise InputError(f"{where}: {wrong}")


def _by_number(column: Column, names: Sequence[str], form: str) -> Column:
    """The column under its name in the file: "-1" is the last, and a canonical name the format's own default."""
    source = column.source
    if source == column.name and source not in names:
        source = DEFAULTS[form].get(source, source)
    if source.lstrip("-").isdigit() and source not in names and -len(names) <= int(source) < len(names):
        source = names[int(source)]
    return replace(column, source=source)


def sentences(text: str, form: str, delimiter: str | None) -> Iterator[Sentence]:
    """The sentences of a file, a list of fields for each word, and without comments."""
    sentence: Sentence | None = None
    width = 0  # of the first word: "# 1" may be a comment, or a word with its tag
    for number, line in enumerate(lines(text), 1):
        if not line.strip():
            if sentence:
                yield sentence
            sentence = None
            continue
        separator = delimiter
        if separator is None:
            separator = "\t" if form == "conllu" or "\t" in line else ""
        fields = line.split(separator) if separator else re.split(r"[ \t]+", line.strip(" \t"))
        if sentence is None and line.startswith("#") and _is_comment(line, fields, form, width):
            continue
        delimiter, width = separator, width or len(fields)  # the first word's holds for all; a comment may have none
        sentence = sentence or Sentence(number)
        sentence.words.append(fields)
    if sentence:
        yield sentence


def _is_comment(line: str, fields: list[str], form: str, width: int) -> bool:
    """A word may begin with "#" too: then its line has as many columns as the others."""
    if form == "propositions":  # whose sentences differ in their columns
        return len(fields) == 1 or (line.startswith(("# ", "#begin document", "#end document")) and "\t" not in line)
    return form == "conllu" or (line.startswith("# ") and (len(fields) != width or width == 0))


def without_ranges(sentence: Sentence) -> Sentence:
    """The sentence without CoNLL-U's ranges and empty nodes."""
    kept = word_columns.without_ranges(sentence.words)
    return Sentence(sentence.line + (kept[0][0] if kept else 0), [list(fields) for _, fields in kept])


def _check_width(sentence: Sentence, width: int, where: str) -> None:
    for offset, word in enumerate(sentence.words):
        if len(word) != width:
            raise InputError(
                f"{where}, line {sentence.line + offset}: {len(word)} columns where the first word has {width}: "
                f"{shorten(' '.join(word))!r}; set data.delimiter if it is not what separates them"
            )
