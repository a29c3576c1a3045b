"""What recurrent and windowed models share: config fields, checks of what is given, padding put aside.

B: batch, T: positions, C: channels. This file travels with saved weights, as do all that it imports by a dot.
"""

from typing import Any, ClassVar, Literal, NamedTuple

from .requirement import TRANSFORMERS  # noqa: F401  before what an older transformers has not

# isort: split
import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache

from .keywords import check_state, is_tracing, refuse_ignored
from .state import StateLayer, holds_state


@strict
class SequenceConfig(PreTrainedConfig):
    """Fields of every model here. Types and choices are checked when they are set; sizes that make no network raise
    ValueError."""

    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]

    vocab_size: int = 8192
    hidden_size: int = 256
    num_hidden_layers: int = 2
    embedding_size: int | None = None  # None: hidden_size
    tie_word_embeddings: bool = False  # the output layer reuses the embedding matrix, by a projection if sizes differ
    residual: bool = True  # a layer's input is added to its output, where they have one size
    dropout: float | int = 0.0  # of the embeddings and of every layer's output
    classifier_dropout: float | int = 0.0  # of what a classifier's output layer reads
    classifier_pooling: Literal["mean", "max", "last", "attention"] = "max"  # over the real tokens
    initializer_range: float | int | None = None  # standard deviation of every weight; None: what keeps variance
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    sizes: ClassVar[tuple[str, ...]] = ("vocab_size", "hidden_size", "num_hidden_layers", "embedding_size")
    shares: ClassVar[tuple[str, ...]] = ("dropout", "classifier_dropout")
    strengths: ClassVar[tuple[str, ...]] = ("initializer_range",)

    def __post_init__(self, **kwargs):
        if self.embedding_size is None:
            self.embedding_size = self.hidden_size
        kwargs.pop("output_hidden_size", None)  # a saved one, which follows from the rest
        kwargs.pop("model_type", None)  # the class's, which older checkpoints have by another name
        super().__post_init__(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None:  # what may be None is said by its type
            if name in self.sizes and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
            if name in self.shares and not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and less than 1, not {value}")
            if name in self.strengths and not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0, not {value}")
        super().__setattr__(name, value)

    @property
    def input_size(self) -> int:
        """E, the size of an embedding."""
        return self.embedding_size or self.hidden_size

    @property
    def output_hidden_size(self) -> int:
        """Channels of a base model's `last_hidden_state`, by the name that transformers' speech encoders use."""
        return self.hidden_size

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "output_hidden_size": self.output_hidden_size}

    @property
    def layer_types(self) -> list[str]:
        """By which transformers' caches know what to hold for each layer."""
        return [StateLayer._layer_type] * self.num_hidden_layers

    def validate_layer_type(self) -> None:
        """transformers' list of types has none for a state that is no linear attention's; ours are right by design."""


class SequencePreTrainedModel(PreTrainedModel):
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _is_stateful = True
    output_size: int  # channels of a base model's `last_hidden_state`
    embed_tokens: nn.Embedding  # a base model's

    def checked(self, cache: Cache | None) -> Cache | None:
        """The cache, if it can hold this model's state."""
        size = self.config.num_hidden_layers
        if cache is not None and not holds_state(cache, size):
            raise ValueError(
                f"the cache must be of {size} layers of this model's state, as DynamicCache(config=model.config) is, "
                f"not a {type(cache).__name__} of {len(getattr(cache, 'layers', ()))}"
            )
        return cache

    def embedded(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        kwargs: dict[str, Any],
    ) -> "tuple[torch.Tensor, Padding | None]":
        """What a base model reads, (B, T, E), and where it is padding; with every check of what was given."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        given: torch.Tensor = inputs_embeds if input_ids is None else input_ids  # type: ignore[assignment]
        B, T = given.shape[:2]
        if T == 0:
            raise ValueError("no tokens were given: an input has at least one, e.g. that which begins a document")
        padding = find_padding(attention_mask, B, T)
        check_state(given, attention_mask, cache)
        refuse_ignored(kwargs, type(self).__name__, given, attention_mask, cache)
        return (self.embed(given) if inputs_embeds is None else inputs_embeds), padding

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.embed_tokens(input_ids)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Weights that keep variance, as these models have no norm that would mend it: embeddings of length one,
        products of variance one, and recurrent ones orthogonal (Glorot and Bengio 2010; Saxe et al. 2014). With
        `config.initializer_range`, all weights are normal with that standard deviation, as in BERT and GPT-2."""
        std = self.config.initializer_range
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=module.embedding_dim**-0.5 if std is None else std)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5 if std is None else std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters():
                if not getattr(parameter, "_is_hf_initialized", False):  # a gate, being a slice, loses the flag
                    _init_gates(module, name, parameter.split(module.hidden_size), std)
        else:
            super()._init_weights(module)


def _init_gates(module: nn.RNNBase, name: str, gates: tuple[torch.Tensor, ...], std: float | None) -> None:
    for index, gate in enumerate(gates):  # of an LSTM: input, forget, cell, output
        if name.startswith("weight") and std is not None:
            init.normal_(gate, std=std)
        elif name.startswith("weight_ih"):
            init.xavier_uniform_(gate)
        elif name.startswith("weight_hh"):
            init.orthogonal_(gate)
        elif isinstance(module, nn.LSTM) and name.startswith("bias_ih") and index == 1:
            init.ones_(gate)  # an open forget gate lets gradients through (Jozefowicz et al. 2015)
        else:
            init.zeros_(gate)


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
    if length == 1 and is_real.device.type != "cpu":  # a step of generation, which should not wait for a GPU's answer
        return Padding(is_real, is_real.sum(dim=1), None, None)
    if not is_tracing() and is_real.all():  # in a graph, assume the worst
        return None
    lengths = is_real.sum(dim=1)
    if not is_tracing() and not (is_real[:, 1:] & ~is_real[:, :-1]).any():
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
