"""Text classification: one label per text, or per pair of texts. BERT, GPT-2, RNN, FNN and every
`AutoModelForSequenceClassification`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_llm.config import InputError
from hf_llm.tasks.base import BERT_TOKENS, Fitting, Outcome, Splits, Task, encode_cached, tokenizer_key, unprefixed

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from hf_llm.metrics.chance import Chance

logger = logging.getLogger(__name__)


@dataclass
class TextClassification(Task):
    """Texts are padded to the longest of their batch, and batches drawn from texts of like length."""

    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    architecture_endings: ClassVar[tuple[str, ...]] = ("ForSequenceClassification",)
    columns: ClassVar[Mapping[str, str]] = {"text": "text", "label": "label"}
    sample_by: ClassVar[str] = "line"
    special_tokens: ClassVar[Mapping[str, str]] = BERT_TOKENS
    has_classes: ClassVar[bool] = True
    target: ClassVar[str | None] = "label"

    chance: ClassVar[Mapping[str, str]] = {
        "loss": "the label frequencies",
        "accuracy": "the most frequent label",
        "mcc": "one label for every text",
    }
    principal: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "mcc")

    max_length: int = 512  # a longer text is cut, and the cuts are counted
    positive_label: str | None = None  # of two: the one whose precision, recall and F1 are the headline
    baseline: Literal["word", "char"] | None = None  # also report TF-IDF + logistic regression
    metrics: list[str] = field(default_factory=lambda: ["accuracy", "precision", "recall", "f1", "mcc"])

    def longest_input(self) -> int:
        return self.max_length

    def metric_names(self, labels: list[str] | None) -> list[str]:
        from hf_llm.metrics import classification_report

        return ["loss", *classification_report([0], [0], labels or [], self.positive_label, self.metrics)]

    def check_best_metric(self, args: TrainingArguments, labels: list[str] | None) -> None:
        if "perplexity" in self.metrics:
            raise InputError("task.metrics: perplexity is of a language model; a classifier has accuracy, f1, mcc, …")
        if self.positive_label is not None and self.positive_label not in (labels or []):
            raise InputError(f"task.positive_label={self.positive_label}: the labels are {', '.join(labels or [])}")
        if self.metrics != TextClassification().metrics:
            self.metric_names(labels)  # an unknown name is said now, not after an epoch
        super().check_best_metric(args, labels)

    def baseline_metrics(self, raw: Mapping[str, Dataset], split: str) -> dict[str, dict[str, Any]]:
        """Those of a TF-IDF model trained on the same rows; {} where `baseline` is null."""
        if self.baseline is None:
            return {}
        from hf_llm.metrics import classification_report
        from hf_llm.tasks.baseline import tfidf_predictions

        def texts(rows: Dataset) -> list[str]:
            pairs = rows["text_pair"] if "text_pair" in rows.column_names else [""] * len(rows)
            return [f"{text} {pair}".strip() for text, pair in zip(rows["text"], pairs, strict=True)]

        train = raw["train"]
        predicted = tfidf_predictions(texts(train), train["label"], texts(raw[split]), self.baseline)
        names = train.features["label"].names
        report = classification_report(predicted, raw[split]["label"], names, self.positive_label, self.metrics)
        return {"TF-IDF": report}

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Adds `input_ids` (and what else the tokenizer gives), `labels`, and `length` in tokens; `full_length` is
        what it would be if long texts were not cut.

        Splits other than train come sorted by length, which saves padding; `row` is the place in the raw split.
        """
        import numpy as np
        from datasets import IterableDataset

        tokenize = partial(_tokenize, tokenizer=tokenizer, max_length=self.max_length)
        key = ["text_classification", "full_length", *tokenizer_key(tokenizer), self.max_length]
        splits: Splits = {}
        for name, rows in raw.items():
            given = list(rows.features or ())
            if isinstance(rows, IterableDataset):
                splits[name] = rows.map(tokenize, batched=True, with_indices=True, remove_columns=given)
                continue
            settings = {"batched": True, "with_indices": True, "remove_columns": given}
            encoded = encode_cached(rows, tokenize, key, **settings, desc=f"tokenising {name}")
            lengths = encoded.with_format("numpy", columns=["length", "full_length"])[:]  # not a row at a time
            cut = int(np.sum(lengths["full_length"] > lengths["length"]))
            if cut:
                logger.info("%s: %d of %d texts were cut to task.max_length=%d", name, cut, len(rows), self.max_length)
            longest_first = np.argsort(-lengths["length"], kind="stable")
            splits[name] = encoded if name == "train" else encoded.select(longest_first)
        return splits

    def fitting(self, model: Any, args: TrainingArguments, splits: Splits, tokenizer: Any) -> Fitting:
        from hf_llm.tasks.classification_trainer import ClassificationTrainer, Collator

        return ClassificationTrainer, {"task": self, "data_collator": Collator(tokenizer, model)}

    def outcome(self, trainer: Any, raw: Dataset, encoded: Any, split: str = "test") -> Outcome:
        """Metrics with `confusion_matrix`: rows are the true classes, columns the predicted, both in id order."""
        from hf_llm.metrics import classification_report

        classes, probabilities, figures = trainer.scores(encoded, split)
        metrics = unprefixed(figures, split) if "label" in raw.column_names else {}
        if metrics:
            metrics |= classification_report(classes, raw["label"], trainer.labels, metrics=["confusion_matrix"])
        return Outcome(metrics, _predictions(raw, classes, probabilities, trainer.labels))

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """Log loss and Matthews' correlation: a class that is rare is in both, where accuracy hardly sees it."""
        import numpy as np

        from hf_llm.metrics.chance import Chance, Comparison, agreement, class_losses, majority_share

        (losses, classes, *_), labels = trainer.kept
        knowing_nothing, together, ones = class_losses(labels), agreement(classes, labels), np.ones(len(labels))
        scores = {"loss": float(knowing_nothing.mean()), "accuracy": majority_share(labels), "mcc": 0.0}
        if scores["accuracy"] == 1:
            return Chance(scores, untold=f"every row has the label {trainer.labels[labels[0]]}")
        loss = float(np.mean(losses, dtype=np.float64))
        return Chance(
            scores,
            [
                Comparison("loss", loss, scores["loss"], knowing_nothing - losses, ones),
                Comparison("mcc", float(together.mean()), 0.0, together, ones),
            ],
            same=trainer.labels[classes[0]] if (classes == classes[0]).all() else None,
        )

    def chance_loss(self, train: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
        from datasets import Dataset

        from hf_llm.metrics.chance import label_entropy

        if not isinstance(train, Dataset):
            return None
        return label_entropy(train.with_format("numpy", columns=["labels"])[:]["labels"])


def _predictions(raw: Dataset, classes: Any, probabilities: Any, labels: list[str]) -> Iterator[dict[str, Any]]:
    """A row per text: the text, its own label where it has one, the predicted label, and the score of each class."""
    for index, row in enumerate(raw):
        own = {"reference": labels[row.pop("label")]} if "label" in row else {}
        scores = {name: round(float(score), 6) for name, score in zip(labels, probabilities[index], strict=True)}
        best = labels[int(classes[index])]
        yield {**row, **own, "label": best, "score": scores[best], "scores": scores}


def _tokenize(
    batch: dict[str, list[Any]], rows: list[int], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, list[Any]]:
    encoded = tokenizer(batch["text"], batch.get("text_pair"), truncation=True, max_length=max_length, verbose=False)
    columns = dict(encoded)
    columns["length"] = [len(ids) for ids in encoded["input_ids"]]
    columns["full_length"] = list(columns["length"])
    cut = [index for index, encoding in enumerate(encoded.encodings) if encoding.overflowing]
    if cut:  # mostly few; what is left over of a pair comes in combinations, which do not add up
        texts = [batch["text"][index] for index in cut]
        pairs = [batch["text_pair"][index] for index in cut] if "text_pair" in batch else None
        for index, ids in zip(cut, tokenizer(texts, pairs, verbose=False)["input_ids"], strict=True):
            columns["full_length"][index] = len(ids)
    columns["row"] = rows
    if "label" in batch:
        columns["labels"] = batch["label"]
    return columns
