"""Keyword arguments that other models take: what changes nothing here is let through, anything else is refused.

This file travels with saved weights. B: batch, T: positions.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.utils import logging

logger = logging.get_logger(__name__)

# transformers' Trainer, tokenizers, `generate`, collators and older remote code pass these, and no number of any model
# depends on them
HARMLESS = frozenset(
    {
        "return_dict",
        "num_items_in_batch",  # of a call without labels
        "tokenizer",  # of `generate`, to which it hands on all that it was given
        "assistant_tokenizer",
        "cache_position",  # in a static cache
        "max_length_q",  # the longest document of a packed batch
        "max_length_k",
        "length",  # of a tokenizer
        "special_tokens_mask",
        "offset_mapping",
    }
)
OF_THE_LOSS = ("num_items_in_batch", "shift_labels", "ignore_index")
# Known where they do not change the result, refused where they would
LOOKED_AT = frozenset({"position_ids", "cu_seq_lens", "cu_seq_lens_q", "cu_seq_lens_k", "seq_idx", "token_type_ids"})
PACKED = (
    "begins another document within a row, and this model reads a row as one document: give each document a row of "
    "its own, e.g. by DataCollatorWithPadding in place of DataCollatorWithFlattening"
)


def is_tracing() -> bool:
    """A graph may not depend on the values in a tensor."""
    return torch.compiler.is_compiling()


def refuse_ignored(
    kwargs: dict[str, Any], name: str, x: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None
) -> None:
    """Raises where one of `kwargs`, if it were honoured, would change what a model called `name` gives for `x` (B, T).

    Raises:
        TypeError: a keyword that it does not know.
        ValueError: packed rows, or positions that follow others which it has not read.
    """
    given = {key: value for key, value in kwargs.items() if value is not None}
    for key, value in given.items():
        if key == "is_causal":
            if not value:
                raise ValueError(f"is_causal=False: {name} reads in the directions that its config says")
        elif key not in HARMLESS and key not in LOOKED_AT and not key.startswith("output_"):
            raise TypeError(f"{name} takes no {key}, which would change nothing; leave it out")
    B, T = x.shape[:2]
    if any(given[key].numel() - 1 > B for key in given if key.startswith("cu_seq_lens")):
        raise ValueError(f"cu_seq_lens {PACKED}")
    if is_tracing():
        return
    if "token_type_ids" in given and given["token_type_ids"].any():  # tokenizers give them with every pair of texts
        logger.warning_once(f"{name} has no embedding of segments: the separators alone tell it of token_type_ids")
    if "seq_idx" in given and (given["seq_idx"] != given["seq_idx"][:, :1]).any():
        raise ValueError(f"seq_idx {PACKED}")
    if "position_ids" in given:
        _check_positions(given["position_ids"], B, T, attention_mask, cache)


def _check_positions(
    position_ids: torch.Tensor, B: int, T: int, attention_mask: torch.Tensor | None, cache: Cache | None
) -> None:
    if position_ids.ndim != 2 or position_ids.shape[0] not in (1, B) or position_ids.shape[1] < T:
        raise ValueError(f"position_ids must be ({B}, {T}) here, not of shape {tuple(position_ids.shape)}")
    real = torch.ones(B, T, dtype=torch.bool, device=position_ids.device)
    if attention_mask is not None:
        real = attention_mask[:, -T:].bool().to(position_ids.device)
    positions = position_ids[:, -T:].masked_fill(~real, -1)  # (B, T)
    before = positions.cummax(dim=1).values[:, :-1]
    if (real[:, 1:] & (positions[:, 1:] <= before)).any():
        raise ValueError(f"position_ids {PACKED}")
    if has_read(cache):
        if attention_mask is None and (positions[:, 0] == 0).any():  # else the row's first token may be this one
            raise ValueError(f"position_ids {PACKED}")
    elif (positions > torch.arange(T, device=positions.device)).any():
        raise ValueError(f"position_ids begin at {int(positions[real].min())}: {_LOST}")


def one_cache(past_key_values: Cache | None, cache: Cache | None) -> Cache | None:
    """The one that is given, of the two names that transformers has had for it."""
    if past_key_values is not None and cache is not None:
        raise ValueError("give cache or past_key_values, which is its name before transformers 5.24, not both")
    return past_key_values if cache is None else cache


def has_read(cache: Cache | None) -> bool:
    return cache is not None and cache.get_seq_length() > 0


def check_state(x: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None) -> None:
    """Raises ValueError where a mask tells of tokens before those of `x` (B, T, …), and no state has come of them."""
    T = x.shape[1]
    if attention_mask is None or attention_mask.shape[1] == T or is_tracing() or has_read(cache):
        return
    if attention_mask[:, :-T].any():
        raise ValueError(f"attention_mask has {attention_mask.shape[1]} columns for {T} tokens: {_LOST}")


_LOST = (
    "tokens came before these, but the state that they left is not given, so reading would start again from nothing; "
    "pass on the cache of the call before, or all the tokens"
)
