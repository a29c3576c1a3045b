"""HF's Trainer, with means that are over rows or tokens whatever batches, steps and processes they came in."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from transformers import PreTrainedModel, TrainingArguments

from hf_llm.tasks.finite_trainer import FiniteTrainer


class ExactTrainer(FiniteTrainer):
    """The base of each task's Trainer.

    Trainer leaves the mean over an accumulated batch to the model, by `num_items_in_batch`, wherever the model's
    forward takes any keyword; but BERT and GPT-2 as classifiers take it and do not look at it, and their loss grows
    with the number of accumulation steps. Here the loss is always `mean_loss`, which must honour it.
    """

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, **kwargs: Any):
        super().__init__(model, args, **kwargs)
        self.model_accepts_loss_kwargs = True  # so that Trainer counts the items
        self.loss_is_scaled_for_ga = True

    @abstractmethod
    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The summed loss of a batch over `count`, the items of the whole step; over its own where that is None."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        loss = self.mean_loss(model, inputs, num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP will average the gradients over processes
        return (loss, None) if return_outputs else loss

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Any = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> Any:
        """`dataloader_drop_last` is about training: an evaluation is over every row."""
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        finally:
            self.args.dataloader_drop_last = drop_last
