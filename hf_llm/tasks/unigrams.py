"""Tokens foretold by nothing but how often train has them: what a model of text must beat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_llm.metrics.chance import Chance, Comparison, unigram_losses
from hf_llm.tasks.packing import EndToEnd
from hf_llm.tasks.sampling import IGNORE_INDEX


class Unigrams:
    """Of each token how often it is a target of the train split, and the loss that this gives it.

    Args:
        counts: (vocabulary,)
    """

    def __init__(self, counts: np.ndarray):
        self.losses = unigram_losses(counts)
        self.own_loss = float(counts @ self.losses / max(counts.sum(), 1))  # of the train split itself
        self.best = int(counts.argmax())
        self.hits = 0  # of the most frequent token among the targets that were `compared`

    @classmethod
    def of_blocks(cls, train: Any, tokenizer: PreTrainedTokenizerBase) -> Unigrams | None:
        """Of `PackedBlocks` or `MaskedBlocks`; None of a stream, which is not to be read twice."""
        return cls(train.target_counts(len(tokenizer))) if hasattr(train, "target_counts") else None

    @classmethod
    def of_targets(cls, train: Any, tokenizer: PreTrainedTokenizerBase) -> Unigrams:
        """Of the `labels` of encoded rows."""
        return cls(EndToEnd(train, "labels").counts(len(tokenizer)))

    def compared(self, losses: np.ndarray, tokens: np.ndarray, targets: Iterable[Any]) -> Chance:
        """The model's loss of each row beside that of its tokens' frequencies.

        Args:
            losses: (rows,), summed over each row's tokens.
            tokens: (rows,), how many these are.
            targets: the token ids of each row, those left out -100.
        """
        chance = np.array([self._row_loss(np.asarray(row)) for row in targets])
        losses, tokens = np.ravel(losses).astype(np.float64), np.ravel(tokens).astype(np.float64)
        total = max(tokens.sum(), 1.0)
        value, known = float(losses.sum() / total), float(chance.sum() / total)
        kept = tokens > 0
        gains = (chance - losses)[kept]
        return Chance({"loss": known}, [Comparison("loss", value, known, gains, tokens[kept])])

    def _row_loss(self, targets: np.ndarray) -> float:
        targets = targets[targets != IGNORE_INDEX]
        self.hits += int((targets == self.best).sum())
        return float(self.losses[targets].sum())
