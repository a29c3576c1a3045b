"""A summary by extraction: of the source's own sentences, the one that the model would most likely have written.

A small model from scratch writes no sentence that is true of its source; but which sentence reads like a summary it
learns soon. Sentences are ranked as beams are: log-likelihood over length to the power of `length_penalty`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_llm.tasks.sampling import IGNORE_INDEX
from hf_llm.tasks.sentences import sentences
from hf_llm.tasks.seq2seq import Seq2SeqTask, target_ids
from hf_llm.tasks.seq2seq_trainer import Collator, SequenceToSequenceTrainer, model_inputs

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def with_sentences(encoded: Dataset, raw: Dataset, tokenizer: PreTrainedTokenizerBase, task: Seq2SeqTask) -> Dataset:
    """Adds to each row the `sentences` of its source, and their token ids as targets, `candidates`."""
    texts = [sentences(raw[row]["source"]) or [raw[row]["source"]] for row in encoded["row"]]
    ids = [target_ids(row, tokenizer, task)[0] for row in texts]
    return encoded.add_column("sentences", texts).add_column("candidates", ids)  # type: ignore[call-arg]


class _WithCandidates:
    """A collator's batch, and under `candidates` a batch with a row for each candidate of each row, `rows` of each."""

    def __init__(self, collator: Collator):
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.collator(rows)
        if "candidates" in rows[0]:
            each = [{**row, "labels": candidate} for row in rows for candidate in row["candidates"]]
            batch["candidates"] = self.collator(each)
            batch["candidates"]["counts"] = torch.tensor([len(row["candidates"]) for row in rows])
        return batch


class ExtractiveTrainer(SequenceToSequenceTrainer):
    """Trained as its base class is; a prediction is the number of a sentence."""

    def __init__(self, *args: Any, data_collator: Collator, **kwargs: Any):
        super().__init__(*args, data_collator=_WithCandidates(data_collator), **kwargs)

    def write(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The place of the likeliest sentence among its source's, (B, 1)."""
        batch = inputs["candidates"]
        counts = batch.pop("counts").tolist()
        losses = self.token_losses(self.model, model_inputs(batch), batch["labels"])
        lengths = (batch["labels"] != IGNORE_INDEX).sum(1)
        penalty = self.model.generation_config.length_penalty
        scores = losses.sum(1) / lengths ** (1.0 if penalty is None else penalty)
        return torch.stack([row.argmin().view(1) for row in scores.split(counts)])

    def decoded(self, generated: np.ndarray) -> list[str]:
        return [row[int(place)] for row, place in zip(self.evaluated["sentences"], generated[:, 0], strict=True)]

    def _metrics(self, prediction: Any) -> dict[str, float]:
        return {name: value for name, value in super()._metrics(prediction).items() if name != "gen_len"}
