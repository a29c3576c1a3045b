"""What a model that knows nothing of its input scores, and whether another is clearly better: numpy alone.

A comparison is paired: of each row, how much better the model is than knowing nothing. `interval` bootstraps the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SAMPLES, LEVEL = 1000, 0.95  # of the bootstrap
FEWEST = 8  # rows that can tell anything: of 5 that are drawn at random, too often all are better
MOST = 10_000  # units that are drawn from: more rows are put together at random


@dataclass
class Comparison:
    """A metric of a model beside that of knowing nothing. `gains` over `weights`, both summed, is the difference.

    Args:
        gains: (rows,), positive where the model is better.
        weights: (rows,), what a row counts; all 1 where each counts alike.
    """

    metric: str
    value: float
    chance: float
    gains: np.ndarray
    weights: np.ndarray

    @property
    def gain(self) -> float:
        return _ratio(self.gains.sum(), self.weights.sum())


@dataclass
class Chance:
    """What knowing nothing scores on a split, and the model beside it.

    Args:
        scores: metric -> what knowing nothing scores.
        comparisons: of which one that is clearly above 0 is enough.
        same: what the model says of every row, where it says the same of all although they differ.
        untold: why the rows cannot tell what a model knows.
    """

    scores: dict[str, float] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    same: str | None = None
    untold: str | None = None


def interval(comparisons: Sequence[Comparison], seed: int = 0) -> list[tuple[float, float]]:
    """The 95 % interval of each `gain`, by the bootstrap: all are of the same rows, drawn together.

    The percentiles are those that Hesterberg (2015, "What Teachers Should Know About the Bootstrap", section 4.3)
    takes in place of 2.5 and 97.5, so that few rows give an interval as wide as Student's t has it. Below `FEWEST`
    rows it is still too narrow.
    """
    from scipy.stats import norm, t

    if not comparisons:
        return []
    values = np.stack([side for each in comparisons for side in (each.gains, each.weights)], axis=1).astype(float)
    rows, random = len(values), np.random.default_rng(seed)
    if rows < 2:
        return [(one.gain, one.gain) for one in comparisons]
    if rows > MOST:
        group = random.permutation(rows) % MOST
        values = np.stack([np.bincount(group, column, MOST) for column in values.T], axis=1)
    count = len(values)
    draws = (np.bincount(random.integers(count, size=count, dtype=np.int32), minlength=count) for _ in range(SAMPLES))
    sums = np.stack([draw @ values for draw in draws])  # (SAMPLES, 2 · comparisons)
    gains, weights = sums[:, ::2], sums[:, 1::2]
    ratios = np.divide(gains, weights, out=np.zeros_like(gains), where=weights > 0)
    tail = norm.cdf(np.sqrt(count / (count - 1)) * t.ppf((1 - LEVEL) / 2, count - 1))
    low, high = np.quantile(ratios, [tail, 1 - tail], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _ratio(total: float, count: float) -> float:
    return float(total) / float(count) if count else 0.0


# Classes


def label_entropy(classes: np.ndarray) -> float:
    """The least loss, in nats, of one distribution over classes for all rows: that of the rows' own labels."""
    shares = np.unique(classes, return_counts=True)[1] / max(len(classes), 1)
    return float(-(shares * np.log(shares)).sum())


def majority_share(classes: np.ndarray) -> float:
    """The best accuracy of one class for all rows."""
    return float(np.unique(classes, return_counts=True)[1].max() / len(classes))


def class_losses(classes: np.ndarray) -> np.ndarray:
    """Of each row the loss of predicting the rows' own label frequencies, (rows,); their mean is `label_entropy`."""
    _, which, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return -np.log(counts / len(classes))[which]


def agreement(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(rows,), whose mean is Matthews' correlation of the two: 0 for predictions that do not go with the labels.

    Each is the product of a row's deviations from the mean, over the classes, in units of the standard deviations. Of
    a constant prediction all are 0.
    """
    classes, ids = np.unique(np.concatenate([predicted, true]), return_inverse=True)
    ours, theirs = np.split(ids, 2)
    shares = [np.bincount(side, minlength=len(classes)) / max(len(side), 1) for side in (ours, theirs)]
    spread = np.sqrt(np.prod([1 - (share**2).sum() for share in shares]))
    if spread < 1e-12:
        return np.zeros(len(true))
    together = (ours == theirs) - shares[1][ours] - shares[0][theirs] + shares[0] @ shares[1]
    return together / spread


# Spans


def span_comparison(
    found: Sequence[Set[Any]], wanted: Sequence[Set[Any]], kind: Callable[[Any], Hashable], words: int
) -> Comparison:
    """F1 of the spans of each row, beside that of as many spans of the same kinds at random places.

    Args:
        kind: of a span, its type and length say.
        words: of all rows; a span has about as many places to be at.
    """
    there = Counter(kind(span) for spans in wanted for span in spans)
    right = np.array([len(ours & theirs) for ours, theirs in zip(found, wanted, strict=True)], dtype=float)
    lucky = np.array([sum(there[kind(span)] for span in spans) / max(words, 1) for spans in found])
    weights = np.array([len(ours) + len(theirs) for ours, theirs in zip(found, wanted, strict=True)], dtype=float)
    value, chance = (_ratio(2 * part.sum(), weights.sum()) for part in (right, lucky))
    return Comparison("f1", value, chance, 2 * (right - lucky), weights)


# Tokens


def unigram_losses(counts: np.ndarray) -> np.ndarray:
    """-log of each token's share, (V,), by Witten and Bell (1991): tokens that `counts` lacks share as much as the
    number of those that it has, over all."""
    total, types = int(counts.sum()), int((counts > 0).sum())
    unseen = len(counts) - types
    if not total:
        return np.full(len(counts), np.log(max(len(counts), 1)))
    shares = counts / (total + types * (unseen > 0))
    shares[counts == 0] = types / (total + types) / max(unseen, 1)
    return -np.log(shares)
