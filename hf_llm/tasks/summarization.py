"""Summarization: the gist of a text. T5, BART, GPT-2, RNN, FNN and every model that writes text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_llm.tasks.seq2seq import Seq2SeqTask

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from hf_llm.tasks.seq2seq_trainer import SequenceToSequenceTrainer


@dataclass
class Summarization(Seq2SeqTask):
    """ROUGE. Beside it, what the first sentences of the source would be worth."""

    max_source_length: int = 512
    metrics: list[str] = field(default_factory=lambda: ["rouge1", "rouge2", "rougeL", "rougeLsum"])
    baseline: int | None = None  # also report the source's first so many sentences
    extractive: bool = False  # a summary is the sentence of the source that the model finds likeliest as one

    def trainer_class(self) -> type[SequenceToSequenceTrainer]:
        if not self.extractive:
            return super().trainer_class()
        from hf_llm.tasks.extraction import ExtractiveTrainer

        return ExtractiveTrainer

    def with_candidates(self, encoded: Dataset, raw: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        if not self.extractive:
            return encoded
        from hf_llm.tasks.extraction import with_sentences

        return with_sentences(encoded, raw, tokenizer, self)

    def baseline_metrics(self, raw: Mapping[str, Dataset], split: str) -> dict[str, dict[str, Any]]:
        if self.baseline is None:
            return {}
        from hf_llm.tasks.sentences import first_sentences

        texts = [first_sentences(text, self.baseline) for text in raw[split]["source"]]
        return {f"first {self.baseline}": self.report(texts, raw[split]["target"])}
