"""Validation and test splits that are made from train: what one of them has is in no other.

Groups of rows (`duplicates.groups`) are never divided. They are taken in a random order as long as they fit into what
is still missing of the split; of each class, where rows have classes. The texts of a language model are measured in
characters, and a text is cut only where whole ones make no split of nearly the size that is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from scipy.sparse import coo_array, csr_array

from hf_llm.config import InputError
from hf_llm.data import duplicates
from hf_llm.data.columns import quoted, shorten
from hf_llm.data.duplicates import GROUP

logger = logging.getLogger(__name__)

FAR = 0.2  # a split that is off by more than this share of its size is warned of
FAR_TOO_FAR = 2  # where whole documents give so many times what is asked, or that part of it, one is cut


def carve(
    train: Dataset, fractions: Mapping[str, float], seed: int, group_by: str | None = None
) -> dict[str, Dataset]:
    """The rows of `train` as train and the splits of `fractions`, which are shares of all rows; their order is kept.

    The rows of the first split do not depend on whether another is asked for.

    Args:
        group_by: a column whose equal values stay together.

    Raises:
        InputError: nothing is left for one of the splits.
    """
    group = duplicates.groups(train, group_by)
    train = train.remove_columns([name for name in train.column_names if name == GROUP])
    is_text = train.column_names == ["text"]
    if is_text and len(train) == 1:
        return _cut(train, 0, fractions)
    sizes = np.ones(len(train), dtype=np.int64)
    if is_text:
        sizes = pc.utf8_length(_column(train, "text")).to_numpy().astype(np.int64)
    has_classes = "label" in train.column_names
    classes = _column(train, "label").to_numpy() if has_classes else np.zeros(len(train), int)
    amounts = csr_array(coo_array((sizes, (group, classes))))  # (groups, classes): rows, or characters
    whole = amounts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(train))
    order = group[order][np.sort(np.unique(group[order], return_index=True)[1])]  # groups, as their first rows come
    names = ["train", *fractions]
    split_of = np.zeros(amounts.shape[0], dtype=np.int8)  # of each group, by its number in `names`
    sizes_of: dict[str, tuple[int, int]] = {}  # split -> what it has and what was asked for
    for name, fraction in fractions.items():
        left = amounts[split_of == 0].sum(axis=0)
        need = _shares(whole, fraction, left - 1, np.random.default_rng(seed))
        taken = _choose(amounts, order[split_of[order] == 0], need, left)
        split_of[taken] = names.index(name)
        sizes_of[name] = (int(amounts[taken].sum()), int(need.sum()))
        longest = int(sizes.argmax())
        can_be_cut = is_text and sizes[longest] > need.sum() and (group == group[longest]).sum() == 1
        got, asked = sizes_of[name]
        if can_be_cut and not asked / FAR_TOO_FAR <= got <= asked * FAR_TOO_FAR:
            return _cut(train, longest, fractions)
        if not taken:
            raise InputError(f"data.{name}_fraction={fraction}: {_why_none(train, name, len(order))}")
    split_of = split_of[group]
    how = "a like share of each class" if has_classes else "at random"
    how += f"; {_kind(train, group_by)} stay on one side" if len(order) < len(train) else ""
    for name, (got, _) in sizes_of.items():
        rows = f"{(split_of == names.index(name)).sum():,} of {len(train):,} rows"
        rows += f" ({100 * got / whole.sum():.3g} % of the characters)" if is_text else ""
        logger.info("%s: made from train, %s, %s", name, rows, how)
    _warn(train, group, amounts, sizes_of, "characters" if is_text else "rows")
    return {name: train.select(np.flatnonzero(split_of == number)) for number, name in enumerate(names)}


def _shares(whole: np.ndarray, fraction: float, most: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(classes,) `fraction` of each of `whole`, rounded so that the sum is right, and at `most` so many.

    What is left over goes to the classes with the largest remainders, among equal ones at random.
    """
    exact = whole * fraction
    need = np.minimum(np.floor(exact).astype(np.int64), np.maximum(most, 0))
    order = generator.permutation(len(whole))
    order = order[np.argsort(-(exact - need)[order], kind="stable")]
    order = order[need[order] < most[order]]
    need[order[: max(1, round(exact.sum())) - need.sum()]] += 1
    return need


