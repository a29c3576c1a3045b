"""HF's Trainer for a causal LM: the fused loss in training, and an evaluation that counts each token once."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, SequentialSampler
from transformers import EvalPrediction, PreTrainedModel, TrainingArguments

from hf_llm.models import fused_loss
from hf_llm.models.state import CACHE_NAME
from hf_llm.tasks.exact_trainer import ExactTrainer
from hf_llm.tasks.sampling import IGNORE_INDEX
from hf_llm.tasks.streams import BlockStreams, CarriedState

logger = logging.getLogger(__name__)


class LanguageModelTrainer(ExactTrainer):
    """Batches are `packing.collate`'s: `input_ids` and `shift_labels` (B, T), and for evaluation `counts` (B, 3).

    Args:
        carry_state: train on `streams.BlockStreams`, each batch from the state that the one before left. That state is
            part of a checkpoint, as the random numbers are: a file per process.
    """

    item = "block"

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        carry_state: bool = False,
        **kwargs: Any,
    ):
        super().__init__(model, args, compute_metrics=_corpus_metrics, **kwargs)
        self.carry_state = carry_state
        self.carried: CarriedState | None = None

    def get_train_dataloader(self) -> DataLoader:
        if not self.carry_state:
            return super().get_train_dataloader()
        processes, size = self.accelerator.num_processes, self._train_batch_size
        streams = BlockStreams(self.train_dataset, rows=size * processes)  # type: ignore[arg-type]
        self.carried = CarriedState(streams.rows, processes, self.accelerator.process_index)
        return self._get_dataloader(streams, "Training", size, SequentialSampler, is_training=True)

    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Negative log-likelihood per target, in nats."""
        if self.carried is None:
            return self._loss_and_outputs(model, _model_inputs(inputs), inputs["shift_labels"], count)[0]
        state = {CACHE_NAME: self.carried.before(inputs["position"]), "use_cache": True}
        loss, outputs = self._loss_and_outputs(
            model, {**_model_inputs(inputs), **state}, inputs["shift_labels"], count
        )
        self.carried.keep(outputs.get(CACHE_NAME), inputs["position"])
        return loss

    def _loss_and_outputs(
        self, model: torch.nn.Module, inputs: dict[str, Any], targets: torch.Tensor, count: torch.Tensor | int | None
    ) -> tuple[torch.Tensor, Any]:
        if self.fused and not self.args.label_smoothing_factor:
            return fused_loss.loss_and_outputs(model, inputs, targets, count)
        outputs = model(**inputs)
        return self.whole_loss(model, outputs, outputs.logits, targets, count), outputs

    def _save_rng_state(self, output_dir: str) -> None:
        """With the other half of what a checkpoint holds of each process. Trainer's own state, which makes it one to
        resume from, is written after."""
        super()._save_rng_state(output_dir)
        if self.carried is not None:
            self.carried.save(output_dir)
            self.accelerator.wait_for_everyone()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Called before the first batch of a resumed training."""
        super()._load_rng_state(checkpoint)
        if self.carried is not None and checkpoint is not None:
            self.carried.load(checkpoint, self.args.device)

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
    others = ("labels", "shift_labels", "counts", "position", "row")
    return {name: value for name, value in batch.items() if name not in others}


def _corpus_metrics(prediction: EvalPrediction) -> dict[str, float]:
    from hf_llm.metrics.language_modeling import language_modeling

    tokens, words, num_bytes, unknown = np.sum(prediction.label_ids, axis=0).tolist()
    loss = math.fsum(np.ravel(prediction.predictions))  # the same however many zeros fill the last batch
    metrics = language_modeling(loss, tokens=tokens, words=words, num_bytes=num_bytes)
    if unknown:
        share = unknown / tokens
        logger.warning(
            "%.1f %% of the tokens are unknown to the tokenizer: perplexities and bits per byte flatter it",
            100 * share,
        )
        metrics["unknown_share"] = share
    return metrics
