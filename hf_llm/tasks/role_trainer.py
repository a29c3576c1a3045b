"""HF's Trainer for semantic roles: a mean over words, and the best BIO tagging of each predicate, not of each word."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from hf_llm.tasks.propositions import NO_PREDICATE, UNREAD
from hf_llm.tasks.sampling import IGNORE_INDEX
from hf_llm.tasks.token_trainer import TokenTrainer, WindowCollator, in_order
from hf_llm.tasks.viterbi import FORBIDDEN, bio_transitions, viterbi

OWN = ("tags", "example", "predicate")  # columns that no model reads
Measure = Callable[[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[int], Sequence[str]], dict[str, float]]


def segments(model: PreTrainedModel) -> int:
    """How many segments the model has an embedding for."""
    return int(getattr(model.config, "type_vocab_size", 0) or 0)


class RoleCollator(WindowCollator):
    """As its base; `tags` (B, W) are what the sentence has, `labels` those of them that the model has and reads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel):
        super().__init__(tokenizer)
        self.has_segments = segments(model) > 1
        self.num_labels = len(model.config.id2label or {})

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        if not self.has_segments:
            batch.pop("token_type_ids", None)
        if "labels" in batch:
            batch["labels"].masked_fill_(batch["labels"] >= self.num_labels, IGNORE_INDEX)
            tags = [torch.tensor(row["tags"], dtype=torch.long) for row in rows]
            batch["tags"] = pad_sequence(tags, batch_first=True, padding_value=IGNORE_INDEX)
        for name in ("example", "predicate"):
            batch[name] = torch.tensor([row[name] for row in rows])
        return batch


class RoleTrainer(TokenTrainer):
    """Batches are `RoleCollator`'s.

    Args:
        measure: tags found and tags true of each example, as ids; its predicate, or `NO_PREDICATE`; and the names of
            the ids -> metrics.
    """

    item = "row"

    def __init__(self, model: PreTrainedModel, args: TrainingArguments, *, measure: Measure, **kwargs: Any):
        super().__init__(model, args, measure=measure, **kwargs)  # type: ignore[arg-type]
        self.names = self.labels  # those of the rows that are measured: they may have more than the model
        self.start, self.after = bio_transitions(self.labels)

    def outputs(self, model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        return super().outputs(model, {name: value for name, value in batch.items() if name not in OWN})

    def word_logits(self, outputs: Any, batch: dict[str, Any]) -> torch.Tensor:
        """(B, W, C): those of each word's first sub-word, for one that was not read of any."""
        return super().word_logits(outputs, {"first": batch["first"].clamp(min=0)})

    def best_tags(self, logits: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """(B, W, C) -> (B, W), the most probable tagging of those that are well-formed.

        The predicate, and no other word, begins a `V`; where predicates are to be found all else is `O`. So is a
        word that was not read.
        """
        scores = logits.log_softmax(-1)
        is_verb, is_outside = (
            torch.tensor([label == tag for label in self.labels]).to(scores.device) for tag in ("B-V", "O")
        )  # (C,) each
        is_predicate = torch.arange(scores.shape[1], device=scores.device) == batch["predicate"][:, None]  # (B, W)
        to_find = (batch["predicate"] == NO_PREDICATE)[:, None]
        unread = batch["first"] == UNREAD
        barred = is_predicate[:, :, None] & ~is_verb & is_verb.any()
        barred |= (~is_predicate & ~to_find)[:, :, None] & is_verb
        barred |= (unread | to_find)[:, :, None] & ~is_outside & ~is_verb
        return viterbi(scores.masked_fill(barred, FORBIDDEN), batch["words"] != IGNORE_INDEX, self.start, self.after)

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """The summed loss of each example and its words (B, 2), and a class for each word (B, W); as what is to be
        compared, tags and numbers of words (B, W), and the example's own and its predicate's (B, 2)."""
        inputs = self._prepare_inputs(inputs)
        words = inputs["words"]
        none = torch.full_like(words, IGNORE_INDEX)
        labels, tags = inputs.get("labels", none), inputs.get("tags", none)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = self.word_logits(self.outputs(model, inputs), inputs)
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        wide = torch.float32 if losses.device.type == "mps" else torch.float64
        sums = torch.stack([losses.to(wide).sum(1), (labels != IGNORE_INDEX).sum(1).to(wide)], dim=1)
        classes = self.best_tags(logits, inputs).masked_fill(words == IGNORE_INDEX, IGNORE_INDEX)
        return None, (sums, classes), (tags, words, torch.stack([inputs["example"], inputs["predicate"]], dim=1))

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        sums, classes = cast(tuple[np.ndarray, ...], prediction.predictions)
        tags, words, about = cast(tuple[np.ndarray, ...], prediction.label_ids)
        if (tags == IGNORE_INDEX).all():
            return {}
        _, first = np.unique(about[:, 0], return_index=True)
        found, true = (in_order(values, words, about[:, :1]) for values in (classes, tags))
        loss = math.fsum(sums[:, 0]) / max(sums[:, 1].sum(), 1)
        return {"loss": loss, **self.measure(found, true, about[first, 1].tolist(), self.names)}  # type: ignore[call-arg, arg-type]

    def readings(self, encoded: Any, split: str) -> tuple[dict[int, np.ndarray], dict[str, float]]:
        """Example -> the class of each of its words; and the metrics."""
        output: Any = self.predict(encoded, metric_key_prefix=split)
        _, words, about = output.label_ids
        found = in_order(output.predictions[1], words, about[:, :1])
        return dict(zip(np.unique(about[:, 0]).tolist(), found, strict=True)), output.metrics or {}
