"""What every task gives: its columns, how a split is encoded, the Trainer that fits it, and what comes of a split."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_llm.config import InputError, ModelConfig, nearest

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

    from hf_llm.metrics.chance import Chance

BERT_TOKENS = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
LOWER_IS_BETTER = ("perplexity", "word_perplexity", "bits_per_byte")
Fitting = tuple[type, dict[str, Any]]
Splits = dict[str, Any]  # split name -> an encoded dataset, as the task's Trainer takes it


@dataclass
class Task:
    """A task's options are its dataclass fields; `check` reads them from the source, and the task's YAML sets them."""

    auto_model: ClassVar[str]  # the transformers class that its models load with
    architecture_endings: ClassVar[tuple[str, ...]]  # how the class names of such models end
    columns: ClassVar[Mapping[str, str]]  # canonical column -> text, label, or either with "?" where optional
    sample_by: ClassVar[str]  # what a text file holds one of per line, paragraph or document
    special_tokens: ClassVar[Mapping[str, str]]  # what a tokenizer trained for the task must have
    chance: ClassVar[Mapping[str, str]]  # metric -> what it is compared with: a rule that knows nothing of the input
    principal: ClassVar[tuple[str, ...]]  # higher is better; by the first that is reported a baseline is compared
    target: ClassVar[str | None] = None  # the canonical column that is to be predicted, where there is one
    has_classes: ClassVar[bool] = False  # whether it holds classes
    predicts: ClassVar[bool] = True  # whether `predict` has a row to write for each input row
    unit: ClassVar[str] = "rows"  # what batches are made of
    length_option: ClassVar[str] = "max_length"  # what cuts long rows

    def arguments(self, trainer: dict[str, Any], output_dir: str | Path) -> TrainingArguments:
        """transformers' own TrainingArguments; its complaint about a value becomes an InputError."""
        import torch

        from hf_llm.tasks.arguments import training_arguments

        defaults: dict[str, Any] = {
            "output_dir": str(output_dir),
            "dataloader_pin_memory": torch.cuda.is_available(),
            "ddp_find_unused_parameters": False,  # a search through the graph at each step; heads use all they have
        }
        if self.unit == "rows":
            defaults["train_sampling_strategy"] = "group_by_length"
        best = str(trainer.get("metric_for_best_model") or "").removeprefix("eval_")
        if best in LOWER_IS_BETTER:  # transformers knows it of names that end in "loss"
            defaults["greater_is_better"] = False
        # collators choose the columns; what is published is a finished run (publishing.py), no checkpoint of Trainer's
        return training_arguments({**defaults, **trainer, "remove_unused_columns": False, "push_to_hub": False})

    def check_best_metric(self, args: TrainingArguments, labels: list[str] | None) -> None:
        """Refuse a `metric_for_best_model` that no evaluation will report, before any time is spent."""
        wanted = (args.metric_for_best_model or "loss").removeprefix("eval_")
        if wanted != "loss" and wanted not in (known := self.metric_names(labels)):
            hint = f"; did you mean {near}?" if (near := nearest(wanted, known)) else ""
            raise InputError(f"trainer.metric_for_best_model={wanted}: not one of {', '.join(known)}{hint}")

    def choose_model(self, model: ModelConfig) -> None:
        """Look at the architecture, where the task is done in another way by models of another kind.

        Raises:
            InputError: the architecture has no form for the task.
        """

    def input_columns(self) -> dict[str, str]:
        """The columns that `predict` reads, as in `columns`."""
        return {name: kind for name, kind in self.columns.items() if name != self.target}

    def metric_names(self, labels: list[str] | None) -> list[str]:
        """What an evaluation reports."""
        raise NotImplementedError

    def baseline_metrics(self, raw: Mapping[str, Dataset], split: str) -> dict[str, dict[str, Any]]:
        """Something simple's name -> its metrics on a split, to report beside the model's; {} for none."""
        return {}

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """What the rules of `chance` score on a split, and row by row how much better the model is.

        Args:
            trainer: has kept what its evaluation of `encoded` gave of each row (`ExactTrainer.kept`).
            outcome: of the split.
            train: the encoded train split.
        """
        raise NotImplementedError

    def chance_loss(self, train: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
        """The loss of the encoded train split for a model that knows nothing of its input; None where that is not
        known, as of a stream."""
        raise NotImplementedError

    def labels(self, raw: Mapping[str, Dataset]) -> list[str] | None:
        """The names of the classes, in id order; None where the task has none."""
        features = next(iter(raw.values())).features
        if not self.has_classes or not features or self.target not in features:
            return None
        feature = features[self.target]
        return list(getattr(feature, "feature", feature).names)  # of a list of labels, those of its items

    def longest_input(self) -> int | None:
        """The most tokens that the model will be given at once."""
        raise NotImplementedError

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Canonical columns -> what the model eats, for each split. Cached by content: the second time is free."""
        raise NotImplementedError

    def settle(self, trainer: Any, raw: Mapping[str, Dataset], splits: Splits) -> None:
        """Called once a model is trained and before it is saved: what is to be chosen on the validation split."""

    def trainer(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        splits: Splits,
        tokenizer: PreTrainedTokenizerBase,
        **options: Any,
    ) -> Trainer:
        """The Trainer for the task; `options` go to it (callbacks, …)."""
        trainer_class, own = self.fitting(model, args, splits, tokenizer)
        return trainer_class(
            model,
            args,
            train_dataset=splits.get("train"),
            eval_dataset=splits.get("validation"),
            processing_class=tokenizer,
            **own,
            **options,
        )

    def fitting(self, model: Any, args: TrainingArguments, splits: Splits, tokenizer: Any) -> Fitting:
        """The class of the task's Trainer, and what it takes beside rows and tokenizer: the collator, …"""
        raise NotImplementedError

    def outcome(self, trainer: Any, raw: Dataset, encoded: Any, split: str = "test") -> Outcome:
        """Measure and predict a split with a trained model. `encoded` is `raw`, encoded.

        Trainer's `predict` does it, never its `evaluate`: that would log the split as one more validation while
        training, to the loss curve, the trackers, the notebook's table and the callbacks.

        Args:
            split: the name under which trackers get the metrics.

        Rows may lack what they are to be measured by: there are predictions then, and no metrics.
        """
        return Outcome(unprefixed(trainer.predict(encoded, metric_key_prefix=split).metrics, split))

    def predict(self, trainer: Any, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterable[dict[str, Any]]:
        """A row for each of `rows`, which have nothing to be measured by. Nothing of them is kept on the disk."""
        with _nothing_cached():
            encoded = self.encode({"predicted": rows}, tokenizer)["predicted"]
            return list(self.outcome(trainer, rows, encoded).predictions or ())

    def picture(self, prediction: dict[str, Any]) -> Any:
        """What a person at a terminal is shown of a prediction, as rich prints it; None for its JSON."""
        return None


@dataclass
class Outcome:
    """What came of a split."""

    metrics: dict[str, Any]
    # one for each raw row, in order, made when asked for and by one process; None where a split has none to keep
    predictions: Iterable[dict[str, Any]] | None = None
    texts: list[str] | None = None  # what the model wrote or answered of each raw row, where it does


def unprefixed(metrics: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """`test_loss` -> `loss`; the speed of the evaluation is no metric of the model."""
    speed = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
    plain = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items() if name != "epoch"}
    return {name: value for name, value in plain.items() if name not in speed}


def encode_cached(rows: Dataset, function: Callable[..., Any], key: list[Any], **settings: Any) -> Dataset:
    """`rows.map(function, …)`, found again on disk where the same rows were encoded with the same `key` before.

    The key is content: `datasets` would make one from the function's pickle, and that of a tokenizer changes with use.
    Where its caching is disabled, nothing is written.
    """
    from importlib.metadata import version

    import datasets

    from hf_llm.data import fingerprint

    if not datasets.is_caching_enabled():
        return rows.map(function, keep_in_memory=True, load_from_cache_file=False, **settings)

    versions = [version(name) for name in ("hf_llm", "transformers", "tokenizers")]
    text = json.dumps([fingerprint(rows), key, versions])
    name = hashlib.sha256(text.encode()).hexdigest()
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_llm"
    folder.mkdir(parents=True, exist_ok=True)
    return rows.map(function, cache_file_name=str(folder / f"{name}.arrow"), new_fingerprint=name[:32], **settings)


@contextlib.contextmanager
def _nothing_cached() -> Iterator[None]:
    import datasets

    enabled = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_caching()


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """What of a tokenizer decides its output: its JSON, less what the last call left in it, and its wrapper's own."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [backend.to_str(), tokenizer.model_input_names, tokenizer.truncation_side]


def texts_of(raw: Mapping[str, Dataset]) -> Callable[[], Iterator[list[str]]] | None:
    """The train split's texts, batch by batch, each time it is called; None where there is no train split."""
    if "train" not in raw:
        return None

    def batches() -> Iterator[list[str]]:
        for batch in raw["train"].iter(batch_size=1000):
            for column in ("text", "text_pair", "source", "question", "context"):
                if column in batch:
                    yield batch[column]
            if "words" in batch:
                yield [" ".join(words) for words in batch["words"]]
            if "target" in batch:
                yield [text for texts in batch["target"] for text in texts]

    return batches


def held_out_in_memory(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The splits; streams that are not trained on are read in, for they are gone through many times."""
    from datasets import Dataset, IterableDataset

    return {
        name: Dataset.from_list(list(rows), features=rows.features)
        if isinstance(rows, IterableDataset) and name != "train"
        else rows
        for name, rows in raw.items()
    }
