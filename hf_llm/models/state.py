"""What goes from call to call: the state of a recurrent or windowed model, in transformers' own cache.

`DynamicCache(config=model.config)`, which is also what `generate` makes, holds a `StateLayer` per layer of the model.
transformers' LinearAttentionLayer cannot hold such a state: a cache of nothing else has no length, which `generate`
asks for before 5.24, and after for a prompt in chunks; its rows cannot be repeated or selected.
This file travels with saved weights.
"""

from dataclasses import fields
from typing import Any

import torch
from transformers.cache_utils import STATIC_LAYER_TYPE_MAPPING, Cache, CacheLayerMixin
from transformers.modeling_outputs import BaseModelOutputWithPast

# The name of the state in `generate`, in a forward's arguments and in its outputs. Before 5.24: past_key_values
CACHE_NAME = next(
    field.name for field in fields(BaseModelOutputWithPast) if field.name in ("cache", "past_key_values")
)


class StateLayer(CacheLayerMixin):
    """What one layer remembers of the tokens it has read: tensors whose first dimension is the batch."""

    _layer_type = f"{__name__}.StateLayer"  # transformers makes it for this name in a config's `layer_types`
    supports_early_init = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.states: tuple[torch.Tensor, ...] = ()
        self.seen_tokens = torch.zeros((), dtype=torch.long, device="cpu")  # a number would be a constant of a graph
        self.is_initialized = False

    def advance(self, states: tuple[torch.Tensor, ...], num_tokens: int) -> None:
        """The states after `num_tokens` further positions, in place of those before."""
        self.states = states
        self.seen_tokens = self.seen_tokens + num_tokens  # not in place: a graph leaves its inputs alone
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise NotImplementedError("a recurrent state has no keys and values")

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        raise NotImplementedError("a recurrent state has no keys and values")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return int(self.seen_tokens)

    def get_max_length(self) -> int:
        return -1  # no limit

    def _map(self, function) -> None:
        self.states = tuple(map(function, self.states))

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self._map(lambda state: state.index_select(0, beam_idx.to(state.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._map(lambda state: state[indices.to(state.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda state: state.repeat_interleave(repeats, dim=0))

    def offload(self) -> None:
        pass  # too small to be worth it

    prefetch = offload

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove != 0:
            raise ValueError("a recurrent state cannot forget its last tokens; start again from the beginning")


# A state has one size in any case, so that a static cache is a dynamic one
STATIC_LAYER_TYPE_MAPPING[StateLayer._layer_type] = StateLayer


def holds_state(cache: Any, layers: int | None = None) -> bool:
    """Whether `cache` is made for a model of this kind, of so many layers."""
    found = getattr(cache, "layers", ())
    return bool(found) and all(isinstance(layer, StateLayer) for layer in found) and layers in (None, len(found))


def detach(cache: Cache) -> Cache:
    """Cuts the states off from the graph that made them, for truncated back-propagation through time."""
    for layer in cache.layers:
        layer._map(torch.Tensor.detach)  # type: ignore[union-attr]
    return cache
