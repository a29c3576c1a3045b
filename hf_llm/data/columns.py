"""Which of a source's columns become the task's canonical ones, and the error for one that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hf_llm.config import DataConfig, InputError


@dataclass(frozen=True)
class Column:
    """A canonical column and the column of the source that it is read from."""

    name: str
    source: str
    kind: str  # text, texts, label, words, tags, answers, id, predicate, roles or group
    optional: bool = False


def wanted(columns: Mapping[str, str], cfg: DataConfig) -> list[Column]:
    """The task's `columns` (name -> kind, a trailing "?" for optional), found under the names of `cfg.columns`.

    Two sources for a text column are a pair: canonical `text` and `text_pair`.

    Raises:
        InputError: `cfg.columns` names a column that the task has no use for, or not by a name or a list of two.
    """
    for name in cfg.columns:
        if name not in columns:
            raise InputError(f"data.columns.{name}: this task has no such column; it has {listed(columns, near=name)}")
    result: list[Column] = []
    for name, kind in columns.items():
        source = name if cfg.columns.get(name) is None else cfg.columns[name]
        optional, kind = kind.endswith("?"), kind.removesuffix("?")
        sources = source if isinstance(source, (list, tuple)) else [source]
        is_pair = kind == "text" and len(sources) == 2
        if not (len(sources) == 1 or is_pair) or not all(_is_name(s) for s in sources):
            right = "a column's name, or a list of two for a pair of texts" if kind == "text" else "a column's name"
            raise InputError(f"data.columns.{name}={source!r}: give {right}")
        sources = [str(s) for s in sources]
        if taken := [s for s in sources if s in {c.source for c in result} or sources.count(s) > 1]:
            raise InputError(f"data.columns.{name}={source!r}: column {taken[0]!r} is used twice")
        result += [Column(c, s, kind, optional) for c, s in zip([name, f"{name}_pair"], sources, strict=False)]
    return result


def _is_name(source: object) -> bool:
    """A text, or a number: pandas calls the columns of a table without a header 0, 1, 2, …"""
    return isinstance(source, (str, int, float)) and not isinstance(source, bool)


def present(columns: Sequence[Column], available: Sequence[str], where: str, hint: str = "") -> list[Column]:
    """Those of `columns` that the source has.

    Raises:
        InputError: one that is not optional is missing, or the source has two columns of its name.
    """
    for column in columns:
        count = list(available).count(column.source)
        if count > 1:
            raise InputError(f"{where}: {count} columns are called {column.source!r}; rename all but one")
        if count == 0 and not column.optional:
            key = "group_by" if column.kind == "group" else f"columns.{column.name.removesuffix('_pair')}"
            near = listed(available, near=column.source)
            raise InputError(f"{where}: no column {column.source!r} for data.{key}; it has {near}{hint}")
    return [column for column in columns if column.source in available]


def listed(names: Iterable[str], near: str | None = None, most: int = 12) -> str:
    """The names for a message, the one most like `near` first: "'lable', ' text ' and 3 more"."""
    names = [str(name) for name in names]
    if near is not None:
        likeness = {name: difflib.SequenceMatcher(None, near.lower(), name.lower()).ratio() for name in names}
        names.sort(key=lambda name: -likeness[name])
    if not names:
        return "none"
    shown = [quoted(name) for name in names[:most]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def quoted(name: str) -> str:
    """A name between quotes, not too long of one; white space shows."""
    return repr(name if len(name) <= 60 else f"{name[:59]}…")


def shorten(text: str, most: int = 60) -> str:
    """The beginning of a text, on one line."""
    text = " ".join(text[: 4 * most].split())
    return text if len(text) <= most else text[: most - 1] + "…"
