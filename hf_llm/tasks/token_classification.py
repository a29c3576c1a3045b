"""Token classification: a tag for each word. Named entities, parts of speech, and whatever else marks words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from hf_llm.tasks.base import BERT_TOKENS, Fitting, Outcome, Splits, Task, encode_cached, tokenizer_key, unprefixed

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from hf_llm.metrics.chance import Chance


@dataclass
class TokenClassification(Task):
    """The tag of a word is that of its first sub-word; a sentence longer than the model takes is read in windows.

    Tags that mark spans (B-PER, I-PER, O) are measured as entities, others (NOUN, VERB) as classes.
    """

    auto_model: ClassVar[str] = "AutoModelForTokenClassification"
    architecture_endings: ClassVar[tuple[str, ...]] = ("ForTokenClassification",)
    columns: ClassVar[Mapping[str, str]] = {"words": "words", "tags": "tags"}
    sample_by: ClassVar[str] = "line"
    special_tokens: ClassVar[Mapping[str, str]] = BERT_TOKENS
    has_classes: ClassVar[bool] = True
    target: ClassVar[str | None] = "tags"

    chance: ClassVar[Mapping[str, str]] = {
        "loss": "the tag frequencies",
        "accuracy": "the most frequent tag",
        "mcc": "one tag for every word",  # of tags that mark no entities
        "f1": "no entity",  # of tags that do
    }
    principal: ClassVar[tuple[str, ...]] = ("f1", "accuracy")

    max_length: int = 512  # tokens; a longer sentence is read in windows that overlap
    baseline: bool = False  # also report each word's most frequent tag, or of entities the names seen in training

    def longest_input(self) -> int:
        return self.max_length

    def metric_names(self, labels: list[str] | None) -> list[str]:
        tags = labels or ["O"]
        return ["loss", *self.measured([tags], [tags], tags)]

    def measured(
        self, predicted: Sequence[Sequence[str]], reference: Sequence[Sequence[str]], labels: list[str]
    ) -> dict[str, float]:
        """The metrics of tags of sentences."""
        from hf_llm.metrics.entities import entity_report, mark_entities

        if mark_entities(labels):
            return entity_report(predicted, reference)
        from hf_llm.metrics import classification_report

        ids = {label: index for index, label in enumerate(labels)}
        ours, theirs = ([ids[tag] for tags in sentences for tag in tags] for sentences in (predicted, reference))
        return classification_report(ours, theirs, labels)

    def baseline_metrics(self, raw: Mapping[str, Dataset], split: str) -> dict[str, dict[str, Any]]:
        """Those of each word's most frequent tag; of entities also those of the names seen in training."""
        if not self.baseline:
            return {}
        from hf_llm.metrics.entities import mark_entities
        from hf_llm.tasks.tag_baselines import most_frequent_tags, seen_names

        labels = self.labels(raw) or []
        train = list(zip(raw["train"]["words"], _named(raw["train"]["tags"], labels), strict=True))
        reference = _named(raw[split]["tags"], labels)
        found = {"most frequent tags": most_frequent_tags(train, raw[split]["words"])}
        if mark_entities(labels):
            found = {"names seen in training": seen_names(train, raw[split]["words"])}
            labels = sorted({*labels, *(tag for tags in found["names seen in training"] for tag in tags)})
        return {name: self.measured(predicted, reference, labels) for name, predicted in found.items()}

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Each sentence as one or more windows: `input_ids`, and of the words that are read off there their numbers
        (`words`), their first sub-words (`first`) and tags (`labels`); `row` is the sentence.

        Splits other than train come sorted by length, which saves padding.
        """
        import numpy as np

        from hf_llm.tasks.words import WordEncoder

        encoder = WordEncoder(tokenizer, self.max_length)
        key = ["token_classification", *tokenizer_key(tokenizer), self.max_length]
        splits: Splits = {}
        for name, rows in raw.items():
            settings = {"batched": True, "with_indices": True, "remove_columns": rows.column_names}
            tokenize = partial(_windows, encoder=encoder)
            encoded = encode_cached(rows, tokenize, key, **settings, desc=f"tokenising {name}")
            longest_first = np.argsort(-np.asarray(encoded["length"]), kind="stable")
            splits[name] = encoded if name == "train" else encoded.select(longest_first)
        return splits

    def fitting(self, model: Any, args: TrainingArguments, splits: Splits, tokenizer: Any) -> Fitting:
        from hf_llm.tasks.token_trainer import TokenTrainer, WindowCollator

        config: Any = model.config
        labels = [config.id2label[index] for index in range(config.num_labels)]

        def measure(predicted: list[np.ndarray], reference: list[np.ndarray]) -> dict[str, float]:
            return self.measured(_named(predicted, labels), _named(reference, labels), labels)

        return TokenTrainer, {"measure": measure, "data_collator": WindowCollator(tokenizer)}

    def outcome(self, trainer: Any, raw: Dataset, encoded: Any, split: str = "test") -> Outcome:
        """Metrics, for classes with `confusion_matrix` (rows true, columns predicted, in id order)."""
        from hf_llm.metrics import classification_report
        from hf_llm.metrics.entities import mark_entities

        found, figures = trainer.tags(encoded, split)
        labels = trainer.labels
        metrics = unprefixed(figures, split) if "tags" in raw.column_names else {}
        if metrics and not mark_entities(labels):
            theirs = [tag for tags in raw["tags"] for tag in tags]
            ours = [int(tag) for tags in found for tag in tags]
            metrics |= classification_report(ours, theirs, labels, metrics=["confusion_matrix"])
        return Outcome(metrics, _predictions(raw, found, labels))

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """By sentence: log loss and Matthews' correlation of tags; of entities their F1, for tags that are nearly all
        O are soon foretold, and no entity found."""
        import numpy as np

        from hf_llm.metrics.chance import Chance, Comparison, agreement, class_losses, majority_share, span_comparison
        from hf_llm.metrics.entities import mark_entities, spans
        from hf_llm.tasks.token_trainer import in_order

        (losses, classes), (labels, words, rows) = trainer.kept
        found, true = in_order(classes, words, rows), in_order(labels, words, rows)
        ours, theirs = np.concatenate(found), np.concatenate(true)
        sizes = np.array([len(tags) for tags in true], dtype=float)
        knowing_nothing = class_losses(theirs)
        names = trainer.labels
        scores = {"loss": float(knowing_nothing.mean()), "accuracy": majority_share(theirs)}
        same = names[ours[0]] if (ours == ours[0]).all() else None
        if mark_entities(names):
            scores["f1"] = 0.0
            guessed, wanted = ([set(spans(tags)) for tags in _named(side, names)] for side in (found, true))
            if not any(wanted):
                return Chance(scores, untold="no word is of an entity")
            compared = span_comparison(guessed, wanted, lambda span: (span.type, span.stop - span.start), len(theirs))
            return Chance(scores, [compared], same)
        scores["mcc"] = 0.0
        if scores["accuracy"] == 1:
            return Chance(scores, untold=f"every word has the tag {names[theirs[0]]}")

        def of_sentence(values: np.ndarray) -> np.ndarray:
            return np.bincount(np.repeat(np.arange(len(sizes)), sizes.astype(int)), values)

        _, sentence = np.unique(rows, return_inverse=True)
        own, chance = np.bincount(np.ravel(sentence), np.ravel(losses)), of_sentence(knowing_nothing)
        together = of_sentence(agreement(ours, theirs))
        loss, mcc = float(own.sum() / sizes.sum()), float(together.sum() / sizes.sum())
        compared_by = [
            Comparison("loss", loss, scores["loss"], chance - own, sizes),
            Comparison("mcc", mcc, 0.0, together, sizes),
        ]
        return Chance(scores, compared_by, same)

    def chance_loss(self, train: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
        return tag_entropy(train)


def tag_entropy(train: Dataset) -> float:
    """Of the words that an encoded split is trained on."""
    from hf_llm.metrics.chance import label_entropy
    from hf_llm.tasks.packing import EndToEnd

    column = EndToEnd(train, "labels")
    tags = column.cut(0, len(column))
    return label_entropy(tags[tags >= 0])


def _named(ids: Any, labels: list[str]) -> list[list[str]]:
    return [[labels[tag] for tag in tags] for tags in ids]


def _predictions(raw: Dataset, found: list[np.ndarray], labels: list[str]) -> Iterator[dict[str, Any]]:
    """A row per sentence: its words, the tag of each, and its own tags where it has them."""
    for row, tags in zip(raw, found, strict=True):
        own = {"reference": [labels[tag] for tag in row["tags"]]} if "tags" in row else {}
        yield {"words": row["words"], "tags": [labels[tag] for tag in tags], **own}


def _windows(batch: dict[str, list[Any]], rows: list[int], encoder: Any) -> dict[str, list[Any]]:
    found = encoder(batch["words"])
    columns: dict[str, list[Any]] = {"input_ids": [], "words": [], "first": [], "row": [], "length": []}
    if "tags" in batch:
        columns["labels"] = []
    for index, windows in enumerate(found):
        for window in windows:
            columns["input_ids"].append(window.input_ids)
            columns["words"].append(window.words)
            columns["first"].append(window.first)
            columns["row"].append(rows[index])
            columns["length"].append(len(window.input_ids))
            if "tags" in batch:
                columns["labels"].append([batch["tags"][index][word] for word in window.words])
    return {**columns, "full_length": columns["length"]}
