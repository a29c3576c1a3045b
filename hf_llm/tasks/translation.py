"""Translation: a text in another language. T5, BART, Marian, GPT-2, RNN, FNN and every model that writes text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_llm.tasks.seq2seq import Seq2SeqTask

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class Translation(Seq2SeqTask):
    """BLEU and chrF. Beside them, what the translation of the most similar training source would be worth."""

    architecture_endings: ClassVar[tuple[str, ...]] = ("ForConditionalGeneration", "MTModel")

    principal: ClassVar[tuple[str, ...]] = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "rougeLsum")

    baseline: Literal["word", "char"] | None = None  # also report the nearest training source's target, by TF-IDF

    def baseline_metrics(self, raw: Mapping[str, Dataset], split: str) -> dict[str, dict[str, Any]]:
        if self.baseline is None:
            return {}
        from hf_llm.tasks.baseline import nearest_rows

        train = raw["train"]
        rows = nearest_rows(train["source"], raw[split]["source"], self.baseline)
        targets = train.select(rows)["target"]
        return {"nearest": self.report([texts[0] for texts in targets], raw[split]["target"])}
