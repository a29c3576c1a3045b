"""HF's Trainer for question answering: an evaluation that keeps of each window the likeliest places of an answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from hf_llm.tasks.exact_trainer import ExactTrainer
from hf_llm.tasks.question_windows import Found, QuestionWindows, answers, texts
from hf_llm.tasks.sampling import IGNORE_INDEX

if TYPE_CHECKING:
    from hf_llm.tasks.question_answering import QuestionAnswering


NOT_INPUTS = ("labels", "row", "of_context")


def collator(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Any:
    """Pads to the longest window of the batch, and leaves segment ids out where a model has no embedding for them."""
    pad = DataCollatorWithPadding(tokenizer)
    kept = ["input_ids", "labels", "row"]
    if getattr(model.config, "type_vocab_size", 0):
        kept.append("token_type_ids")

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = pad([{name: row[name] for name in kept if name in row} for row in rows])
        of_context = [torch.tensor(row["of_context"]) for row in rows]
        batch["of_context"] = pad_sequence(of_context, batch_first=True)  # no tokenizer here pads on the left
        return batch

    return collate


class QuestionTrainer(ExactTrainer):
    """Batches have the model's inputs and `of_context` (B, T), and of first and last tokens the `labels` (B, 2)."""

    item = "question"

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, *, task: QuestionAnswering, **kwargs: Any):
        super().__init__(model, args, compute_metrics=self._metrics, **kwargs)
        self.task = task

    def row_lengths(self, dataset: Any) -> Any:
        return dataset.lengths

    def logits(self, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """(B, 2, T): of each token to be an answer's first and last."""
        output = model(**{name: value for name, value in batch.items() if name not in NOT_INPUTS})
        logits = torch.stack([output.start_logits, output.end_logits], dim=1).float()
        return logits.masked_fill(batch["attention_mask"][:, None] == 0, torch.finfo(logits.dtype).min)

    def mean_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Cross-entropy per place, first and last alike, in nats."""
        return self.mean_cross_entropy(self.logits(model, inputs), inputs["labels"], count)

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """Of each window its loss (B, 1), and what `question_windows.answers` takes: (B, 2 k + 1) and (B, 2 k)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = self.logits(model, inputs)
        labels = inputs.get("labels", torch.full((len(logits), 2), IGNORE_INDEX, device=logits.device))
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1)
        none = logits[:, :, 0].sum(1, keepdim=True)
        k = self.task.n_best_size
        allowed = logits.masked_fill(~inputs["of_context"][:, None], -torch.inf)
        values, places = allowed.topk(min(k, allowed.shape[-1]), dim=-1)
        values = torch.nn.functional.pad(values, (0, k - values.shape[-1]), value=-torch.inf)
        places = torch.nn.functional.pad(places, (0, k - places.shape[-1]), value=-1)
        places = places.masked_fill(values == -torch.inf, -1).flatten(1)
        kept = torch.cat([values.masked_fill(values == -torch.inf, 0).flatten(1), none], dim=1)
        return None, (losses[:, None], kept, places), labels

    def _found(self, predictions: Any) -> list[Found]:
        assert self.evaluated is not None
        _, values, places = cast(tuple[np.ndarray, ...], predictions)
        return answers(self.evaluated, values, places, self.task.n_best_size, self.task.max_answer_length)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        from hf_llm.metrics.question_answering import question_answering_report

        labels = np.asarray(prediction.label_ids)
        if self.evaluated is None or "answers" not in self.evaluated.raw.column_names:
            return {}
        found = self._found(prediction.predictions)
        references = [given["text"] for given in self.evaluated.raw["answers"]]
        places = max(1, int((labels != IGNORE_INDEX).sum()))  # 0 where no answer is known to stand in its context
        loss = math.fsum(np.ravel(prediction.predictions[0]).astype(np.float64)) / places
        language = self.task.language
        threshold = self.task.threshold(self.model)
        report = question_answering_report(texts(found, threshold), references, language)
        if not all(references):  # what other thresholds would do
            scores = [one.no_answer_score for one in found]
            free = question_answering_report(texts(found, None), references, language, scores)
            report |= {name: value for name, value in free.items() if name.startswith("best_")}
        return {"loss": float(loss), **report}

    def answers(self, encoded: QuestionWindows, split: str) -> tuple[list[Found], dict[str, float]]:
        """The answers to each question of an encoded split, in the order of its raw rows, and the metrics."""
        output: Any = self.predict(encoded, metric_key_prefix=split)  # type: ignore[arg-type]
        return self._found(output.predictions), output.metrics or {}
