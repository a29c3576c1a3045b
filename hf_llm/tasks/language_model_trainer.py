"""HF's Trainer for a causal LM: the fused loss in training, and an evaluation that counts each token once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments

from hf_llm.models import fused_loss
from hf_llm.tasks.packing import IGNORE_INDEX


class LanguageModelTrainer(Trainer):
    """Batches are `packing.collate`'s: `input_ids` and `shift_labels` (B, T), and for evaluation `counts` (B, 2).

    Args:
        fused: compute the loss without ever holding the (tokens x vocabulary) logits, where the model allows it.
    """

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, *, fused: bool = True, **kwargs: Any):
        super().__init__(model, args, compute_metrics=_corpus_metrics, **kwargs)
        self.fused = fused
        self.model_accepts_loss_kwargs = True  # ask for num_items_in_batch: the loss below always honours it
        self.loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Mean negative log-likelihood in nats over the targets of the whole (accumulated, global) batch."""
        targets = inputs["shift_labels"]
        inputs = _model_inputs(inputs)
        smoothing = self.args.label_smoothing_factor
        outputs = None
        if self.fused and not smoothing and not return_outputs:
            loss = fused_loss.causal_lm_loss(model, inputs, targets, num_items_in_batch)
        else:
            outputs = model(**inputs)
            loss = torch.nn.functional.cross_entropy(
                outputs.logits.float().flatten(0, 1), targets.flatten(), reduction="sum", label_smoothing=smoothing
            )
            loss = loss / ((targets != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP will average the gradients over processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Per block the summed loss (B, 1), and over how much: tokens, words, bytes (B, 3). No logits are kept."""
        inputs = self._prepare_inputs(inputs)
        targets = inputs["shift_labels"]
        with torch.no_grad(), self.compute_loss_context_manager():
            losses = fused_loss.token_losses(model, _model_inputs(inputs), targets)
        wide = torch.float32 if losses.device.type == "mps" else torch.float64
        tokens = (targets != IGNORE_INDEX).sum(1, keepdim=True)
        return None, losses.to(wide).sum(1, keepdim=True), torch.cat([tokens, inputs["counts"]], dim=1)


def _model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in ("labels", "shift_labels", "counts")}


def _corpus_metrics(prediction: EvalPrediction) -> dict[str, float]:
    from hf_llm.metrics.language_modeling import language_modeling

    tokens, words, num_bytes = np.sum(prediction.label_ids, axis=0).tolist()
    return language_modeling(float(np.sum(prediction.predictions)), tokens=tokens, words=words, num_bytes=num_bytes)
