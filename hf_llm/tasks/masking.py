"""Blocks of a corpus with some of their tokens masked, for BERT's objective (Devlin et al. 2019, section 3.1).

transformers' `DataCollatorForLanguageModeling` draws from one generator for whatever batch comes along: its masks
depend on the batch size, the workers, the processes and on where a run was resumed. Here the mask of a block is a
function of the seed, the epoch and the block alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_llm.tasks.packing import EndToEnd
from hf_llm.tasks.sampling import IGNORE_INDEX, EpochSampler

REPLACED, RANDOM = 0.8, 0.1  # of the chosen tokens, as in the paper; the others stay as they are


class NumberedEpochs(EpochSampler):
    """Rows whose epoch can be told: row i is i + size in the first epoch, i + 2 size in the second, and so on."""

    def __iter__(self) -> Iterator[int]:
        first = self.size * (self.epoch + 1)
        return (first + row for row in super().__iter__())


class MaskedBlocks(torch.utils.data.Dataset):
    """A tokenised corpus in blocks `[CLS] … [SEP]`, its documents end to end with a [SEP] after each.

    Item i has `input_ids` (T,), `labels` (T,) with `IGNORE_INDEX` where nothing is to be predicted, and `row`. The
    mask of items 0 to len − 1 never changes; `NumberedEpochs` asks for others, one for each epoch. Only the last block
    is shorter than `block_size`.

    Args:
        documents: columns `input_ids`, each document with its [SEP], and `word_starts`, 1 where a word begins.
        block_size: T, in tokens, the [CLS] and [SEP] around a block included.
        mlm_probability: how many of the words are chosen.
        seed: of the masks.
    """

    def __init__(
        self,
        documents: Dataset,
        block_size: int,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float,
        seed: int = 0,
    ):
        self._corpus = EndToEnd(documents, "input_ids")
        self._starts = EndToEnd(documents, "word_starts")
        self.document_lengths = self._corpus.lengths
        self.room = block_size - 2
        self.mlm_probability, self.seed = mlm_probability, seed
        self._cls, self._sep, self._mask = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
        self._is_special = np.zeros(len(tokenizer), dtype=bool)
        self._is_special[tokenizer.all_special_ids] = True
        (self._ordinary,) = np.nonzero(~self._is_special)

    def target_counts(self, vocabulary: int) -> np.ndarray:
        """How often each token is there to be masked, (vocabulary,)."""
        counts = self._corpus.counts(vocabulary)
        special = np.flatnonzero(self._is_special)
        counts[special[special < vocabulary]] = 0
        return counts

    def __len__(self) -> int:
        return -(-len(self._corpus) // self.room)

    def _chosen(self, index: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """The tokens of an item, which of them are chosen, and what the rest is drawn from."""
        epoch, row = divmod(index, len(self))
        here = slice(row * self.room, min((row + 1) * self.room, len(self._corpus)))
        tokens = self._corpus.cut(here.start, here.stop).astype(np.int64)
        words = np.cumsum(self._starts.cut(here.start, here.stop)) - 1  # the first may have begun in the block before
        random = np.random.default_rng([self.seed, epoch, row])
        chosen = random.random(int(words[-1]) + 2)[words] < self.mlm_probability
        return tokens, chosen & ~self._is_special[tokens], random

    def targets(self, index: int) -> np.ndarray:
        """The tokens that an item has to be filled in with."""
        tokens, chosen, _ = self._chosen(index)
        return tokens[chosen]

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens, chosen, random = self._chosen(index)
        fate = random.random(len(tokens))
        others = self._ordinary[random.integers(len(self._ordinary), size=len(tokens))]
        shown = np.where(chosen & (fate < REPLACED), self._mask, tokens)
        shown = np.where(chosen & (fate >= REPLACED) & (fate < REPLACED + RANDOM), others, shown)
        labels = np.where(chosen, tokens, IGNORE_INDEX)
        return {
            "input_ids": [self._cls, *shown.tolist(), self._sep],
            "labels": [IGNORE_INDEX, *labels.tolist(), IGNORE_INDEX],
            "row": index % len(self),
        }


def word_starts(text: str, encoding: Any, spans: list[tuple[str, int, int]] | None) -> list[int]:
    """1 for each token of an encoding that begins a word, else 0.

    Args:
        spans: the words of a text that writes no spaces: (word, start, stop) in characters, without gaps. Without it
            words are what the tokenizer took apart before it looked for sub-words, and what spaces separate.
    """
    begins = [start for start, _ in encoding.offsets]
    if spans is not None:
        of_character = np.repeat(np.arange(len(spans)), [stop - start for _, start, stop in spans])
        words = [int(of_character[min(begin, len(of_character) - 1)]) for begin in begins]
        return [1, *(int(a != b) for a, b in pairwise(words))][: len(begins)]
    ids = encoding.word_ids
    new = [index == 0 or ids[index] != ids[index - 1] for index in range(len(begins))]
    return [
        int(is_new or text[begin].isspace() or (begin > 0 and text[begin - 1].isspace()))
        for is_new, begin in zip(new, begins, strict=True)
    ]
