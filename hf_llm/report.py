"""What a training reports when it is done: its metrics, pictures and predictions."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import learnt, runs

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

    from hf_llm.tasks import Task
    from hf_llm.tasks.base import Splits

logger = logging.getLogger(__name__)


def final(
    trainer: Trainer,
    task: Task,
    raw: Mapping[str, Dataset],
    splits: Splits,
    folder: Path,
    usual_rate: float,
) -> dict[str, Any]:
    """Evaluate every split that was not trained on; write predictions, then metrics.json, then the pictures.

    Args:
        usual_rate: the learning rate that suits the model.
    """
    metrics: dict[str, Any] = {"train": training_metrics(trainer)}
    for split in splits:
        if split == "train":
            continue
        trainer.keeps = splits[split]  # type: ignore[attr-defined]
        outcome = task.outcome(trainer, raw[split], splits[split], split)
        baselines = task.baseline_metrics(raw, split)
        _log(trainer, split, outcome.metrics)
        beside = learnt.judged(trainer, task, raw, splits, split, outcome, baselines, usual_rate)
        metrics[split] = outcome.metrics | beside
        for name, baseline in baselines.items():
            metrics[f"{split}, {name}"] = baseline
        if outcome.predictions is not None and runs.is_main_process():
            runs.write(folder / runs.of_split("predictions.jsonl", split), json_lines(outcome.predictions))
    runs.write_json(folder / runs.METRICS, metrics)
    if runs.is_main_process():
        try:
            _draw(trainer, metrics, folder)
        except Exception:  # a run is not lost for want of a picture
            logger.warning("the pictures could not be drawn", exc_info=True)
    return metrics


def _log(trainer: Any, split: str, metrics: Mapping[str, Any]) -> None:
    """Log a split's final metrics: test as `test_…`, which trackers know, and validation, as `eval_…`, only where
    the loss curve has no such point yet."""
    state, prefix = trainer.state, split
    if split == "validation":
        best_is_earlier = trainer.args.load_best_model_at_end and state.best_global_step not in (
            None,
            state.global_step,
        )
        measured = any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)
        if best_is_earlier or measured:
            return
        prefix = "eval"
    trainer.log({f"{prefix}_{name}": value for name, value in metrics.items() if isinstance(value, (int, float))})


def _draw(trainer: Any, metrics: Mapping[str, Any], folder: Path) -> None:
    from hf_llm import plots

    plots.loss_curve(trainer.state.log_history, folder / "loss_curve.png")
    for split, values in metrics.items():
        if "confusion_matrix" in values:
            path = folder / runs.of_split("confusion_matrix.png", split)
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


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """A line for each row, as JSON."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
