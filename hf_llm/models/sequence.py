"""What recurrent and windowed models share: config fields, padding put aside, a state carried from call to call.

B: batch, T: positions, C: channels. This file travels with saved weights, so it imports no other of its package.
"""

from typing import ClassVar, Literal, NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, CacheLayerMixin


@strict
class SequenceConfig(PreTrainedConfig):
    """Fields of every model here. Types and choices are checked when they are set; sizes that make no network raise
    ValueError."""

    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = 8192
    hidden_size: int = 256
    num_hidden_layers: int = 2
    embedding_size: int | None = None  # None: hidden_size
    tie_word_embeddings: bool = False  # the output layer reuses the embedding matrix, by a projection if sizes differ
    residual: bool = True  # a layer's input is added to its output, where they have one size
    dropout: float | int = 0.0  # of the embeddings and of every layer's output
    classifier_pooling: Literal["mean", "max", "last", "attention"] = "max"  # over the real tokens
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    sizes: ClassVar[tuple[str, ...]] = ("vocab_size", "hidden_size", "num_hidden_layers", "embedding_size")
    shares: ClassVar[tuple[str, ...]] = ("dropout",)
    strengths: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self, **kwargs):
        if self.embedding_size is None:
            self.embedding_size = self.hidden_size
        for name in self.sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in self.shares:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and less than 1, not {getattr(self, name)}")
        for name in self.strengths:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0, not {getattr(self, name)}")
        super().__post_init__(**kwargs)

    @property
    def input_size(self) -> int:
        """E, the size of an embedding."""
        return self.embedding_size or self.hidden_size

    @property
    def layer_types(self) -> list[str]:
        """transformers' name for a layer whose state does not grow with what it has read."""
        return ["linear_attention"] * self.num_hidden_layers


class SequencePreTrainedModel(PreTrainedModel):
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _is_stateful = True
    output_size: int  # channels of a base model's `last_hidden_state`

    def checked(self, cache: Cache | None) -> "StateCache | None":
        """`past_key_values`, if it can hold this model's state."""
        size = self.config.num_hidden_layers
        if cache is not None and not (isinstance(cache, StateCache) and len(cache.layers) == size):
            raise ValueError(
                f"past_key_values must be a StateCache of {size} layers, such as this model returns, "
                f"not a {type(cache).__name__} of {len(cache.layers)}"
            )
        return cache

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Weights that keep variance, as these models have no norm that would mend it: embeddings of length one,
        products of variance one, and recurrent ones orthogonal (Glorot and Bengio 2010; Saxe et al. 2014)."""
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters():
                if not getattr(parameter, "_is_hf_initialized", False):  # a gate, being a slice, loses the flag
                    _init_gates(module, name, parameter.split(module.hidden_size))
        else:
            super()._init_weights(module)


def _init_gates(module: nn.RNNBase, name: str, gates: tuple[torch.Tensor, ...]) -> None:
    for index, gate in enumerate(gates):  # of an LSTM: input, forget, cell, output
        if name.startswith("weight_ih"):
            init.xavier_uniform_(gate)
        elif name.startswith("weight_hh"):
            init.orthogonal_(gate)
        elif isinstance(module, nn.LSTM) and name.startswith("bias_ih") and index == 1:
            init.ones_(gate)  # an open forget gate lets gradients through (Jozefowicz et al. 2015)
        else:
            init.zeros_(gate)


class StateLayer(CacheLayerMixin):
    """What one layer remembers of the tokens it has read: tensors whose first dimension is the batch."""

    supports_early_init = False

    def __init__(self) -> None:
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

    get_max_cache_shape = get_max_length  # its name before transformers 5.10

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


class StateCache(Cache):
    """A `Cache` of fixed size, however much was read: one `StateLayer` per layer of the model.

    It offers all that `generate` asks of a cache (beams reordered, batches repeated and selected) except `crop`, which
    assisted generation needs: a state cannot forget its last tokens.
    """

    layers: list[StateLayer]  # type: ignore[assignment]

    def __init__(self, num_hidden_layers: int):
        super().__init__(layers=[StateLayer() for _ in range(num_hidden_layers)])

    def detach(self) -> "StateCache":
        """Cuts the states off from the graph that made them, for truncated back-propagation through time."""
        for layer in self.layers:
            layer._map(torch.Tensor.detach)
        return self


class Padding(NamedTuple):
    """Where the real tokens of a batch stand. See `find_padding`."""

    is_real: torch.Tensor  # (B, T) bool
    lengths: torch.Tensor  # (B) real tokens of each row
    order: torch.Tensor | None  # (B, T) positions, the real ones first; None where they are first already
    back: torch.Tensor | None  # (B, T) the inverse of `order`

    def to_front(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (B, T, C) with the real tokens of each row moved to its front, in their order."""
        return x if self.order is None else take(x, self.order)

    def restore(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_front`, with zeros at padding."""
        x = x if self.back is None else take(x, self.back)
        return x * self.is_real[:, :, None].to(x.dtype)


def find_padding(attention_mask: torch.Tensor | None, batch: int, length: int) -> Padding | None:
    """`attention_mask` (batch, ≥ length), 1 or True at real tokens: its last `length` columns count. None: no padding.

    Padding may stand on either side of a row, or between its tokens.
    """
    if attention_mask is None:
        return None
    if attention_mask.ndim != 2 or attention_mask.shape[0] != batch or attention_mask.shape[1] < length:
        raise ValueError(
            f"attention_mask must be (batch, positions), here ({batch}, {length}) or longer, "
            f"not of shape {tuple(attention_mask.shape)}"
        )
    is_real = attention_mask[:, -length:].bool()
    tracing = torch.compiler.is_compiling()  # a graph may not depend on the values in a mask: assume the worst
    if not tracing and is_real.all():
        return None
    lengths = is_real.sum(dim=1)
    if not tracing and not (is_real[:, 1:] & ~is_real[:, :-1]).any():
        return Padding(is_real, lengths, None, None)
    back = torch.where(is_real, is_real.cumsum(1), lengths[:, None] + (~is_real).cumsum(1)) - 1
    positions = torch.arange(length, device=back.device).expand_as(back)
    return Padding(is_real, lengths, torch.zeros_like(back).scatter(1, back, positions), back)


def take(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Of each row of `x` (B, T, C) its `positions` (B, N): (B, N, C)."""
    return x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[-1]))


def dropout(x: torch.Tensor, p: float, training: bool = True, locked: bool = False) -> torch.Tensor:
    """Dropout of `x`; `locked`: of (B, T, C), with one mask for all positions of a row (Gal and Ghahramani 2016).

    On a CPU torch's own draws its Bernoulli numbers in twice the time, a twentieth of an LSTM's step.
    """
    if not training or p == 0:
        return x
    shape = (x.shape[0], 1, x.shape[2]) if locked else x.shape
    kept = torch.rand(shape, device=x.device, dtype=torch.float32).ge_(p)  # of 16 bits they would be too coarse
    return x * kept.mul_(1 / (1 - p)).to(x.dtype)
