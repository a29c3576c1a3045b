"""The split rule and the limits rule of runs whose config.yaml has no format number, so that they go on as they began.

A run of today goes by `carving` and `splits.limited`.
"""

from __future__ import annotations

import logging

import numpy as np
from datasets import Dataset

from hf_llm.config import InputError
from hf_llm.data.predicates import sentences

logger = logging.getLogger(__name__)


def carve(train: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, validation): `fraction` of the rows, chosen by `seed`, a like fraction of each class; order is kept.

    A text of so few documents that the fraction is less than one of them is cut instead: the last `fraction` of each
    document's characters is validation, which for a single file is nanoGPT's split.

    Raises:
        InputError: nothing is left for one of the two.
    """
    label = train.features.get("label")
    if label is None and len(train) * fraction < 1 and train.column_names == ["text"]:
        logger.info("validation: carved from train, the last %g %% of each document's characters", 100 * fraction)
        return _cut(train, fraction)
    if "predicate" in train.column_names:  # rows of one sentence stay together
        starts = [sentence.row for sentence in sentences(train["words"], train["predicate"])]
        sizes = np.diff([*starts, len(train)])
        chosen = np.repeat(_choose(len(starts), None, fraction, seed), sizes)
    else:
        chosen = _choose(len(train), np.asarray(train["label"]) if label is not None else None, fraction, seed)
    if not 0 < chosen.sum() < len(train):
        raise InputError(
            f"data.validation_fraction={fraction}: {len(train):,} rows are too few to carve a validation split from; "
            f"give one in data.files.validation, or set data.validation_fraction=0"
        )
    how = "a like share of each class" if label is not None else "at random"
    logger.info("validation: carved from train, %s of %s rows, %s", f"{chosen.sum():,}", f"{len(train):,}", how)
    return train.select(np.nonzero(~chosen)[0]), train.select(np.nonzero(chosen)[0])


def _choose(rows: int, labels: np.ndarray | None, fraction: float, seed: int) -> np.ndarray:
    """(rows,) bool, true for validation. Rounds per class, and leaves each class at least one row in train."""
    order = np.random.default_rng(seed).permutation(rows)
    chosen = np.zeros(rows, dtype=bool)
    if labels is None:
        chosen[order[: max(1, round(rows * fraction))]] = True
        return chosen
    for label in np.unique(labels):
        members = order[labels[order] == label]
        chosen[members[: min(round(len(members) * fraction), len(members) - 1)]] = True
    names, counts = np.unique(labels, return_counts=True)
    if not chosen.any() and counts.max() > 1:  # every class is small
        chosen[order[labels[order] == names[counts.argmax()]][0]] = True
    return chosen


def _cut(train: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    texts = train["text"]
    cuts = [int(len(text) * (1 - fraction)) for text in texts]
    if not all(cuts):
        raise InputError(
            f"data.validation_fraction={fraction}: the text is too short to cut a validation split from; "
            f"set data.validation_fraction=0"
        )
    parts = ([t[:c] for t, c in zip(texts, cuts, strict=True)], [t[c:] for t, c in zip(texts, cuts, strict=True)])
    first, last = (Dataset.from_dict({"text": part}, features=train.features) for part in parts)
    return first, last


def limited(splits: dict[str, Dataset], limits: dict[str, int]) -> dict[str, Dataset]:
    """Each split's first rows, as many as its limit says. A limit beyond the split's end keeps all of it."""
    result = dict(splits)
    for name, rows in limits.items():
        if name in splits and rows < len(splits[name]):
            result[name] = splits[name].select(range(rows))
            logger.info("%s: the first %s of %s rows (data.limits)", name, f"{rows:,}", f"{len(splits[name]):,}")
    return result
