"""Classification metrics, each computed by scikit-learn over class ids, with names only in the keys of the result.

Keys: `accuracy`, `mcc`, `confusion_matrix`, and for precision, recall and f1 (here for precision):

* `precision_macro`, `precision_micro`, `precision_weighted`: scikit-learn's averages, over the classes that occur in
  references or predictions, which is its default;
* `precision_<label>` for every label, 0.0 where it was never predicted or never true;
* `precision`: of the positive label where one is named, else the macro average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from hf_llm.config import InputError, nearest
from hf_llm.metrics import load
from hf_llm.metrics.base import InMemoryMetric

AVERAGES = ("macro", "micro", "weighted")


def classification_report(
    predictions: np.ndarray,
    references: np.ndarray,
    labels: list[str],
    positive_label: str | None = None,
    metrics: Sequence[str] = ("accuracy", "precision", "recall", "f1"),
) -> dict[str, Any]:
    """All the metrics asked for, in one flat dictionary.

    Args:
        predictions, references: class ids, shape (rows,).
        labels: the names in id order.
        positive_label: whose precision, recall and f1 are those without a suffix; None: the macro averages.
        metrics: names that `load` knows.

    Returns:
        Floats, but for `confusion_matrix`, where asked for: a nested list of counts, rows true, columns predicted.
        Pop it before handing the rest to Trainer.

    Raises:
        InputError: an unknown metric, or a positive label that is not among `labels`.
        ValueError: no rows, or ids outside `labels`.
    """
    report: dict[str, Any] = {}
    for name in metrics:
        metric = load(name)
        given = {"labels": labels, "positive_label": positive_label}
        options = {key: value for key, value in given.items() if key in metric.option_names()}
        report.update(metric.compute(predictions=predictions, references=references, **options))
    return report


class Accuracy(InMemoryMetric, name="accuracy"):
    def _compute(self, predictions, references) -> dict[str, float]:
        """The fraction of rows whose class was predicted."""
        return {"accuracy": float(sklearn_metrics.accuracy_score(references, predictions))}


class MatthewsCorrelation(InMemoryMetric, name="mcc"):
    def _compute(self, predictions, references) -> dict[str, float]:
        """Matthews' correlation coefficient, for any number of classes (Gorodkin 2004); 0.0 where undefined."""
        if len(set(predictions) | set(references)) == 1:  # 0.0 in scikit-learn too, but with a warning
            return {"mcc": 0.0}
        return {"mcc": float(sklearn_metrics.matthews_corrcoef(references, predictions))}


class ConfusionMatrix(InMemoryMetric, name="confusion_matrix"):
    def _compute(self, predictions, references, labels: list[str] | None = None) -> dict[str, list[list[int]]]:
        """Counts, rows the true class, columns the predicted one, in id order."""
        ids, _ = _classes(predictions, references, labels)
        return {"confusion_matrix": sklearn_metrics.confusion_matrix(references, predictions, labels=ids).tolist()}


class Precision(InMemoryMetric, name="precision"):
    def _compute(self, predictions, references, labels=None, positive_label=None) -> dict[str, float]:
        """Of the rows predicted to be of a class, the fraction that is: averages, per class, positive class."""
        score = sklearn_metrics.precision_score
        return _scores("precision", score, predictions, references, labels, positive_label)


class Recall(InMemoryMetric, name="recall"):
    def _compute(self, predictions, references, labels=None, positive_label=None) -> dict[str, float]:
        """Of the rows of a class, the fraction that was found: averages, per class, positive class."""
        return _scores("recall", sklearn_metrics.recall_score, predictions, references, labels, positive_label)


class F1(InMemoryMetric, name="f1"):
    def _compute(self, predictions, references, labels=None, positive_label=None) -> dict[str, float]:
        """The harmonic mean of precision and recall: averages, per class, positive class."""
        return _scores("f1", sklearn_metrics.f1_score, predictions, references, labels, positive_label)


def _scores(
    name: str, score: Callable, predictions, references, labels: list[str] | None, positive_label: str | None
) -> dict[str, float]:
    ids, names = _classes(predictions, references, labels)
    if positive_label is not None and positive_label not in names:
        near = nearest(str(positive_label), names, cutoff=0)
        raise InputError(f"positive label {positive_label!r} is not a label; did you mean {near!r}? There are {names}")
    report = {
        f"{name}_{average}": float(score(references, predictions, average=average, zero_division=0))
        for average in AVERAGES
    }
    per_class = score(references, predictions, labels=ids, average=None, zero_division=0)
    for label, value in zip(names, per_class, strict=True):
        # A label may itself be called "macro": it must not overwrite the average.
        report[f"{name}_label_{label}" if label in AVERAGES else f"{name}_{label}"] = float(value)
    chosen = report[f"{name}_macro"] if positive_label is None else float(per_class[names.index(positive_label)])
    return {name: chosen, **report}


def _classes(predictions, references, labels: list[str] | None) -> tuple[list[int], list[str]]:
    """Ids and names of all classes; without `labels`, of those that occur, named by their ids."""
    seen = np.union1d(predictions, references).tolist()
    if labels is None:
        return seen, [str(i) for i in seen]
    strangers = [i for i in seen if not 0 <= i < len(labels)]
    if strangers:
        raise ValueError(f"class ids {strangers[:5]} are outside the {len(labels)} labels")
    return list(range(len(labels))), list(labels)
