"""Causal language modelling: predict the next token. GPT-2, RNN, FNN and every `AutoModelForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from hf_llm.config import InputError
from hf_llm.tasks.base import Fitting, Outcome, Splits, Task, encode_cached, tokenizer_key

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from hf_llm.metrics.chance import Chance


@dataclass
class CausalLM(Task):
    """Documents are packed into blocks, with an end-of-text token after each; no token of the corpus is left out.

    With `carry_state` training reads the corpus as `streams` has it, in order: an epoch is not shuffled, and starts
    with a state of zero. What is measured is read after the block before it, and no further back, so that the figures
    depend on no batch size or number of processes; `hf-llm evaluate run=… task.block_size=N` reads further, with N the
    corpus's tokens all of it in one go.
    """

    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    architecture_endings: ClassVar[tuple[str, ...]] = ("ForCausalLM", "LMHeadModel")
    columns: ClassVar[Mapping[str, str]] = {"text": "text"}
    sample_by: ClassVar[str] = "document"
    predicts: ClassVar[bool] = False
    unit: ClassVar[str] = "blocks"
    special_tokens: ClassVar[Mapping[str, str]] = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}

    chance: ClassVar[Mapping[str, str]] = {"loss": "the token frequencies of train"}
    principal: ClassVar[tuple[str, ...]] = ()  # there is no baseline

    block_size: int = 256  # tokens the model sees at once
    carry_state: bool = False  # train an RNN or FNN from the state that the block before left

    def longest_input(self) -> int:
        return self.block_size

    def metric_names(self, labels: list[str] | None) -> list[str]:
        from hf_llm.metrics.language_modeling import language_modeling

        return list(language_modeling(1.0, tokens=1, words=1, num_bytes=1))

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Each split as blocks: `PackedBlocks`, or for a streamed corpus `StreamedBlocks`."""
        from datasets import Features, IterableDataset, List, Value

        from hf_llm.tasks.packing import COUNTED, PackedBlocks, StreamedBlocks

        features = Features({"input_ids": List(Value("int32")), **{name: Value("int64") for name in COUNTED}})
        settings = {"batched": True, "features": features, "remove_columns": ["text"]}
        ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
        key = ["causal_lm", *tokenizer_key(tokenizer)]
        splits: Splits = {}
        for name, documents in raw.items():
            tokenize = partial(_tokenize, tokenizer=tokenizer)
            context = self.block_size if self.carry_state and name != "train" else 0
            if isinstance(documents, IterableDataset):
                if self.carry_state and name == "train":
                    raise InputError(
                        "task.carry_state=true: a row of the batch reads its own part of the corpus, whose length "
                        "is not known of a stream: set data.streaming=false"
                    )
                tokenized = documents.map(tokenize, **settings)
                splits[name] = StreamedBlocks(tokenized, self.block_size, **ends, context=context)
                continue
            tokenized = encode_cached(documents, tokenize, key, **settings, desc=f"tokenising {name}")
            counted = name != "train"
            splits[name] = PackedBlocks(tokenized, self.block_size, **ends, count_text=counted, context=context)
        return splits

    def fitting(self, model: Any, args: TrainingArguments, splits: Splits, tokenizer: Any) -> Fitting:
        from hf_llm.tasks import streams
        from hf_llm.tasks.language_model_trainer import LanguageModelTrainer
        from hf_llm.tasks.packing import collate

        if self.carry_state:
            streams.check_state(model)
            if "train" in splits:
                streams.check_layout(args)
        return LanguageModelTrainer, {"data_collator": collate, "carry_state": self.carry_state}

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """Block by block; nothing of a streamed train split, whose tokens nobody has counted."""
        from hf_llm.metrics.chance import Chance
        from hf_llm.tasks.unigrams import Unigrams

        unigrams = Unigrams.of_blocks(train, trainer.processing_class)
        if unigrams is None:
            return Chance()
        losses, tokens = trainer.kept
        return unigrams.compared(losses, tokens[:, 0], (block["shift_labels"] for block in encoded))

    def chance_loss(self, train: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
        from hf_llm.tasks.unigrams import Unigrams

        unigrams = Unigrams.of_blocks(train, tokenizer)
        return None if unigrams is None else unigrams.own_loss


def _tokenize(batch: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[Any]]:
    """Token ids of each document, an end-of-text token after it, and the size of its text in words and UTF-8 bytes."""
    texts = batch["text"]
    backend = tokenizer.backend_tokenizer
    # The library's own call, without the offsets and masks that transformers' wrapper makes. Of GPT-2's tokenizer, on
    # one thread: 0.4 of the wrapper's time on short lines, 0.7 on one long document.
    ids = [encoding.ids for encoding in backend.encode_batch_fast(texts)]
    eos, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    return {
        "input_ids": [tokens if tokens and tokens[-1] == eos else [*tokens, eos] for tokens in ids],
        "num_words": [len(text.split()) for text in texts],
        "num_bytes": [len(text.encode()) for text in texts],
        "num_unknown": [0 if unknown in (None, eos) else tokens.count(unknown) for tokens in ids],
    }
