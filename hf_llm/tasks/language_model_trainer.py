"""HF's Trainer for a causal LM: the fused loss in training, and an evaluation that counts each token once."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, PreTrainedModel, TrainingArguments

from hf_llm.models import fused_loss
from hf_llm.tasks.exact_trainer import ExactTrainer
from hf_llm.tasks.packing import IGNORE_INDEX

logger = logging.getLogger(__name__)


class LanguageModelTrainer(ExactTrainer):
    """Batches are `packing.collate`'s: `input_ids` and `shift_labels` (B, T), and for evaluation `counts` (B, 3).

    Args:
        fused: compute the loss without ever holding the (tokens x vocabulary) logits, where the model allows it.
    """

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, *, fused: bool = True, **kwargs: Any):
        super().__init__(model, args, compute_metrics=_corpus_metrics, **kwargs)
        self.fused = fused

    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Negative log-likelihood per target, in nats."""
        targets = inputs["shift_labels"]
        inputs = _model_inputs(inputs)
        smoothing = self.args.label_smoothing_factor
        if self.fused and not smoothing:
            return fused_loss.causal_lm_loss(model, inputs, targets, count)
        outputs = model(**inputs)
        logits, targets = outputs.logits.float().flatten(0, 1), targets.flatten()  # (B·T, V), (B·T)
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
        loss = loss / ((targets != IGNORE_INDEX).sum() if count is None else count)
        return loss + fused_loss.auxiliary_loss(model, outputs, targets, count)

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Per block the summed loss (B, 1), and over how much: tokens and `counts` (B, 4). No logits are kept."""
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

    tokens, words, num_bytes, unknown = np.sum(prediction.label_ids, axis=0).tolist()
    metrics = language_modeling(float(np.sum(prediction.predictions)), tokens=tokens, words=words, num_bytes=num_bytes)
    if unknown:
        share = unknown / tokens
        logger.warning(
            "%.1f %% of the tokens are unknown to the tokenizer: perplexities and bits per byte flatter it",
            100 * share,
        )
        metrics["unknown_share"] = share
    return metrics
