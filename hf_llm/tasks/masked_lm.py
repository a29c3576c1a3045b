"""Masked language modelling: fill in hidden tokens, as BERT is pretrained. Every `AutoModelForMaskedLM`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_llm.config import InputError
from hf_llm.tasks.base import BERT_TOKENS, Fitting, Outcome, Splits, Task, encode_cached, tokenizer_key

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from hf_llm.metrics.chance import Chance


@dataclass
class MaskedLM(Task):
    """Documents are packed into blocks, a separator after each; a training sees another mask in every epoch.

    Evaluation has one fixed mask, so that two evaluations agree, and two models with one tokenizer and `block_size`
    compare.
    """

    auto_model: ClassVar[str] = "AutoModelForMaskedLM"
    architecture_endings: ClassVar[tuple[str, ...]] = ("ForMaskedLM", "ForPreTraining")
    columns: ClassVar[Mapping[str, str]] = {"text": "text"}
    sample_by: ClassVar[str] = "document"
    special_tokens: ClassVar[Mapping[str, str]] = BERT_TOKENS
    unit: ClassVar[str] = "blocks"

    chance: ClassVar[Mapping[str, str]] = {
        "loss": "the token frequencies of train",
        "accuracy": "the most frequent token of train",
    }
    principal: ClassVar[tuple[str, ...]] = ()  # there is no baseline

    block_size: int = 256  # tokens the model sees at once
    mlm_probability: float = 0.15  # how many are to be predicted: 80 % of them masked, 10 % random, 10 % as they are
    whole_word: bool = False  # all the tokens of a word, or none
    segmentation: Literal["jieba"] | None = None  # what finds the words where no spaces do; with whole_word
    mask_seed: int = 0  # of the mask of an evaluation
    top_k: int = 5  # candidates that `predict` gives for each mask

    def longest_input(self) -> int:
        return self.block_size

    def metric_names(self, labels: list[str] | None) -> list[str]:
        return ["loss", "perplexity", "accuracy"]

    def arguments(self, trainer: dict[str, Any], output_dir: Any) -> TrainingArguments:
        if not 0 < self.mlm_probability <= 1:
            raise InputError(f"task.mlm_probability={self.mlm_probability}: give a number above 0, and at most 1")
        if self.block_size < 3:
            raise InputError(f"task.block_size={self.block_size}: give at least 3, for two are [CLS] and [SEP]")
        if self.segmentation and not self.whole_word:
            raise InputError(f"task.segmentation={self.segmentation} is for whole words: set task.whole_word=true")
        return super().arguments(trainer, output_dir)

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Each split as `MaskedBlocks`."""
        from datasets import Features, IterableDataset, List, Value

        from hf_llm.tasks.masking import MaskedBlocks

        for name in ("mask_token", "cls_token", "sep_token"):
            if getattr(tokenizer, f"{name}_id") is None:
                raise InputError(
                    f"tokenizer: has no {name}, which masked_lm needs; take one of BERT's kind, or tokenizer=wordpiece"
                )
        cut = _segmenter(self.segmentation)
        features = Features({"input_ids": List(Value("int32")), "word_starts": List(Value("int8"))})
        key = ["masked_lm", *tokenizer_key(tokenizer), self.whole_word, self.segmentation]
        tokenize = partial(_tokenize, tokenizer=tokenizer, whole_word=self.whole_word, cut=cut)
        splits: Splits = {}
        for name, documents in raw.items():
            if isinstance(documents, IterableDataset):
                raise InputError(
                    "data.streaming=true: the mask of a block goes by its number, which a stream has none of; set "
                    "data.streaming=false"
                )
            settings = {"batched": True, "features": features, "remove_columns": ["text"]}
            tokenized = encode_cached(documents, tokenize, key, **settings, desc=f"tokenising {name}")
            splits[name] = MaskedBlocks(
                tokenized, self.block_size, tokenizer, self.mlm_probability, seed=self.mask_seed
            )
        return splits

    def fitting(self, model: Any, args: TrainingArguments, splits: Splits, tokenizer: Any) -> Fitting:
        from transformers import DataCollatorForTokenClassification

        from hf_llm.tasks.masked_lm_trainer import MaskedLMTrainer

        if "train" in splits:
            splits["train"].seed = args.seed if args.data_seed is None else args.data_seed
        return MaskedLMTrainer, {"data_collator": DataCollatorForTokenClassification(tokenizer)}

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """The loss of masked tokens, block by block."""
        from hf_llm.tasks.unigrams import Unigrams

        unigrams = Unigrams.of_blocks(train, trainer.processing_class)
        assert unigrams is not None
        losses, masked = trainer.kept
        found = unigrams.compared(losses, masked[:, 0], map(encoded.targets, range(len(encoded))))
        found.scores["accuracy"] = unigrams.hits / max(int(masked[:, 0].sum()), 1)
        return found

    def chance_loss(self, train: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
        from hf_llm.tasks.unigrams import Unigrams

        unigrams = Unigrams.of_blocks(train, tokenizer)
        return None if unigrams is None else unigrams.own_loss

    def predict(self, trainer: Any, rows: Dataset, tokenizer: Any) -> Iterable[dict[str, Any]]:
        """The text, and for each mask in it the `top_k` likely tokens: `{"text", "masks": [[{"token", "score"}]]}`."""
        from transformers import FillMaskPipeline

        for number, text in enumerate(rows["text"], 1):
            if tokenizer.mask_token not in text:
                raise InputError(f"row {number} of the input: no {tokenizer.mask_token} in it to be filled in")
        fill: Any = FillMaskPipeline(model=trainer.model, tokenizer=tokenizer, device=trainer.args.device)
        for text in rows["text"]:
            found = fill(text, top_k=self.top_k)
            masks = found if isinstance(found[0], list) else [found]  # several masks, or one
            scored = [[{"token": c["token_str"], "score": round(c["score"], 6)} for c in mask] for mask in masks]
            yield {"text": text, "masks": scored}


def _segmenter(name: str | None) -> Any:
    if name is None:
        return None
    try:
        import rjieba
    except ImportError as error:
        raise InputError(
            "task.segmentation=jieba: needs the package rjieba; `pip install 'hf_llm[chinese]'`"
        ) from error
    return rjieba.tokenize


def _tokenize(
    batch: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase, whole_word: bool, cut: Any
) -> dict[str, list[Any]]:
    """Token ids of each document, a separator after it, and which of them begin a word."""
    from hf_llm.tasks.masking import word_starts

    backend, texts = tokenizer.backend_tokenizer, batch["text"]
    encode = backend.encode_batch if whole_word else backend.encode_batch_fast  # the fast one gives no offsets
    encodings = encode(texts, add_special_tokens=False)
    if whole_word:
        spans = [cut(text, "default", False) if cut else None for text in texts]
        starts = [word_starts(*given) for given in zip(texts, encodings, spans, strict=True)]
    else:
        starts = [[1] * len(encoding.ids) for encoding in encodings]
    return {
        "input_ids": [[*encoding.ids, tokenizer.sep_token_id] for encoding in encodings],
        "word_starts": [[*row, 1] for row in starts],
    }
