"""What translation and summarization share: a source, a target, and a model that writes the one for the other.

An encoder–decoder (every `AutoModelForSeq2SeqLM`) reads the source and writes the target. A causal language model
(gpt2, rnn, fnn, every other `AutoModelForCausalLM`) reads on: source, separator, target, end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_llm.config import InputError, ModelConfig
from hf_llm.tasks.base import Fitting, Outcome, Splits, Task, encode_cached, tokenizer_key, unprefixed

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from hf_llm.metrics.chance import Chance
    from hf_llm.tasks.seq2seq_trainer import SequenceToSequenceTrainer

logger = logging.getLogger(__name__)

ENDS = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


@dataclass
class Seq2SeqTask(Task):
    """The loss is of the target's tokens alone, each predicted from the source and the target's own before it."""

    architecture_endings: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[Mapping[str, str]] = {"source": "text", "target": "texts"}
    sample_by: ClassVar[str] = "line"
    length_option: ClassVar[str] = "max_source_length or max_target_length"

    chance: ClassVar[Mapping[str, str]] = {"loss": "the token frequencies of train's targets"}

    max_source_length: int = 256  # tokens; a longer source is cut, and the cuts are counted
    max_target_length: int = 128  # tokens; likewise, and so many are generated unless `generation` says
    source_prefix: str = ""  # before each source, as T5 wants it: "translate English to German: "
    train_references: Literal["first", "each"] = "first"  # of several targets of a training row: each is a row then
    target_language: str | None = None  # zh, de, …: how BLEU and ROUGE cut texts; null: by spaces and punctuation
    bleu_tokenize: Literal["13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab"] | None = None  # null: by it
    stemmer: bool = True  # ROUGE compares English words by their stems
    metrics: list[str] = field(default_factory=lambda: ["bleu", "chrf"])
    generation: dict[str, Any] = field(default_factory=dict)  # GenerationConfig, field by field; saved with the model
    predict_with_generate: bool = False  # also while training, where otherwise only the loss is measured

    def __post_init__(self) -> None:
        self.decoder_only = False

    @property
    def auto_model(self) -> str:  # type: ignore[override]
        return "AutoModelForCausalLM" if self.decoder_only else "AutoModelForSeq2SeqLM"

    @property
    def special_tokens(self) -> Mapping[str, str]:  # type: ignore[override]
        """A trained tokenizer ends a text with its `sep_token`: what says that the target is to come."""
        return {**ENDS, "sep_token": "<sep>" if self.decoder_only else ENDS["eos_token"]}

    def choose_model(self, model: ModelConfig) -> None:
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        from hf_llm import models  # noqa: F401  registers rnn and fnn
        from hf_llm.models.checkpoint import load_config
        from hf_llm.models.scratch import model_type_of

        if model.pretrained is not None:
            kind = type(load_config(model.pretrained, model.revision, {}, None))
        elif model.arch is not None and model_type_of(model.arch) in CONFIG_MAPPING:
            kind = CONFIG_MAPPING[model_type_of(model.arch)]
        else:
            return  # models.build says so
        writes = kind in AutoModelForSeq2SeqLM._model_mapping
        if not writes and kind not in AutoModelForCausalLM._model_mapping:
            given = f"arch={model.arch}" if model.pretrained is None else f"pretrained={model.pretrained}"
            raise InputError(
                f"model.{given}: a {kind.model_type} writes no text; take an encoder–decoder (model=t5, bart, marian) "
                "or a causal language model (model=gpt2, rnn, fnn)"
            )
        self.decoder_only = not writes

    def longest_input(self) -> int:
        if self.decoder_only:
            return self.max_source_length + self.max_target_length
        return max(self.max_source_length, self.max_target_length)

    def input_columns(self) -> dict[str, str]:
        return {"source": "text", "target": "texts?"}

    def arguments(self, trainer: dict[str, Any], output_dir: Any) -> TrainingArguments:
        args = super().arguments(trainer, output_dir)
        if str(args.metric_for_best_model or "loss").removeprefix("eval_") not in ("loss", "perplexity"):
            self.predict_with_generate = True
        return args

    def metric_names(self, labels: list[str] | None) -> list[str]:
        from hf_llm.metrics import text_generation

        text_generation.available(self.metrics)
        return ["loss", "perplexity", *self.metrics, "gen_len"]

    def check_best_metric(self, args: TrainingArguments, labels: list[str] | None) -> None:
        self.metric_names(labels)  # an unknown one, or one whose package is missing, is said now
        super().check_best_metric(args, labels)

    def report(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """The metrics of texts, with the signatures."""
        from hf_llm.metrics.text_generation import generation_report

        return generation_report(
            predictions,
            references,
            self.metrics,
            language=self.target_language,
            tokenize=self.bleu_tokenize,
            stemmer=self.stemmer,
        )

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Each row's `input_ids` (the source), `labels` (the target, where there is one) and all `references`.

        `length` is that of source and target together, `full_length` what it would be if nothing were cut. Splits
        other than train come sorted by length; `row` is the place in the raw split.
        """
        import numpy as np

        splits: Splits = {}
        for name, rows in raw.items():
            each = name == "train" and self.train_references == "each"
            tokenize = partial(_tokenize, tokenizer=tokenizer, task=self, each=each)
            ends = [tokenizer.eos_token, tokenizer.sep_token, self.decoder_only, each]
            lengths = [self.max_source_length, self.max_target_length]
            key = ["seq2seq", *tokenizer_key(tokenizer), *ends, *lengths, self.source_prefix]
            settings = {"batched": True, "with_indices": True, "remove_columns": rows.column_names}
            encoded = encode_cached(rows, tokenize, key, **settings, desc=f"tokenising {name}")
            found = encoded.with_format("numpy", columns=["length", "cut_source", "cut_target"])[:]
            for which in ("source", "target"):
                if cut := int(np.sum(found[f"cut_{which}"])):
                    most = getattr(self, f"max_{which}_length")
                    logger.info("%s: %d of %d %ss were cut to task.max_%s_length=%d",
                                name, cut, len(encoded), which, which, most)  # fmt: skip
            if name != "train":
                encoded = self.with_candidates(encoded, rows, tokenizer)
            longest_first = np.argsort(-found["length"], kind="stable")
            splits[name] = encoded if name == "train" else encoded.select(longest_first)
        return splits

    def with_candidates(self, encoded: Dataset, raw: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """The rows of a split, with what the model is to choose among where it does not write by itself."""
        return encoded

    def fitting(self, model: Any, args: TrainingArguments, splits: Splits, tokenizer: Any) -> Fitting:
        from hf_llm.tasks.seq2seq_trainer import Collator, generation_config

        model.generation_config = generation_config(self, model)
        return self.trainer_class(), {
            "task": self,
            "data_collator": Collator(tokenizer, model, decoder_only=self.decoder_only),
        }

    def trainer_class(self) -> type[SequenceToSequenceTrainer]:
        from hf_llm.tasks.seq2seq_trainer import SequenceToSequenceTrainer

        return SequenceToSequenceTrainer

    def outcome(self, trainer: Any, raw: Dataset, encoded: Any, split: str = "test") -> Outcome:
        """Texts that the model wrote, with what they are worth where the split has targets."""
        texts, figures = trainer.texts(encoded, split)
        metrics: dict[str, Any] = {}
        if "target" in raw.column_names:
            metrics = {**unprefixed(figures, split), **self.report(texts, raw["target"])}
        return Outcome(metrics, _predictions(raw, texts), texts)

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """The loss of the targets, row by row: BLEU and chrF are of a corpus."""
        from hf_llm.tasks.unigrams import Unigrams

        predictions, tokens = trainer.kept
        losses = predictions[0] if isinstance(predictions, tuple) else predictions
        targets = (encoded[start : start + 1000]["labels"] for start in range(0, len(encoded), 1000))
        unigrams = Unigrams.of_targets(train, trainer.processing_class)
        found = unigrams.compared(losses, tokens, (row for rows in targets for row in rows))
        texts = outcome.texts or []
        if len(set(texts)) == 1 < len(set(map(tuple, raw["target"]))):
            found.same = repr(texts[0] if len(texts[0]) < 40 else f"{texts[0][:40]}…")
        return found

    def chance_loss(self, train: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
        from hf_llm.tasks.unigrams import Unigrams

        return Unigrams.of_targets(train, tokenizer).own_loss


def _predictions(raw: Dataset, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row per source: the source, the text that the model wrote, and the reference, or the list of several."""
    for row, text in zip(raw, texts, strict=True):
        given = row.get("target")
        reference = {} if given is None else {"reference": given[0] if len(given) == 1 else given}
        yield {"source": row["source"], "prediction": text, **reference}


def _tokenize(
    batch: dict[str, list[Any]], rows: list[int], tokenizer: PreTrainedTokenizerBase, task: Seq2SeqTask, each: bool
) -> dict[str, list[Any]]:
    sources, full_sources = _sources([task.source_prefix + text for text in batch["source"]], tokenizer, task)
    place = list(range(len(rows)))
    targets = batch.get("target")
    if targets is not None:
        place = [index for index, texts in enumerate(targets) for _ in (texts if each else texts[:1])]
    columns: dict[str, list[Any]] = {"input_ids": [sources[i] for i in place], "row": [rows[i] for i in place]}
    full = [full_sources[i] for i in place]
    lengths = [len(ids) for ids in columns["input_ids"]]
    columns["cut_source"] = [whole > kept for whole, kept in zip(full, lengths, strict=True)]
    columns["cut_target"] = [False] * len(place)
    if targets is not None:
        texts = [text for given in targets for text in (given if each else given[:1])]
        columns["labels"], whole_targets = target_ids(texts, tokenizer, task)
        kept_targets = [len(ids) for ids in columns["labels"]]
        columns["cut_target"] = [whole > kept for whole, kept in zip(whole_targets, kept_targets, strict=True)]
        columns["references"] = [targets[i] for i in place]
        full = [a + b for a, b in zip(full, whole_targets, strict=True)]
        lengths = [a + b for a, b in zip(lengths, kept_targets, strict=True)]
    return {**columns, "length": lengths, "full_length": full}


def _sources(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, task: Seq2SeqTask
) -> tuple[list[list[int]], list[int]]:
    """Token ids as the tokenizer ends them, and their number if nothing were cut. A causal LM's end in `sep`."""
    sep = tokenizer.sep_token_id if task.decoder_only else None
    probe = tokenizer("a")["input_ids"]
    lacks = sep is not None and probe[-1:] != [sep]
    whole = tokenizer(texts, verbose=False)["input_ids"]
    most = task.max_source_length - lacks
    cut = [text for text, ids in zip(texts, whole, strict=True) if len(ids) > most]
    shortened = iter(tokenizer(cut, truncation=True, max_length=most, verbose=False)["input_ids"] if cut else ())
    end = [sep] if lacks else []
    kept = [(next(shortened) if len(ids) > most else ids) + end for ids in whole]
    return kept, [len(ids) + lacks for ids in whole]


def target_ids(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, task: Seq2SeqTask
) -> tuple[list[list[int]], list[int]]:
    """Token ids that end with end-of-text, and their number if nothing were cut."""
    eos, most = tokenizer.eos_token_id, task.max_target_length
    if task.decoder_only:
        whole = [[*ids, eos] for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
        return [ids if len(ids) <= most else [*ids[: most - 1], eos] for ids in whole], [len(ids) for ids in whole]
    whole = tokenizer(text_target=texts, verbose=False)["input_ids"]
    cut = tokenizer(text_target=texts, truncation=True, max_length=most, verbose=False)["input_ids"]
    has_end = [eos in ids for ids in cut]  # mBART has the language's code after it
    kept = [ids if ends else [*ids[: most - 1], eos] for ids, ends in zip(cut, has_end, strict=True)]
    return kept, [len(ids) + (not ends) for ids, ends in zip(whole, has_end, strict=True)]
