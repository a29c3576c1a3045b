"""Whether a run has learnt anything: its results beside those of knowing nothing, and what to try where they are no
better.

Each task says what knowing nothing scores (`Task.chance`, `compare_with_chance`, `chance_loss`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from hf_llm.metrics.chance import FEWEST, Chance, interval

if TYPE_CHECKING:
    from hf_llm.tasks import Task
    from hf_llm.tasks.base import Outcome, Splits

logger = logging.getLogger(__name__)

CHANCE, WARNINGS = "chance", "warnings"  # keys of a split in metrics.json
FEW_ROWS, FEW_STEPS = 200, 200  # below which there may have been too few
CUT = 0.3  # of the rows: so many may have lost what they are about
FAR_OFF = 3  # times the usual learning rate, or that part of it: where nothing was learnt, a likely cause


def judged(
    trainer: Any,
    task: Task,
    raw: Mapping[str, Any],
    splits: Splits,
    split: str,
    outcome: Outcome,
    baselines: Mapping[str, Mapping[str, Any]],
    usual_rate: float,
) -> dict[str, Any]:
    """What metrics.json says of a split beside its metrics, and every warning, logged.

    Args:
        usual_rate: the learning rate that suits the model.

    Returns:
        `chance`: `scores` (metric -> what knowing nothing scores), `rows`, `clearly_better` (None where the rows
        cannot tell), and `compared`: metric -> `value`, `chance`, `gain` and its 95 % `interval`; and `warnings`.
    """
    if trainer.kept is None or not outcome.metrics:
        return {}
    try:
        found = task.compare_with_chance(trainer, raw[split], splits[split], outcome, splits["train"])
        intervals = interval(found.comparisons)
        better = verdict(found, intervals)
        warnings = list(_warnings(trainer, task, splits, split, found, intervals, better, usual_rate))
        warnings += below_baselines(task, split, outcome.metrics, baselines)
    except Exception:  # a run is not lost for want of a comparison
        logger.warning("%s could not be compared with knowing nothing", split, exc_info=True)
        return {}
    finally:
        trainer.keeps = trainer.kept = None
    for warning in warnings:
        logger.warning("%s", warning)
    rows = len(found.comparisons[0].gains) if found.comparisons else None
    compared = {
        one.metric: {"value": one.value, "chance": one.chance, "gain": one.gain, "interval": list(bounds)}
        for one, bounds in zip(found.comparisons, intervals, strict=True)
    }
    record = {"scores": found.scores, "rows": rows, "clearly_better": better, "compared": compared}
    return {CHANCE: record if found.scores else None, WARNINGS: warnings}


def verdict(found: Chance, intervals: list[tuple[float, float]]) -> bool | None:
    """Whether one of the comparisons is clearly above 0; None where too few rows say so, or nothing is compared."""
    if not found.comparisons:
        return None
    if not any(low > 0 for low, _ in intervals):
        return False
    return True if len(found.comparisons[0].gains) >= FEWEST else None


def _warnings(
    trainer: Any,
    task: Task,
    splits: Splits,
    split: str,
    found: Chance,
    intervals: list[tuple[float, float]],
    better: bool | None,
    usual_rate: float,
) -> Iterator[str]:
    if found.untold:
        yield f"{split}: {found.untold}, so that its figures cannot tell what the model has learnt"
    if better is not False and found.same is None:
        return
    cause, advice = likely_cause(trainer, task, splits, split, found, intervals, usual_rate)
    if better is not False:  # its loss, for the probabilities are; what it predicts is not
        yield f"{split}: {found.same} is all that the model predicts. Likely cause: {cause}. Try {advice}"
        return
    beside = "; ".join(
        f"{one.metric} {one.value:.4g}, where {task.chance[one.metric]} would score {found.scores[one.metric]:.4g}"
        for one in found.comparisons
    )
    yield f"{split}: not clearly better than knowing nothing ({beside}). Likely cause: {cause}. Try {advice}"


def below_baselines(
    task: Task, split: str, metrics: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """A warning for each baseline whose principal metric is above the model's."""
    for name, scores in baselines.items():
        metric = next((metric for metric in task.principal if metric in metrics and metric in scores), None)
        if metric is not None and metrics[metric] < scores[metric]:
            yield (
                f"{split}: {metric} {metrics[metric]:.4g} is below the {scores[metric]:.4g} of the baseline "
                f"({name}): use that, or train longer, on more rows, or from pretrained weights"
            )


