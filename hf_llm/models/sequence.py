"""What the RNN and the FNN share: padding put aside, a state carried from call to call, pooling for classifiers.

B: batch, T: positions, C: channels. Imports torch only: this file travels with saved weights.
"""

from __future__ import annotations

import torch


class StateCache:
    """What a model remembers of the tokens it has read: for each layer, tensors whose first dimension is the batch.

    It has a fixed size, whatever was read, so it offers what `generate` needs of a transformers `Cache` except `crop`:
    a state cannot forget its last tokens.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.layers: dict[int, tuple[torch.Tensor, ...]] = {}
        self.seen_tokens = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions read so far, padding included."""
        return self.seen_tokens

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1  # no limit

    def reset(self) -> None:
        self.layers.clear()
        self.seen_tokens = 0

    def _map(self, function) -> None:
        self.layers = {index: tuple(map(function, state)) for index, state in self.layers.items()}

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i becomes what row `beam_idx[i]` was."""
        self._map(lambda state: state.index_select(0, beam_idx.to(state.device)))

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda state: state.repeat_interleave(repeats, dim=0))


def order_real_first(attention_mask: torch.Tensor | None, length: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """How to move each row's real tokens to its front, so that padding on either side is never read.

    `attention_mask` (B, ≥ length) is 1 at real tokens; its last `length` columns count. Returns the permutation (B, T)
    and the number of real tokens per row (B), or None where nothing is padding.
    """
    if attention_mask is None:
        return None
    mask = attention_mask[:, -length:].bool()
    if mask.all():
        return None
    return mask.long().argsort(dim=1, descending=True, stable=True), mask.sum(dim=1)


def permute_positions(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """`x` (B, T, C) with the positions of each row taken in `order` (B, T)."""
    return x.gather(1, order[:, :, None].expand_as(x))


def pool(x: torch.Tensor, attention_mask: torch.Tensor | None, how: str) -> torch.Tensor:
    """One vector per row, (B, T, C) -> (B, C), over its real tokens: their `mean`, `max` or the `last` of them."""
    if attention_mask is None:
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    else:
        mask = attention_mask[:, -x.shape[1] :].to(x.device, torch.bool)
    if how == "last":
        last = (mask.long() * torch.arange(x.shape[1], device=x.device)).argmax(dim=1)
        return x[torch.arange(x.shape[0], device=x.device), last]
    mask = mask[:, :, None]
    if how == "max":
        x = x.masked_fill(~mask, torch.finfo(x.dtype).min).amax(dim=1)
        return x.masked_fill(~mask.any(dim=1), 0.0)  # a row of nothing but padding
    return (x * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