def _choose(amounts: csr_array, order: np.ndarray, need: np.ndarray, left: np.ndarray) -> list[int]:
    """Groups that together come as near as can be to `need` (classes,) and leave train some of each class.

    First those that fit, in `order`. Then, while it brings the sum nearer, the group that brings it nearest; at least
    one.
    """
    need, left, missing = need.tolist(), left.tolist(), int(need.sum())
    starts, classes, sizes = amounts.indptr.tolist(), amounts.indices.tolist(), amounts.data.tolist()
    taken = []

    def take(group: int) -> None:
        taken.append(group)
        for place in range(starts[group], starts[group + 1]):
            need[classes[place]] -= sizes[place]
            left[classes[place]] -= sizes[place]

    for group in order.tolist():
        if not missing:
            return taken
        span = range(starts[group], starts[group + 1])
        if all(sizes[place] <= need[classes[place]] for place in span):
            take(group)
            missing -= sum(sizes[place] for place in span)
    candidates = order[~np.isin(order, taken)]
    while len(candidates):
        rest, most = np.array(need)[amounts.indices], np.array(left)[amounts.indices] - 1
        gain = np.add.reduceat(np.abs(rest) - np.abs(rest - amounts.data), amounts.indptr[:-1])[candidates]
        fits = np.logical_and.reduceat(amounts.data <= most, amounts.indptr[:-1])[candidates]
        if not fits.any():
            break
        best = int(np.where(fits, gain, np.iinfo(np.int64).min).argmax())
        if gain[best] <= 0 and taken:
            break
        take(int(candidates[best]))
        candidates = np.delete(candidates, best)
    return taken


def _cut(train: Dataset, row: int, fractions: Mapping[str, float]) -> dict[str, Dataset]:
    """The ends of one document as validation, then test; of the only one what nanoGPT takes."""
    texts = train["text"][:]
    text, total = texts[row], sum(map(len, texts))
    shares = np.cumsum([0, *list(fractions.values())[::-1]])[::-1]  # from where each split begins to the end
    cuts = [int(total * (1 - share)) - (total - len(text)) for share in shares]
    if not cuts[0] > 0 or not all(first < last for first, last in pairwise(cuts)):
        given = ", ".join(f"data.{name}_fraction={share}" for name, share in fractions.items())
        raise InputError(f"{given}: the text is too short to cut {' and '.join(fractions)} from; set 0, or give files")
    parts = [text[first:last] for first, last in pairwise(cuts)]
    of = (
        "the only document"
        if len(texts) == 1
        else f"document {row + 1} of {len(texts)} (whole ones make no split of this size)"
    )
    for name, part in zip(fractions, parts, strict=True):
        logger.info(
            "%s: made from train: %s is cut, and the split is %s characters of its end (%.3g %% of all)",
            *(name, of, f"{len(part):,}", 100 * len(part) / total),
        )
    texts[row] = text[: cuts[0]]
    rows = {"train": texts, **{name: [part] for name, part in zip(fractions, parts, strict=True)}}
    return {name: Dataset.from_dict({"text": part}, features=train.features) for name, part in rows.items()}


def _column(rows: Dataset, name: str) -> pa.ChunkedArray:
    return rows.with_format("arrow", columns=[name])[:].column(name)


def _kind(train: Dataset, group_by: str | None) -> str:
    """What rows of one group have in common."""
    equal = "equal contexts" if "context" in train.column_names else "equal texts"
    return f"{equal} and groups (data.group_by)" if group_by else equal


def _why_none(train: Dataset, name: str, groups: int) -> str:
    remedy = f"give one in data.files.{name}, or set data.{name}_fraction=0"
    if groups == 1:
        return f"all {len(train):,} rows of train are one group, and no {name} split can be made of them; {remedy}"
    if "label" in train.column_names and len(set(train["label"][:])) == len(train):
        return (
            f"no class has a row for each split, for the label column has as many values as rows ({len(train):,}); "
            f"set data.columns.label to a column of classes, or give a split in data.files.{name}"
        )
    return f"{len(train):,} rows in {groups:,} groups are too few to make a {name} split from; {remedy}"


def _warn(
    train: Dataset, group: np.ndarray, amounts: csr_array, sizes_of: Mapping[str, tuple[int, int]], unit: str
) -> None:
    """Say what is too large for a split, and which split is not of the size that was asked for."""
    by_group = amounts.sum(axis=1)
    largest = int(by_group.argmax())
    name, asked = min(((name, asked) for name, (_, asked) in sizes_of.items()), key=lambda pair: pair[1])
    if by_group[largest] > asked:
        row = int(np.argmax(group == largest))
        text = train[row][duplicates.text_columns(train)[0]]
        logger.warning(
            "%s: asked for %s %s, and %s stay together in one group: row %s of train (%s) and its like",
            *(name, f"{asked:,}", unit, f"{by_group[largest]:,}", f"{row + 1:,}"),
            quoted(shorten(text if isinstance(text, str) else " ".join(text))),
        )
    for name, (got, asked) in sizes_of.items():
        if abs(got - asked) > max(1, FAR * asked):
            logger.warning(
                "%s: %s %s, and not the %s asked for, as groups are not divided; data.files.%s gives another",
                *(name, f"{got:,}", unit, f"{asked:,}", name),
            )
