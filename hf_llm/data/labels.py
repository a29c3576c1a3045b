"""Labels of any kind (text, whole numbers, true/false, ClassLabel) -> ClassLabel ids that every split shares."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

from hf_llm.config import InputError
from hf_llm.data import likeness
from hf_llm.data.columns import Column, listed, quoted, shorten
from hf_llm.data.rows import Rows

logger = logging.getLogger(__name__)

DECIMAL = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")  # also with a decimal comma
DATE = re.compile(r"\d{4}([-/.])\d{1,2}\1\d{1,2}([T ].*)?|\d{1,2}([-/.])\d{1,2}\3\d{4}([T ].*)?")
MOST = 0.9  # of the names have to be numbers or dates: a few may say that a value is missing
FEW_ROWS = 20  # of which one cannot say that their labels are too many
REAL = "is a real number to predict (regression), which no task does yet; classes are text or whole numbers"


def encode(
    splits: Mapping[str, Sequence[Rows]], name: str, labels: Sequence[str] | None, origin: str, *, optional: bool
) -> None:
    """Makes column `name` of every part a ClassLabel whose ids follow `labels`, or the names found in train.

    Args:
        splits: split -> its parts; where there is no train split, names are found in all of them.
        labels: the names in id order; None to find them: those of a ClassLabel as they are, others sorted, as numbers
            if all of them are.
        origin: where `labels` come from, for messages.
        optional: a part without the column, or with a label missing or unknown, loses the column.

    Raises:
        InputError: a label that is none of the names, with its file and row; or train has one class only.
    """
    parts = [part for split in splits.values() for part in split]
    found = {id(part): _names(part, name) for part in parts if name in part.dataset.column_names}
    train = [part for part in splits.get("train", parts) if id(part) in found]
    if labels is None and train:
        labels = _class_label_names(train, name)
        if labels is None:
            labels = _sorted_names(found[id(part)] for part in train)
            rows = sum(len(found[id(part)]) - found[id(part)].null_count for part in train)
            if not optional and (reason := no_classes(labels, rows)):
                raise InputError(f"{train[0].where}: {reason}")
        origin = "the train split" if "train" in splits else "the data"
        if pairs := likeness.pairs(labels):
            said = [f"{quoted(a)} and {quoted(b)} ({likeness.difference(a, b)})" for a, b in pairs]
            more = f", and {len(said) - 5} more" if len(said) > 5 else ""
            logger.warning("%s has labels that are almost the same: %s%s", origin, ", ".join(said[:5]), more)
    if labels is None:
        return
    labels = checked(labels, origin)
    value_set = pa.array(labels, pa.string())
    unusable = False
    for part in parts:
        ids = pc.index_in(found[id(part)], value_set) if id(part) in found else None
        if ids is not None and ids.null_count and not optional:
            index = pc.index(pc.is_null(ids), True).as_py()
            label = found[id(part)][index].as_py()
            raise InputError(f"{part.at(index)}: {unlisted(str(label), labels, origin)}")
        unusable |= ids is None or bool(ids.null_count)
        if not unusable and ids is not None:
            column = pc.cast(ids, pa.int64())
            part.dataset = _with_column(part, name, column, list(labels))
    if unusable:
        logger.info("labels are missing or unknown: the column is left out")
        for part in parts:
            if name in part.dataset.column_names:
                part.dataset = part.dataset.remove_columns(name)
    elif "train" in splits:
        _refuse_one_class([found[id(part)] for part in train], train[0])


def no_classes(names: Sequence[str], rows: int) -> str | None:
    """Why the labels of so many rows are no classes; None where they may be."""
    remedy = (
        "; set data.columns.label to a column of classes, or if these are the classes name each of them, "
        "data.labels=[…]"
    )
    examples = ", ".join(map(quoted, names[:3])) + (", …" if len(names) > 3 else "")
    numbers = [name for name in names if DECIMAL.fullmatch(name.strip())]
    if any(not _is_whole(name) for name in numbers) and len(numbers) >= MOST * len(names):
        return (
            f"the labels ({len(names):,} different ones: {examples}) are numbers to predict and no classes, which "
            f"is regression, and no task does that yet: make classes of them (low, middle, high)" + remedy
        )
    if sum(bool(DATE.fullmatch(name.strip())) for name in names) >= MOST * len(names):
        return f"the labels ({len(names):,} different ones: {examples}) are dates, and no classes{remedy}"
    if len(names) > rows / 2 and rows >= FEW_ROWS:
        return (
            f"the label column has {len(names):,} different values in {rows:,} rows ({examples}), as ids and free "
            f"text have, and no classes{remedy}"
        )
    return None


def _is_whole(number: str) -> bool:
    """Whether "1.0", "2," or "1e3" is a whole number."""
    try:
        return float(number.replace(",", ".")).is_integer()
    except ValueError:
        return False


def unlisted(label: str, labels: Sequence[str], origin: str) -> str:
    """What is wrong with a label that is none of the names."""
    alike = next((name for name in labels if likeness.is_alike(name, label)), None)
    only = f"; it differs from {quoted(alike)} only in {likeness.difference(alike, label)}" if alike else ""
    return f"label {quoted(label)} is not one of {origin}: {listed(labels, near=label)}{only}"


def no_label(column: str, kind: object) -> str:
    """What is wrong with a column of something else than labels."""
    return f"column '{column}' holds {kind}; a label is text, a whole number, or true or false"


def _with_column(part: Rows, name: str, ids: pa.ChunkedArray, labels: list[str]):
    order = part.dataset.column_names
    dataset = part.dataset.remove_columns(name)
    return dataset.add_column(name, ids.to_numpy(), feature=ClassLabel(names=labels)).select_columns(order)


def _names(part: Rows, name: str) -> pa.ChunkedArray:
    """The label column as names (strings). Missing ones are null."""
    values = part.dataset.data.column(name)
    feature = part.dataset.features[name]
    kind = values.type
    if isinstance(feature, ClassLabel):
        return pc.take(pa.array(feature.names, pa.string()), pc.if_else(pc.less(values, 0), None, values))
    if pa.types.is_dictionary(kind):
        values = pc.cast(values, kind.value_type)
        kind = values.type
    if pa.types.is_floating(kind):  # pandas makes whole numbers with gaps so
        whole = pc.equal(values, pc.floor(values))
        if not pc.all(whole).as_py():
            index = pc.index(whole, False).as_py()
            raise InputError(f"{part.at(index)}: label {values[index].as_py()} {REAL}")
        try:
            return pc.cast(pc.cast(values, pa.int64()), pa.string())
        except pa.ArrowInvalid as error:
            raise InputError(f"{part.where}: a label is a number beyond 64 bits; write labels as text") from error
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return pc.cast(values, pa.string())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.cast(values, pa.string())
    raise InputError(f"{part.where}: {no_label(name, kind)}")


def _class_label_names(parts: Sequence[Rows], name: str) -> list[str] | None:
    features = [part.dataset.features[name] for part in parts]
    names = {tuple(feature.names) if isinstance(feature, ClassLabel) else None for feature in features}
    (first, *others) = names
    return None if others or first is None else list(first)


def _sorted_names(columns) -> list[str]:
    names = {name for column in columns for name in pc.unique(column).to_pylist() if name is not None}
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def checked(labels: Sequence[object], origin: str) -> list[str]:
    """Label names as text.

    Raises:
        InputError: one is there twice.
    """
    names = [str(label).lower() if isinstance(label, bool) else str(label) for label in labels]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{origin}: '{name}' is there twice; give each label name once, in id order")
    return names


def _refuse_one_class(columns: Sequence[pa.ChunkedArray], part: Rows) -> None:
    names = _sorted_names(columns)
    if len(names) < 2:
        raise InputError(f"{part.where}: {one_class(names[0])}")


def one_class(name: str) -> str:
    """What is wrong with a train split of one class."""
    return f"every row of the train split has the label '{shorten(name)}'; a classifier needs two classes at least"


def refuse_limit_to_one_class(train: Dataset, limited: Dataset, rows: int) -> None:
    """`limited` is a sample of `train`, which has several classes.

    Raises:
        InputError: the sample has one class only.
    """
    if "label" not in train.column_names or len(limited) == len(train):
        return
    labels = np.unique(limited["label"][:])
    if len(labels) == 1:
        name = train.features["label"].int2str(int(labels[0]))
        raise InputError(
            f"data.limits.train={rows}: all {len(limited):,} rows of the sample have the label {shorten(name)!r}; "
            "a classifier needs two classes at least: give a higher limit"
        )


def limited_to_one_class(rows: int, name: str) -> str:
    """What is wrong with a limit that leaves a streamed train split one class."""
    return (
        f"data.limits.train={rows}: the first {rows:,} rows of the train split all have the label "
        f"{shorten(name)!r}; shuffle the file"
    )


def are_given(part: Rows, columns: Sequence[Column]) -> bool:
    """Whether the part has each label column asked for, and not only missing values in it."""
    for column in columns:
        if column.kind not in ("label", "tags", "roles", "answers") or column.optional:
            continue
        if column.source not in part.dataset.column_names:
            return False
        if column.kind != "label":
            continue
        names = _names(part, column.source)
        if pc.all(pc.fill_null(pc.equal(names, ""), True), min_count=0).as_py():
            return False
    return True
