"""What every task gives: the columns it needs, how a split is encoded, the Trainer that fits it, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_llm.config import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

Splits = dict[str, Any]  # split name -> an encoded dataset, as the task's Trainer takes it


@dataclass
class Task:
    """A task's options are its dataclass fields; `check` reads them from the source, and the task's YAML sets them."""

    auto_model: ClassVar[str]  # the transformers class that its models load with
    architecture_endings: ClassVar[tuple[str, ...]]  # how the class names of such models end
    columns: ClassVar[Mapping[str, str]]  # canonical column -> text, label, or either with "?" where optional
    sample_by: ClassVar[str]  # what a text file holds one of per line, paragraph or document
    special_tokens: ClassVar[Mapping[str, str]]  # what a tokenizer trained for the task must have
    reports_labels: ClassVar[bool] = False  # whether there are classes, a confusion matrix and predictions

    def arguments(self, trainer: dict[str, Any], output_dir: str | Path) -> TrainingArguments:
        """transformers' own TrainingArguments; its complaint about a value becomes an InputError."""
        from transformers import TrainingArguments

        defaults = {"output_dir": str(output_dir), "remove_unused_columns": False}
        try:
            return TrainingArguments(**{**defaults, **trainer})
        except (ValueError, TypeError, ImportError) as error:
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error

    def longest_input(self) -> int | None:
        """The most tokens that the model will be given at once."""
        raise NotImplementedError

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Canonical columns -> what the model eats, for each split. Cached by content: the second time is free."""
        raise NotImplementedError

    def trainer(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        splits: Splits,
        tokenizer: PreTrainedTokenizerBase,
        **options: Any,
    ) -> Trainer:
        """The Trainer for the task; `options` go to it (callbacks, …)."""
        raise NotImplementedError


def texts_of(raw: Mapping[str, Dataset]) -> Callable[[], Iterator[list[str]]] | None:
    """The train split's texts, batch by batch, each time it is called; None where there is no train split."""
    if "train" not in raw:
        return None

    def batches() -> Iterator[list[str]]:
        for batch in raw["train"].iter(batch_size=1000):
            for column in ("text", "text_pair"):
                if column in batch:
                    yield batch[column]

    return batches


def labels_of(raw: Mapping[str, Dataset]) -> list[str] | None:
    """The names of the label column's classes, in id order; None where there is no such column."""
    features = next(iter(raw.values())).features
    return list(features["label"].names) if features and "label" in features else None
