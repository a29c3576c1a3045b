"""Summarization: the gist of a text. T5, BART, GPT-2, RNN, FNN and every model that writes text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hf_llm.metrics.text_generation import ROUGE
from hf_llm.tasks.seq2seq import Seq2SeqTask

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from hf_llm.metrics.chance import Chance
    from hf_llm.tasks.base import Outcome
    from hf_llm.tasks.seq2seq_trainer import SequenceToSequenceTrainer

SCORED = 300  # rows at most: rouge_score takes a millisecond for each


@dataclass
class Summarization(Seq2SeqTask):
    """ROUGE. Beside it, what the first sentences of the source would be worth."""

    chance: ClassVar[Mapping[str, str]] = {**Seq2SeqTask.chance, **dict.fromkeys(ROUGE, "the first sentence")}
    principal: ClassVar[tuple[str, ...]] = (*ROUGE, "bleu", "chrf")

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

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """The first ROUGE that is asked for, text by text, on a sample; without one, by the loss of the targets."""
        import numpy as np

        from hf_llm.metrics.chance import Comparison
        from hf_llm.metrics.text_generation import rouge_of_rows
        from hf_llm.tasks.sentences import first_sentences

        found = super().compare_with_chance(trainer, raw, encoded, outcome, train)
        metric = next((name for name in ROUGE if name in self.metrics), None)
        if metric is None or outcome.texts is None:
            return found
        rows = np.sort(np.random.default_rng(0).permutation(len(raw))[:SCORED])
        sample = raw.select(rows)
        written = [outcome.texts[row] for row in rows]
        first = [first_sentences(text, 1) for text in sample["source"]]
        ours, theirs = (
            100 * rouge_of_rows(texts, sample["target"], [metric], self.target_language, self.stemmer)[:, 0]
            for texts in (written, first)
        )
        found.scores[metric] = float(theirs.mean())
        found.comparisons = [
            Comparison(metric, float(ours.mean()), float(theirs.mean()), ours - theirs, np.ones(len(rows)))
        ]
        return found

    def baseline_metrics(self, raw: Mapping[str, Dataset], split: str) -> dict[str, dict[str, Any]]:
        if self.baseline is None:
            return {}
        from hf_llm.tasks.sentences import first_sentences

        texts = [first_sentences(text, self.baseline) for text in raw[split]["source"]]
        return {f"first {self.baseline}": self.report(texts, raw[split]["target"])}
