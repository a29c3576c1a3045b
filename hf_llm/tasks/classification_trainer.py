"""HF's Trainer for a classifier: exact metrics over all rows, with one class id and one loss kept of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from hf_llm.tasks.exact_trainer import ExactTrainer
from hf_llm.tasks.sampling import IGNORE_INDEX

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
        outputs, labels = model(**_model_inputs(inputs)), inputs["labels"]
        return self.whole_loss(model, outputs, outputs.logits, labels, count)

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """Per row: the loss and the class (B,), and where asked the probability of each class (B, C)."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**_model_inputs(inputs)).logits.float()
        if labels is None:
            labels = torch.full((len(logits),), IGNORE_INDEX, device=logits.device)
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        kept: tuple[torch.Tensor, ...] = (losses, logits.argmax(-1))
        if self.keep_probabilities:
            kept += (logits.softmax(-1),)
        return None, kept, labels

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        from hf_llm.metrics import classification_report

        losses, classes = cast(tuple[np.ndarray, ...], prediction.predictions)[:2]
        labels = np.asarray(prediction.label_ids)
        if (labels == IGNORE_INDEX).all():
            return {}
        report = classification_report(classes, labels, self.labels, self.task.positive_label, self.task.metrics)
        return {"loss": float(np.mean(losses, dtype=np.float64)), **report}

    def scores(self, encoded: Dataset, split: str) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """Classes (N,) and probabilities (N, C) of an encoded split, in the order of its raw rows, and its metrics."""
        self.keep_probabilities = True
        try:
            output = self.predict(encoded, metric_key_prefix=split)
        finally:
            self.keep_probabilities = False
        order = np.argsort(np.asarray(encoded["row"]))
        _, classes, probabilities = cast(tuple[np.ndarray, ...], output.predictions)
        return classes[order], probabilities[order], output.metrics or {}


def _model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in ("labels", "row")}
