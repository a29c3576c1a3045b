"""HF's Trainer, with means that are over rows or tokens whatever batches, steps and processes they came in."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler
from transformers import PreTrainedModel, TrainingArguments

from hf_llm.config import InputError
from hf_llm.models.fused_loss import auxiliary_loss
from hf_llm.tasks.finite_trainer import FiniteTrainer
from hf_llm.tasks.sampling import (
    IGNORE_INDEX,
    ROWS_IN_TURN,
    EpochSampler,
    FilledRows,
    FilledSampler,
    FilledStream,
    LengthGroupedSteps,
)
from hf_llm.tasks.sharding import shard_on_cpu

logger = logging.getLogger(__name__)


class ExactTrainer(FiniteTrainer):
    """The base of each task's Trainer.

    Trainer leaves the mean over an accumulated batch to the model, by `num_items_in_batch`, wherever the model's
    forward takes any keyword; but BERT and GPT-2 as classifiers take it and do not look at it, and their loss grows
    with the number of accumulation steps. Here the loss is always `mean_loss`, which must honour it.

    Args:
        fused: compute the loss of language models without ever holding the (tokens x vocabulary) logits, where the
            model allows it.
    """

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, *, fused: bool = True, **kwargs: Any):
        if args.gradient_checkpointing and not model.supports_gradient_checkpointing:
            name = "activation" if hasattr(args, "activation_checkpointing") else "gradient"  # before 5.23
            raise InputError(
                f"trainer.{name}_checkpointing=true: a {model.config.model_type} cannot do it; "
                "leave it out, or lower trainer.per_device_train_batch_size"
            )
        super().__init__(model, args, **kwargs)
        self.fused = fused
        self.evaluated: Any = None  # the encoded split that is being so
        self.keeps: Any = None  # the encoded split of whose next evaluation is `kept` what there was of each row
        self.kept: Any = None  # (predictions, label_ids), as compute_metrics has them
        self.model_accepts_loss_kwargs = True  # so that Trainer counts the items
        self.loss_is_scaled_for_ga = True
        if args.world_size > 1 and not args.average_tokens_across_devices:
            logger.warning(
                "trainer.average_tokens_across_devices=false: the loss is the mean over processes of their own means, "
                "and so depends on their number"
            )

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        shard_on_cpu(self)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if state_dict is not None:  # gathered from shards, where tied weights share no memory and would stand twice
            tied = self.accelerator.unwrap_model(self.model).all_tied_weights_keys
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)

    @abstractmethod
    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The summed loss of a batch over `count`, the items of the whole step; over its own where that is None."""

    def mean_cross_entropy(
        self, logits: torch.Tensor, labels: torch.Tensor, count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The summed cross-entropy of `labels` (…) under `logits` (…, C) over `count`, as `mean_loss` has it."""
        logits, labels = logits.float().flatten(0, -2), labels.flatten()
        smoothing = self.args.label_smoothing_factor
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
        return loss / ((labels != IGNORE_INDEX).sum().clamp(min=1) if count is None else count)

    def whole_loss(
        self,
        model: torch.nn.Module,
        outputs: Any,
        logits: torch.Tensor,
        labels: torch.Tensor,
        count: torch.Tensor | int | None,
    ) -> torch.Tensor:
        """`mean_cross_entropy`, and what the model adds to it in training."""
        loss = self.mean_cross_entropy(logits, labels, count)
        return loss + auxiliary_loss(model, outputs, labels, count)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        if isinstance(num_items_in_batch, torch.Tensor):  # of this process alone there may be none
            num_items_in_batch = num_items_in_batch.clamp(min=1)
        loss = self.mean_loss(model, inputs, num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP will average the gradients over processes
        return (loss, None) if return_outputs else loss

    def epoch_sampler(self, dataset: Any, **settings: Any) -> EpochSampler:
        """The order of the rows that are trained on; `settings` are EpochSampler's, less the size."""
        lengths = self.row_lengths(dataset) if self.args.train_sampling_strategy == "group_by_length" else None
        return EpochSampler(len(dataset), **settings) if lengths is None else LengthGroupedSteps(lengths, **settings)

    def row_lengths(self, dataset: Any) -> Any:
        """Of each row in tokens; None where all are of one length."""
        return dataset["length"] if "length" in getattr(dataset, "column_names", ()) else None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(dataset)
        return self.epoch_sampler(
            dataset,
            step=self.get_total_train_batch_size(self.args),
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            drop_last=self.args.dataloader_drop_last,
        )

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """In order, where Trainer's length-grouped sampler would shuffle."""
        return SequentialSampler(eval_dataset)

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Any = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader:
        """As Trainer's; but each row is in one batch of one process, and batches are filled up as `sampling` says.

        A training on one process keeps its shorter last batch. An evaluation is over every row, whatever
        `dataloader_drop_last` says, and its batches have the same rows on any number of processes.
        """
        accumulation = self.args.gradient_accumulation_steps
        processes = self.get_total_train_batch_size(self.args) // (self._train_batch_size * accumulation)
        if not (is_training or self.accelerator.split_batches or isinstance(dataset, IterableDataset)):
            batch_size = max(1, min(batch_size, -(-len(dataset) // processes)))  # one block may be the whole corpus
        together = batch_size if self.accelerator.split_batches else batch_size * processes
        if isinstance(dataset, IterableDataset):
            # an accumulated step that the stream's end cut short would be taken with the next epoch's first
            return self._stream_loader(dataset, batch_size, together * (accumulation if is_training else 1))
        sampler = sampler_fn(dataset) if sampler_fn is not None else SequentialSampler(dataset)
        drop_last = self.args.dataloader_drop_last
        in_order = isinstance(sampler, SequentialSampler) and not (is_training and drop_last)
        filled = (in_order or isinstance(sampler, EpochSampler)) and (processes > 1 or not is_training)
        if filled:
            dataset, sampler = FilledRows(dataset), FilledSampler(sampler, together)
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            loader = super()._get_dataloader(
                dataset, description, batch_size, lambda _: sampler, is_training, dataloader_key
            )
        finally:
            self.args.dataloader_drop_last = drop_last
        if filled:  # where accelerate finds it to tell it the epoch, in a resumed one too
            loader.set_sampler(sampler)  # type: ignore[attr-defined]
        return loader

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        self.evaluated = getattr(dataloader.dataset, "rows", dataloader.dataset)  # without those that fill up
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        if self.evaluated is self.keeps:
            self.kept = output.predictions, output.label_ids
        return output

    def _stream_loader(self, rows: Any, batch_size: int, multiple: int) -> DataLoader:
        args, accelerator = self.args, self.accelerator
        workers = {
            "num_workers": args.dataloader_num_workers,
            "persistent_workers": args.dataloader_persistent_workers,
            "multiprocessing_context": args.dataloader_multiprocessing_context,
        }
        if args.dataloader_num_workers:  # as many batches ahead as asked for
            workers["prefetch_factor"] = (args.dataloader_prefetch_factor or 2) * -(-batch_size // ROWS_IN_TURN)
        stream = FilledStream(rows, multiple, **workers)
        loader = DataLoader(
            stream, batch_size=batch_size, collate_fn=self.data_collator, pin_memory=args.dataloader_pin_memory
        )
        return prepare_data_loader(  # accelerator.prepare would have process 0 read for all
            loader,
            accelerator.device,
            num_processes=accelerator.num_processes,
            process_index=accelerator.process_index,
            split_batches=accelerator.split_batches,
            put_on_device=accelerator.device_placement,
            dispatch_batches=bool(accelerator.dispatch_batches),
            non_blocking=accelerator.non_blocking,
        )
