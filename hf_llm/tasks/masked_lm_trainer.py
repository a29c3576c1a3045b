"""HF's Trainer for a masked LM: an exact mean over masked tokens, and an evaluation that keeps three sums a block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, PreTrainedModel, TrainingArguments

from hf_llm.metrics.language_modeling import language_modeling
from hf_llm.tasks.exact_trainer import ExactTrainer
from hf_llm.tasks.masking import NumberedEpochs
from hf_llm.tasks.sampling import IGNORE_INDEX, EpochSampler


class MaskedLMTrainer(ExactTrainer):
    """Batches have `input_ids`, `attention_mask` and `labels`, each (B, T)."""

    item = "block"

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, **kwargs: Any):
        super().__init__(model, args, compute_metrics=_metrics, **kwargs)

    def epoch_sampler(self, dataset: Any, **settings: Any) -> EpochSampler:
        return NumberedEpochs(len(dataset), **settings)

    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Cross-entropy per masked token, in nats."""
        return self.mean_cross_entropy(model(**_model_inputs(inputs)).logits, inputs["labels"], count)

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Per block the summed loss (B, 1), and how many tokens are masked and how many of them are found (B, 2)."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs["labels"]
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**_model_inputs(inputs)).logits.float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # (B, T)
        wide = torch.float32 if losses.device.type == "mps" else torch.float64
        found = (logits.argmax(-1) == labels).sum(1)
        masked = (labels != IGNORE_INDEX).sum(1)
        return None, losses.to(wide).sum(1, keepdim=True), torch.stack([masked, found], dim=1)


def _model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in ("labels", "row")}


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    masked, found = np.sum(prediction.label_ids, axis=0).tolist()
    if not masked:
        return {}
    report = language_modeling(math.fsum(np.ravel(prediction.predictions)), tokens=masked, words=0, num_bytes=0)
    return {"loss": report["loss"], "perplexity": report["perplexity"], "accuracy": found / masked}
