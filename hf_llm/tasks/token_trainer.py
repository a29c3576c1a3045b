"""HF's Trainer for tags: a mean over words, and an evaluation that keeps one class a word and one loss a window."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from hf_llm.tasks.exact_trainer import ExactTrainer
from hf_llm.tasks.sampling import IGNORE_INDEX

NOT_INPUTS = ("labels", "first", "words", "row")


class WindowCollator:
    """Pads `words.Window`s: the tokens to the longest of the batch (B, T), what is of words to the most words (B, W).

    `labels` are filled up with `IGNORE_INDEX`, `words` likewise, and `first` with 0.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = [name for name in ("input_ids", "token_type_ids") if name in rows[0]]
        tokens: Any = [{name: row[name] for name in inputs} for row in rows]
        batch: Any = dict(self.tokenizer.pad(tokens, return_tensors="pt"))
        for name in ("first", "words", "labels"):
            if name in rows[0]:
                batch[name] = pad_sequence(
                    [torch.tensor(row[name], dtype=torch.long) for row in rows],
                    batch_first=True,
                    padding_value=0 if name == "first" else IGNORE_INDEX,
                )
        batch["row"] = torch.tensor([row["row"] for row in rows])
        return batch


class TokenTrainer(ExactTrainer):
    """Batches are `WindowCollator`'s.

    Args:
        measure: the tags that were predicted of each sentence, and those that it has, as ids -> metrics.
    """

    item = "sentence"

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        measure: Callable[[list[np.ndarray], list[np.ndarray]], dict[str, float]],
        **kwargs: Any,
    ):
        super().__init__(model, args, compute_metrics=self._metrics, **kwargs)
        self.measure = measure

    @property
    def labels(self) -> list[str]:
        """Tag names, in id order."""
        return [self.model.config.id2label[index] for index in range(self.model.config.num_labels)]

    def outputs(self, model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        return model(**{name: value for name, value in batch.items() if name not in NOT_INPUTS})

    def word_logits(self, outputs: Any, batch: dict[str, Any]) -> torch.Tensor:
        """(B, W, C): those of each word's first sub-word."""
        logits = outputs.logits.float()
        return logits.gather(1, batch["first"][:, :, None].expand(-1, -1, logits.shape[-1]))

    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Cross-entropy per word, in nats."""
        outputs = self.outputs(model, inputs)
        return self.whole_loss(model, outputs, self.word_logits(outputs, inputs), inputs["labels"], count)

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """The summed loss of each window (B, 1) and a class for each word (B, W); as what is to be compared, labels
        and numbers of words (B, W), and the sentence's own (B, 1)."""
        inputs = self._prepare_inputs(inputs)
        words = inputs["words"]
        labels = inputs.get("labels", torch.full_like(words, IGNORE_INDEX))
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = self.word_logits(self.outputs(model, inputs), inputs)
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        classes = logits.argmax(-1).masked_fill(words == IGNORE_INDEX, IGNORE_INDEX)
        wide = torch.float32 if losses.device.type == "mps" else torch.float64
        return None, (losses.to(wide).sum(1, keepdim=True), classes), (labels, words, inputs["row"][:, None])

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        losses, classes = cast(tuple[np.ndarray, ...], prediction.predictions)
        labels, words, rows = cast(tuple[np.ndarray, ...], prediction.label_ids)
        if (labels == IGNORE_INDEX).all():
            return {}
        loss = math.fsum(np.ravel(losses)) / int((labels != IGNORE_INDEX).sum())
        return {"loss": loss, **self.measure(in_order(classes, words, rows), in_order(labels, words, rows))}

    def tags(self, encoded: Any, split: str) -> tuple[list[np.ndarray], dict[str, float]]:
        """The classes of each sentence of an encoded split, in the order of its raw rows, and the metrics."""
        output: Any = self.predict(encoded, metric_key_prefix=split)
        _, words, rows = output.label_ids
        return in_order(output.predictions[1], words, rows), output.metrics or {}


def in_order(values: np.ndarray, words: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """What windows say of words (N, W), as a list for each sentence, by its number, in the order of its words."""
    there = words != IGNORE_INDEX
    row = np.broadcast_to(rows, words.shape)[there]
    order = np.lexsort((words[there], row))
    row, value = row[order], values[there][order]
    _, starts = np.unique(row, return_index=True)
    return np.split(value, starts[1:])
