"""What a training reports when it is done: its metrics, pictures and predictions."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import runs

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

    from hf_llm.tasks import Task
    from hf_llm.tasks.base import Splits

logger = logging.getLogger(__name__)


def final(trainer: Trainer, task: Task, raw: Mapping[str, Dataset], splits: Splits, folder: Path) -> dict[str, Any]:
    """Evaluate every split that was not trained on; write predictions, then metrics.json, then the pictures."""
    metrics: dict[str, Any] = {"train": training_metrics(trainer)}
    for split in splits:
        if split == "train":
            continue
        if task.reports_labels:
            metrics[split] = _classified(trainer, raw[split], splits[split], folder, split)
            if baseline := task.baseline_metrics(raw, split):
                metrics[f"{split}, TF-IDF"] = baseline
        else:
            metrics[split] = unprefixed(trainer.evaluate(splits[split]))
    runs.write_json(folder / runs.METRICS, metrics)
    if runs.is_main_process():
        try:
            _draw(trainer, metrics, folder)
        except Exception:  # a run is not lost for want of a picture
            logger.warning("the pictures could not be drawn", exc_info=True)
    return metrics


def _draw(trainer: Any, metrics: Mapping[str, Any], folder: Path) -> None:
    from hf_llm import plots

    plots.loss_curve(trainer.state.log_history, folder / "loss_curve.png")
    for split, values in metrics.items():
        if "confusion_matrix" in values:
            path = folder / f"confusion_matrix{_suffix(split)}.png"
            plots.confusion_matrix(values["confusion_matrix"], trainer.labels, path, title=split)


def training_metrics(trainer: Any) -> dict[str, Any]:
    """Steps, the mean loss over all of them, and Trainer's figures of speed (of this process, if it resumed)."""
    state = trainer.state
    summary: dict[str, Any] = next((entry for entry in reversed(state.log_history) if "train_loss" in entry), {})
    metrics: dict[str, Any] = {"steps": state.global_step}
    if trainer.mean_train_loss is not None:
        metrics["loss"] = trainer.mean_train_loss
    for name in ("runtime", "samples_per_second"):
        if f"train_{name}" in summary:
            metrics[name] = summary[f"train_{name}"]
    return metrics


def unprefixed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """`eval_loss` -> `loss`; the speed of the evaluation is no metric of the model."""
    speed = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
    plain = {name.removeprefix("eval_"): value for name, value in metrics.items() if name != "epoch"}
    return {name: value for name, value in plain.items() if name not in speed}


def _classified(trainer: Any, raw: Dataset, encoded: Dataset, folder: Path, split: str) -> dict[str, Any]:
    """Metrics of a classifier on a split, its confusion matrix among them; writes its predictions."""
    classes, probabilities, metrics = trainer.scores(encoded)
    metrics = {**unprefixed(metrics), **confusion(classes, raw["label"], trainer.labels)}
    if runs.is_main_process():
        rows = predictions(raw, classes, probabilities, trainer.labels)
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        runs.write(folder / f"predictions{_suffix(split)}.jsonl", "".join(f"{line}\n" for line in lines))
    return metrics


def _suffix(split: str) -> str:
    return "" if split == "validation" else f"_{split}"


def confusion(classes: Any, references: Any, labels: list[str]) -> dict[str, list[list[int]]]:
    """`confusion_matrix`: rows are the true classes, columns the predicted, both in id order."""
    from hf_llm.metrics import classification_report

    return classification_report(classes, references, labels, metrics=["confusion_matrix"])


def predictions(raw: Dataset, classes: Any, probabilities: Any, labels: list[str]) -> list[dict[str, Any]]:
    """A row per text: the text, its own label where it has one, the predicted label, and the score of each class."""
    rows = []
    for index, row in enumerate(raw):
        own = {"reference": labels[row.pop("label")]} if "label" in row else {}
        scores = {name: round(float(score), 6) for name, score in zip(labels, probabilities[index], strict=True)}
        best = labels[int(classes[index])]
        rows.append({**row, **own, "label": best, "score": scores[best], "scores": scores})
    return rows