def likely_cause(
    trainer: Any,
    task: Task,
    splits: Splits,
    split: str,
    found: Chance,
    intervals: list[tuple[float, float]],
    usual_rate: float,
) -> tuple[str, str]:
    """What most likely kept a model from learning, and what to try next; several of each where several show."""
    args, steps = trainer.args, trainer.state.global_step
    level = task.chance_loss(splits["train"], trainer.processing_class)
    loss = recent_loss(trainer.state.log_history)
    causes: list[str] = []
    advice: list[str] = []
    if found.same is not None and not any(low > 0 for low, _ in intervals):
        causes.append(f"{found.same} is all that the model predicts")
    share = cut_share(splits["train"])
    if share > CUT:
        causes.append(f"{share:.0%} of the rows of train were cut to task.{task.length_option}")
        advice.append(f"a larger task.{task.length_option}")
    learns_by_heart = loss is not None and level is not None and loss < 0.8 * level
    if learns_by_heart:
        causes.append(
            f"the loss on train fell to {loss:.4g}, so rows of train may have been learnt by heart, and too little "
            f"that holds for {split}"
        )
        advice.append("to check that labels or targets belong to their texts; more rows, fewer epochs")
    else:
        ratio = args.learning_rate / usual_rate
        if not 1 / FAR_OFF <= ratio <= FAR_OFF:
            causes.append(f"trainer.learning_rate={args.learning_rate:g} is too {'high' if ratio > 1 else 'low'}")
            advice.append(f"trainer.learning_rate={usual_rate:g}, the usual one")
        if steps < FEW_STEPS:
            causes.append(f"{steps} steps are too few")
            key = "max_steps" if args.max_steps > 0 else "num_train_epochs"
            advice.append(f"a larger trainer.{key}, or a smaller batch")
    rows = len(found.comparisons[0].gains)
    if rows < FEW_ROWS and any(one.gain > 0 for one in found.comparisons):
        causes.append(f"{rows} rows of {split} are too few to show what it learnt")
        advice.append(f"more rows in {split}")
    if not advice:
        causes.append("the steps may be too few, or labels and targets may not follow from the texts")
        advice.append(f"more epochs, then trainer.learning_rate={args.learning_rate / 3:.1g}, and look at the rows")
    return " and ".join(causes), ", ".join(advice)


def recent_loss(log_history: list[dict[str, Any]], last: int = 5) -> float | None:
    """The mean of the training losses that were logged last; None where none was."""
    losses = [entry["loss"] for entry in log_history if "loss" in entry]
    return float(np.mean(losses[-last:])) if losses else None


def cut_share(train: Any) -> float:
    """How many of the rows of an encoded split were cut to the length that the task allows."""
    names = getattr(train, "column_names", None) or ()
    if not {"length", "full_length"} <= set(names) or not hasattr(train, "__len__"):
        return 0.0
    lengths = train.with_format("numpy", columns=["length", "full_length"])[:]
    return float(np.mean(lengths["full_length"] > lengths["length"]))


class FlatLoss(TrainerCallback):
    """Warns once while training, if the loss after warm-up stays at what a model that knows nothing would have.

    Args:
        chance_loss: of the train split; asked for once there are losses enough, and None where it is not known.
    """

    fewest = 20  # logged losses after warm-up
    shortest = 100  # steps after warm-up

    def __init__(self, chance_loss: Callable[[], float | None]):
        self.chance_loss = chance_loss
        self.level: float | None = None
        self.done = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.done or "loss" not in (logs or {}) or not state.is_world_process_zero:
            return
        if args.label_smoothing_factor:  # the loss is another
            self.done = True
            return
        begin = args.get_warmup_steps(state.max_steps)
        entries = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
        after = [(step, loss) for step, loss in entries if step > begin]
        if len(after) < self.fewest or after[-1][0] - begin < self.shortest:
            return
        if self.level is None:
            try:
                self.level = self.chance_loss()
            except Exception:  # nor is it stopped for want of one
                logger.warning("the training loss could not be compared with knowing nothing", exc_info=True)
        recent = after[-max(self.fewest, len(after) // 2) :]  # before, it may have fallen to chance
        mean = float(np.mean([loss for _, loss in recent]))
        if self.level is None or not is_flat([loss for _, loss in recent], self.level):
            self.done = self.level is None or mean < 0.9 * self.level
            return
        self.done = True
        logger.warning(
            "step %d: since step %d the loss has stayed at %.4g, and a model that knows nothing would have %.4g: it "
            "is not learning. Stop it, and try another trainer.learning_rate (it is %g)",
            state.global_step, recent[0][0], mean, self.level, args.learning_rate,
        )  # fmt: skip


def is_flat(losses: list[float], level: float) -> bool:
    """Whether losses in order are not clearly below `level`, nor on their way down."""
    from scipy.stats import linregress

    values = np.asarray(losses, dtype=float)
    if not np.isfinite(values).all():
        return False
    trend = linregress(np.arange(len(values)), values)
    falls = trend.slope + 1.64 * trend.stderr < 0
    below = values.mean() + 2 * values.std(ddof=1) / math.sqrt(len(values)) < level
    return not (falls or below)
