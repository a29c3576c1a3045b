"""HF's Trainer, with means that are over rows or tokens whatever batches, steps and processes they came in."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerState, TrainingArguments


class ExactTrainer(Trainer):
    """The base of each task's Trainer.

    Trainer leaves the mean over an accumulated batch to the model, by `num_items_in_batch`, wherever the model's
    forward takes any keyword; but BERT and GPT-2 as classifiers take it and do not look at it, and their loss grows
    with the number of accumulation steps. Here the loss is always `mean_loss`, which must honour it.
    """

    model: Any

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

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """As Trainer's; but a checkpoint of the last step is restored, where Trainer would take a step more."""
        if isinstance(resume_from_checkpoint, str):
            state = TrainerState.load_from_json(os.path.join(resume_from_checkpoint, "trainer_state.json"))
            if state.global_step >= state.max_steps > 0:
                self._load_from_checkpoint(resume_from_checkpoint)
                self.state = state
                if self.args.load_best_model_at_end and state.best_model_checkpoint:
                    self._load_best_model()
                return None
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

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
