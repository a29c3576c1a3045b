"""A tokenizer for the run: a pretrained one (`pretrained.py`), or one trained on the train split (`training.py`)."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from hf_llm.config import TokenizerConfig
from hf_llm.tokenizer import pretrained, training
from hf_llm.tokenizer.training import Texts


def load(cfg: TokenizerConfig, texts: Texts | None, *, special_tokens: Mapping[str, str]) -> PreTrainedTokenizerBase:
    """The tokenizer that `cfg` asks for, with the special tokens that the task needs, and a pad token always.

    Args:
        texts: called for each pass over the train split; yields batches of strings. None where there is no train
            split: then only `cfg.pretrained` will do.
        special_tokens: role to token, such as {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}. A pretrained
            tokenizer keeps its own; a trained one puts each text between its cls and sep tokens where both are given,
            and before its sep token where that is given alone.

    Raises:
        InputError: nothing to train on, a vocabulary too small for the algorithm, a pretrained tokenizer that is not
            there or that would load almost empty.
    """
    if cfg.pretrained is not None:
        return pretrained.load(
            cfg.pretrained, revision=cfg.revision, lowercase=cfg.lowercase, special_tokens=special_tokens
        )
    return training.train(cfg, texts, special_tokens=special_tokens)
