"""The splits: their names, a validation split carved from train, and limits."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from hf_llm.config import DataConfig, InputError, nearest
from hf_llm.data.columns import listed
from hf_llm.data.predicates import sentences

logger = logging.getLogger(__name__)

NAMES = ("train", "validation", "test")
_ALIASES = {
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "testing": "test",
}


def canonical(name: str) -> str:
    """ "dev" -> "validation"; a name that is no alias is its own."""
    return _ALIASES.get(name.lower(), name.lower() if name.lower() in NAMES else name)


def renamed(found: dict[str, Any], cfg: DataConfig) -> dict[str, Any]:
    """The source's splits under our names: those that `cfg.splits` gives, then canonical ones.

    Raises:
        InputError: `cfg.splits` names one that is not there, or two of the source's are the same split of ours.
    """
    result, taken = {}, set()
    for ours, theirs in cfg.splits.items():
        if theirs not in found:
            raise InputError(
                f"data.splits.{ours}={theirs}: no such split; there are {listed(found, near=str(theirs))}"
            )
        result[canonical(ours)] = found[theirs]
        taken.add(theirs)
    first: dict[str, str] = {}
    for theirs, value in found.items():
        ours = canonical(theirs)
        if theirs in taken or (ours in result and ours not in first):
            continue
        if ours in first:
            raise InputError(
                f"'{first[ours]}' and '{theirs}' are both the {ours} split; choose by data.splits.{ours}={theirs}"
            )
        first[ours] = theirs
        result[ours] = value
    return {name: result[name] for name in sorted(result, key=lambda n: (NAMES.index(n) if n in NAMES else 3, n))}


def wanted_splits(found: list[str], splits: Sequence[str] | None, cfg: DataConfig) -> list[str]:
    """The splits to return, in the canonical order unless the caller names them.

    Raises:
        InputError: one that the caller names is not there, or there is none that is ours.
    """
    can_carve = "train" in found and cfg.validation_fraction > 0 and not cfg.streaming
    there: list[str] = [name for name in NAMES if name in found or (name == "validation" and can_carve)]
    if splits is None:
        if not there:
            raise InputError(
                f"no train, validation or test split: choose among {', '.join(found)} by data.splits.train="
            )
        others = [name for name in found if name not in there]
        if others and isinstance(cfg.files, dict):
            hint = f"; did you mean data.files.{near}?" if (near := nearest(others[0], NAMES)) else ""
            raise InputError(f"data.files.{others[0]}: no such split{hint} (train, validation, test)")
        if others:
            logger.info("splits left out: %s (data.splits can name them)", ", ".join(others))
        return there
    use = [canonical(name) for name in splits]
    for name in use:
        if name not in there and name not in found:
            raise InputError(f"no {name} split; there are {', '.join(dict.fromkeys(there + found))}")
    return use


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
        if label is not None and len(set(train["label"])) == len(train) > 1:
            raise InputError(
                f"data.validation_fraction={fraction}: no class has a row for each split, for the label column has as "
                f"many values as rows ({len(train):,}){_if_numbers(label.names)}; set data.columns.label to a column "
                f"of classes, or give a split in data.files.validation"
            )
        raise InputError(
            f"data.validation_fraction={fraction}: {len(train):,} rows are too few to carve a validation split from; "
            f"give one in data.files.validation, or set data.validation_fraction=0"
        )
    how = "a like share of each class" if label is not None else "at random"
    logger.info("validation: carved from train, %s of %s rows, %s", f"{chosen.sum():,}", f"{len(train):,}", how)
    return train.select(np.nonzero(~chosen)[0]), train.select(np.nonzero(chosen)[0])


def _if_numbers(names: Sequence[str]) -> str:
    """A word on labels that are all real numbers: those of a csv are texts like others."""
    return ", and numbers to predict are no classes" if all(re.fullmatch(r"-?\d*\.\d+", n) for n in names) else ""


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


def checked_limits(cfg: DataConfig) -> dict[str, int]:
    """`cfg.limits` by canonical split.

    Raises:
        InputError: an unknown split, or a limit that is not a whole number of at least 1.
    """
    limits = {}
    for name, rows in cfg.limits.items():
        if rows is None:
            continue
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise InputError(f"data.limits.{name}={rows!r}: give a whole number of rows, at least 1")
        limits[canonical(name)] = rows
    return limits


def check_limited(limits: Iterable[str], found: Iterable[str]) -> None:
    """Raises InputError where a limit is on a split that there is not."""
    if unknown := set(limits) - {*NAMES, *found}:
        raise InputError(f"data.limits.{min(unknown)}: no such split; there are {', '.join(found)}")


def limited(splits: dict[str, Dataset], limits: dict[str, int]) -> dict[str, Dataset]:
    """Each split's first rows, as many as its limit says. A limit beyond the split's end keeps all of it."""
    result = dict(splits)
    for name, rows in limits.items():
        if name in splits and rows < len(splits[name]):
            result[name] = splits[name].select(range(rows))
            logger.info("%s: the first %s of %s rows (data.limits)", name, f"{rows:,}", f"{len(splits[name]):,}")
    return result
