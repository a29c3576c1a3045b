"""HF's Trainer for a classifier: exact metrics over all rows, with one class id and one loss kept of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from hf_llm.tasks.exact_trainer import ExactTrainer

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_llm.tasks.text_classification import TextClassification


class Collator:
    """Pads to the longest text of the batch; the columns that only sampling and reporting need stay behind.

    So do segment ids, where the model has no embedding for them: GPT-2 would look them up among the words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel):
        self.pad = DataCollatorWithPadding(tokenizer)
        self.wanted = {*tokenizer.model_input_names, "labels", "row"}
        if not getattr(model.config, "type_vocab_size", 0):
            self.wanted.discard("token_type_ids")

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self.pad([{name: value for name, value in row.items() if name in self.wanted} for row in rows])


class LengthGroupedBatches(Sampler[int]):
    """Rows such that each `batch_size` of them are of like length, with the batches in random order.

    transformers' own sampler leaves the batches of every fifty in order, the longest first. Where length tells
    something of the label, training then sees one class for a while and forgets the other: of SMS spam, which is
    longer, a BERT learns nothing in an epoch, and 99 % with the batches shuffled.

    Each epoch has an order of its own that depends on the seed alone, so that a resumed epoch goes on in it.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = list(lengths), batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's dataloader before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        rows = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        whole = len(rows) // self.batch_size  # a shorter batch stays the last
        for batch in [*torch.randperm(whole, generator=generator).tolist(), whole]:
            yield from rows[batch * self.batch_size : (batch + 1) * self.batch_size]


class ClassificationTrainer(ExactTrainer):
    """Evaluation keeps of each row its loss and its class, never the logits."""

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, *, task: TextClassification, **kwargs: Any):
        super().__init__(model, args, compute_metrics=self._metrics, **kwargs)
        self.task = task
        self.keep_probabilities = False

    @property
    def labels(self) -> list[str]:
        """Class names, in id order."""
        return [self.model.config.id2label[index] for index in range(self.model.config.num_labels)]

    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Cross-entropy per row, in nats."""
        labels = inputs["labels"]
        logits = model(**_model_inputs(inputs)).logits.float()
        loss = torch.nn.functional.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=self.args.label_smoothing_factor
        )
        return loss / (len(labels) if count is None else count)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthGroupedBatches(dataset["length"], self.args.train_batch_size, seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """In order: the split is sorted by length already, and Trainer's length-grouped sampler would shuffle it."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """Per row: the loss and the class (B,), and where asked the probability of each class (B, C)."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**_model_inputs(inputs)).logits.float()
        if labels is None:
            labels = torch.full((len(logits),), -100, device=logits.device)
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        kept: tuple[torch.Tensor, ...] = (losses, logits.argmax(-1))
        if self.keep_probabilities:
            kept += (logits.softmax(-1),)
        return None, kept, labels

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        from hf_llm.metrics import classification_report

        losses, classes = cast(tuple[np.ndarray, ...], prediction.predictions)[:2]
        labels = np.asarray(prediction.label_ids)
        if (labels == -100).all():
            return {}
        report = classification_report(classes, labels, self.labels, self.task.positive_label, self.task.metrics)
        return {"loss": float(np.mean(losses, dtype=np.float64)), **report}

    def scores(self, encoded: Dataset) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """Classes (N,) and probabilities (N, C) of an encoded split, in the order of its raw rows, and its metrics."""
        self.keep_probabilities = True
        try:
            output = self.predict(encoded, metric_key_prefix="eval")
        finally:
            self.keep_probabilities = False
        order = np.argsort(np.asarray(encoded["row"]))
        _, classes, probabilities = cast(tuple[np.ndarray, ...], output.predictions)
        return classes[order], probabilities[order], output.metrics or {}


def _model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in ("labels", "row")}
