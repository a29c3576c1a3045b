"""The splits: their names, which of them are made from train, and limits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
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


def made_from_train(found: Iterable[str], cfg: DataConfig) -> dict[str, float]:
    """Split -> the share of train's rows that becomes it, for each split that the source lacks and `cfg` asks for."""
    if "train" not in found or cfg.streaming:
        return {}
    asked = {"validation": cfg.validation_fraction, "test": cfg.test_fraction}
    return {name: fraction for name, fraction in asked.items() if fraction and name not in found}


def wanted_splits(
    found: list[str], splits: Sequence[str] | None, cfg: DataConfig, made: Iterable[str] = ()
) -> list[str]:
    """The splits to return, in the canonical order unless the caller names them.

    Args:
        made: those that are made from train.

    Raises:
        InputError: one that the caller names is not there, or there is none that is ours.
    """
    there: list[str] = [name for name in NAMES if name in found or name in made]
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


def say_limits_without_effect(limits: Iterable[str], splits: Iterable[str]) -> None:
    """Warn of a limit on a split that there is not in this run."""
    for name in limits:
        if name not in splits:
            logger.warning("data.limits.%s has no effect: there is no %s split", name, name)


def limited(splits: Mapping[str, Dataset], limits: Mapping[str, int], seed: int) -> dict[str, Dataset]:
    """Of each split a random sample of as many rows as its limit says, in their order; all, where that is no fewer.

    A sample is part of each larger one of the same seed. Rows of one sentence (semantic role labelling) stay together,
    so that there may be a few less.
    """
    result = dict(splits)
    for name, rows in limits.items():
        if name in splits and rows < len(splits[name]):
            result[name] = splits[name].select(sample(splits[name], rows, seed))
            logger.info(
                "%s: a random sample of %s of %s rows (data.limits, seed %d)",
                *(name, f"{len(result[name]):,}", f"{len(splits[name]):,}", seed),
            )
    return result


def sample(split: Dataset, rows: int, seed: int) -> np.ndarray:
    """Which rows are drawn, in their order."""
    starts = np.arange(len(split))
    if "predicate" in split.column_names:
        words, predicates = split["words"][:], split["predicate"][:]
        starts = np.array([sentence.row for sentence in sentences(words, predicates)])
    order = np.random.default_rng(seed).permutation(len(starts))
    sizes = np.diff([*starts, len(split)])
    count = max(1, int(np.searchsorted(np.cumsum(sizes[order]), rows, side="right")))
    chosen = np.zeros(len(starts), dtype=bool)
    chosen[order[:count]] = True
    return np.flatnonzero(np.repeat(chosen, sizes))
