"""Extractive question answering: find the answer to a question in a text. Every `AutoModelForQuestionAnswering`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_llm.config import InputError
from hf_llm.tasks.base import BERT_TOKENS, Fitting, Outcome, Splits, Task, encode_cached, tokenizer_key, unprefixed

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

    from hf_llm.metrics.chance import Chance

SCORED = 1000  # questions at most that are compared with what a rule would answer


@dataclass
class QuestionAnswering(Task):
    """A context longer than the model takes is read in windows that overlap; the best answer of all of them counts.

    Where some questions have no answer (SQuAD 2.0), that is chosen if it is more likely than the best answer by more
    than a threshold, which is settled on the validation split and kept in the model's config.json.
    """

    auto_model: ClassVar[str] = "AutoModelForQuestionAnswering"
    architecture_endings: ClassVar[tuple[str, ...]] = ("ForQuestionAnswering",)
    columns: ClassVar[Mapping[str, str]] = {
        "id": "id?", "question": "text", "context": "text", "answers": "answers",
    }  # fmt: skip
    sample_by: ClassVar[str] = "line"
    special_tokens: ClassVar[Mapping[str, str]] = BERT_TOKENS
    target: ClassVar[str | None] = "answers"

    chance: ClassVar[Mapping[str, str]] = {
        "loss": "every place alike, and how often train has no answer",
        "exact_match": "the best of no answer, the first sentence and the one most like the question",
        "f1": "the best of no answer, the first sentence and the one most like the question",
    }
    principal: ClassVar[tuple[str, ...]] = ("f1",)

    max_length: int = 384  # tokens of a window, question included
    doc_stride: int = 128  # tokens that a window has in common with the one before
    max_query_length: int = 64  # tokens of the question that are kept
    max_answer_length: int = 30  # tokens
    n_best_size: int = 20  # answers that `predict` gives, and places at which each window may begin and end one
    null_score_diff_threshold: float | None = None  # of no answer; null: the best for F1 on the validation split
    language: Literal["en", "zh"] = "en"  # zh: answers are compared by character, as CMRC 2018 does
    baseline: bool = False  # also report what the first sentence scores, and the one most like the question

    def longest_input(self) -> int:
        return self.max_length

    def arguments(self, trainer: dict[str, Any], output_dir: Any) -> TrainingArguments:
        if self.doc_stride + self.max_query_length + 8 > self.max_length:
            raise InputError(
                f"task.max_length={self.max_length}: too short for task.max_query_length={self.max_query_length} and "
                f"task.doc_stride={self.doc_stride}: give more than their sum and 8 special tokens"
            )
        self.metric_names(None)  # a package that it needs is said now
        return super().arguments(trainer, output_dir)

    def metric_names(self, labels: list[str] | None) -> list[str]:
        from hf_llm.metrics.question_answering import question_answering_report

        return ["loss", *question_answering_report(["a", "a"], [["a"], []], self.language, no_answer_scores=[0, 0])]

    def labels(self, raw: Mapping[str, Dataset]) -> list[str]:
        """What the two outputs of each token are for: a checkpoint that was a classifier may have another number."""
        return ["start", "end"]

    def baseline_metrics(self, raw: Mapping[str, Dataset], split: str) -> dict[str, dict[str, Any]]:
        """Those of the context's first sentence, and of the one that has most of the question's words."""
        if not self.baseline:
            return {}
        from hf_llm.metrics.question_answering import question_answering_report

        rows = raw[split]
        references = [answers["text"] for answers in rows["answers"]]
        return {
            name: question_answering_report(answers, references, self.language)
            for name, answers in self._by_rule(rows).items()
        }

    def _by_rule(self, rows: Dataset) -> dict[str, list[str]]:
        """Rule -> the answer to each question."""
        from hf_llm.tasks.sentences import sentences

        cut = [sentences(context) or [context] for context in rows["context"]]
        pairs = zip(cut, rows["question"], strict=True)
        return {
            "first sentence": [first.strip() for first, *_ in cut],
            "most like the question": [
                _most_like(these, question, self.language).strip() for these, question in pairs
            ],
        }

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Each split as `QuestionWindows`."""
        from hf_llm.tasks.question_windows import QuestionWindows, windows

        key = [
            "question_answering",
            *tokenizer_key(tokenizer),
            self.max_length,
            self.doc_stride,
            self.max_query_length,
        ]
        splits: Splits = {}
        for name, rows in raw.items():
            settings = {"batched": True, "with_indices": True, "remove_columns": rows.column_names, "batch_size": 200}
            cut = partial(
                windows,
                tokenizer=tokenizer,
                max_length=self.max_length,
                stride=self.doc_stride,
                max_query_length=self.max_query_length,
            )
            encoded = encode_cached(rows, cut, key, **settings, desc=f"tokenising {name}")
            splits[name] = QuestionWindows(encoded, rows, longest_first=name != "train")
        return splits

    def fitting(self, model: Any, args: TrainingArguments, splits: Splits, tokenizer: Any) -> Fitting:
        from hf_llm.tasks.question_trainer import QuestionTrainer, collator

        train = splits.get("train")
        if train is not None and self.threshold(model) is None and not all(a["text"] for a in train.raw["answers"]):
            model.config.null_score_diff_threshold = 0.0  # while it is trained; `settle` finds a better one
        return QuestionTrainer, {"task": self, "data_collator": collator(tokenizer, model)}

    def settle(self, trainer: Any, raw: Mapping[str, Dataset], splits: Splits) -> None:
        """The threshold of no answer, in the model's config; none where every question has an answer."""
        from hf_llm.metrics.question_answering import amid

        config = trainer.model.config
        has_none = any(not answers["text"] for rows in raw.values() for answers in rows["answers"])
        config.null_score_diff_threshold = None
        if not has_none:
            return
        config.null_score_diff_threshold = self.null_score_diff_threshold or 0.0
        if self.null_score_diff_threshold is None and "validation" in splits:
            found, metrics = trainer.answers(splits["validation"], "validation")
            if (best := "validation_best_f1_thresh") in metrics:
                scores = [one.no_answer_score for one in found]
                config.null_score_diff_threshold = amid(metrics[best], scores)

    def outcome(self, trainer: Any, raw: Dataset, encoded: Any, split: str = "test") -> Outcome:
        found, metrics = trainer.answers(encoded, split)
        threshold = self.threshold(trainer.model)
        rows = (_prediction(row, answers, threshold) for row, answers in zip(raw, found, strict=True))
        return Outcome(unprefixed(metrics, split), rows, [answers.chosen(threshold).text for answers in found])

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """F1, question by question, on a sample."""
        import numpy as np

        from hf_llm.metrics.chance import Chance, Comparison
        from hf_llm.metrics.question_answering import answer_scores

        assert outcome.texts is not None
        places = np.sort(np.random.default_rng(0).permutation(len(raw))[:SCORED])
        rows = raw.select(places)
        references = [answers["text"] for answers in rows["answers"]]
        answers = {"model": [outcome.texts[place] for place in places], "no answer": [""] * len(rows)}
        scores = {
            name: 100 * np.array(list(map(partial(answer_scores, language=self.language), texts, references)))
            for name, texts in {**answers, **self._by_rule(rows)}.items()
        }  # (rows, 2) each: exact match and F1
        f1, chance = scores.pop("model")[:, 1], max(scores.values(), key=lambda each: float(each[:, 1].mean()))
        exact, best = (float(value) for value in chance.mean(axis=0))
        loss = places_entropy(encoded)
        return Chance(
            {"f1": best, "exact_match": exact, **({} if loss is None else {"loss": loss})},
            [Comparison("f1", float(f1.mean()), best, f1 - chance[:, 1], np.ones(len(rows)))],
            same="no answer" if not any(answers["model"]) and any(references) else None,
        )

    def chance_loss(self, train: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
        return places_entropy(train)

    def threshold(self, model: PreTrainedModel) -> float | None:
        """By how much no answer must be more likely than an answer; None where there is always one."""
        own = getattr(model.config, "null_score_diff_threshold", None)
        return own if self.null_score_diff_threshold is None else self.null_score_diff_threshold


def places_entropy(windows: Any) -> float | None:
    """The loss of the first and last token of the answers in an encoded split, for one that takes every token of a
    window for alike, and knows how many windows have no answer. None where no place is known."""
    import numpy as np

    labels = np.asarray(windows.encoded["labels"])[:, 0]
    lengths = windows.lengths[labels >= 0]
    none = labels[labels >= 0] == 0
    if not len(none):
        return None
    share = none.mean()
    losses = np.where(none, -np.log(max(share, 1e-9)), np.log(lengths - 1) - np.log(max(1 - share, 1e-9)))
    return float(losses.mean())


def _prediction(row: dict[str, Any], found: Any, threshold: float | None) -> dict[str, Any]:
    own = {"id": row["id"]} if "id" in row else {}
    given = {"reference": row["answers"]["text"]} if "answers" in row else {}
    best = found.chosen(threshold)
    answer = {"answer": best.text, "score": round(best.score, 6), "start": best.start, "end": best.end}
    no_answer = {} if threshold is None else {"no_answer_score": round(found.no_answer_score, 6)}
    n_best = [
        {"answer": one.text, "score": round(one.score, 6), "start": one.start, "end": one.end}
        for one in found.ranked(threshold)
    ]
    return {**own, "question": row["question"], **answer, **no_answer, "n_best": n_best, **given}


def _most_like(sentences: Sequence[str], question: str, language: str) -> str:
    """The first of the sentences that have most of the question's words, or in Chinese characters, in common."""

    def words(text: str) -> set[str]:
        return set(text) if language == "zh" else set(re.findall(r"\w+", text.lower()))

    asked = words(question)
    return max(sentences, key=lambda sentence: len(words(sentence) & asked))
