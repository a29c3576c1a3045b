"""HF's Trainer, which stops at a loss that is no number, names the rows it came from, and never learns from it."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from hf_llm import checkpoints
from hf_llm.config import InputError
from hf_llm.tasks.resumable_trainer import ResumableTrainer

logger = logging.getLogger(__name__)

NAMED = 20  # rows, at most, in a message


class FiniteTrainer(ResumableTrainer):
    """Looks at the gradient's norm before each optimizer step: what is infinite or NaN on one process is so on all.

    A batch may say where it came from: `row` (B,), the place of each item in the train split.

    Args:
        skip_nonfinite: leave out such a step, with a warning, in place of stopping.
    """

    item = "row"  # what an item of the train split is called

    def __init__(self, *args: Any, skip_nonfinite: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.skip_nonfinite = skip_nonfinite
        self.args.logging_nan_inf_filter = skip_nonfinite  # which hides such losses from the log
        self._step_batches: list[tuple[torch.Tensor, Any]] = []  # loss and rows of each batch of the step

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        rows = inputs.get("row")
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._step_batches.append((loss, rows))
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        batches, self._step_batches = self._step_batches, []
        scales = self.accelerator.scaler is not None  # and leaves out, by itself, steps whose gradient overflowed
        watched = [loss for loss, _ in batches] if scales or norm is None else [norm]
        is_bad = not all(math.isfinite(float(value)) for value in watched)
        if self.largest(is_bad) if scales else is_bad:
            self._not_finite(model, batches)
        return norm

    def _not_finite(self, model: torch.nn.Module, batches: list[tuple[torch.Tensor, Any]]) -> None:
        """Raises InputError, or empties the gradients so that the optimizer has nothing to do."""
        step = self.state.global_step + 1
        bad = [(loss, rows) for loss, rows in batches if not math.isfinite(float(loss))]
        rows = sorted({row for _, rows in bad or batches if rows is not None for row in rows.tolist() if row >= 0})
        found: list[Any] = gather_object([(rows, bool(bad))]) if self.args.world_size > 1 else [(rows, bool(bad))]
        is_loss = any(of_loss for _, of_loss in found)
        rows = sorted(row for process, of_loss in found if of_loss == is_loss for row in process)
        message = f"step {step}: the {'loss' if is_loss else 'gradient'} is not finite{self._where(rows)}"
        if self.skip_nonfinite:
            logger.warning("%s; the step is left out", message)
            model.zero_grad()
            return
        last = checkpoints.folders(Path(self.args.output_dir or ""))
        kept = f"{last[-1].name} is whole" if last else "no checkpoint was saved yet"
        raise InputError(
            f"{message}; {kept}. Look at these rows, lower trainer.learning_rate, or set nonfinite_loss=skip"
        )

    def _where(self, rows: list[int]) -> str:
        if not rows:
            return ""
        names = ", ".join(str(row) for row in rows[:NAMED]) + (", …" if len(rows) > NAMED else "")
        return f", in {self.item}{'s' if len(rows) > 1 else ''} {names} of train (the first is 0)"
