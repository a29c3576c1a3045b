"""A feed-forward language model over a window of words, as a language model and as classifiers.

Bengio, Ducharme, Vincent, Jauvin 2003, *A Neural Probabilistic Language Model*: with x the concatenated embeddings of
the last n−1 words, y = b + W x + U tanh(d + H x), W x being the optional direct connections. Deeper, with residual
connections, layer norm and the average of the words before the window: Sun and Iyyer 2021, *Revisiting Simple Neural
Probabilistic Language Models*.
Shapes: B batch, T positions, W window, E embedding size, H hidden size, V vocabulary.
"""

from typing import Any, ClassVar, Literal, cast

from .requirement import TRANSFORMERS  # noqa: F401  before what an older transformers has not

# isort: split
import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import GenerationMixin
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.output_capturing import capture_outputs

from .heads import CausalLMHead, SequenceClassifierHead, TokenClassifierHead
from .keywords import one_cache
from .sequence import Padding, SequenceConfig, SequencePreTrainedModel
from .state import CACHE_NAME


@strict
class FNNConfig(SequenceConfig):
    """Sizes of an FNN. `window` is the n−1 of an n-gram model: how many tokens the next one is predicted from."""

    model_type = "hf_llm_fnn"

    num_hidden_layers: int = 1
    embedding_size: int | None = 128
    window: int = 8
    hidden_act: Literal["tanh", "relu", "gelu"] = "tanh"
    direct_connections: bool = False  # the W x of the paper: from the window's embeddings to the logits
    layer_norm: bool = False  # of every hidden layer's output
    layer_norm_eps: float | int = 1e-5  # added to its variance
    global_context: bool = False  # the first layer also sees the average of all embeddings before the window

    sizes: ClassVar[tuple[str, ...]] = (*SequenceConfig.sizes, "window")
    strengths: ClassVar[tuple[str, ...]] = (*SequenceConfig.strengths, "layer_norm_eps")

    @property
    def output_hidden_size(self) -> int:
        return self.hidden_size + self.direct_connections * self.window * self.input_size


class FNNLayer(GradientCheckpointingLayer):
    """(B, T, C) -> (B, T, H), each position by itself."""

    def __init__(self, config: FNNConfig, input_size: int):
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.act = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.dropout)
        norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps) if config.layer_norm else nn.Identity()
        self.norm = norm
        self.residual = config.residual and input_size == config.hidden_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.dropout(self.act(self.dense(x)))
        return self.norm(y + x if self.residual else y)


class FNNWindowLayer(FNNLayer):
    """The first layer: position t sees the embeddings of the tokens t−W+1 … t, and nothing later."""

    def __init__(self, config: FNNConfig):
        super().__init__(config, (config.window + config.global_context) * config.input_size)
        self.window = config.window
        self.global_context = config.global_context
        self.residual = False  # its input is not one vector

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, padding: Padding | None = None, *state: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """`x` (B, T, E) and the state -> (B, T, H), what each position saw (B, T, W·E), then the new state.

        The state: the last W−1 real embeddings (B, W−1, E), zeros before the first; and with the global context the
        sum (B, E) of those before them, and the number of tokens read (B, 1). It is no tuple of its own, where
        reentrant checkpointing would not see that it has a gradient.
        """
        B, T, E = x.shape
        if padding is not None:
            x = padding.to_front(x)
        past = state[0].to(x.dtype) if state else x.new_zeros(B, self.window - 1, E)
        x = torch.cat([past, x], dim=1)  # (B, W−1+T, E)
        ends = torch.full((B,), T, device=x.device) if padding is None else padding.lengths
        kept = ends[:, None] + torch.arange(self.window - 1, device=x.device)
        new: tuple[torch.Tensor, ...] = (x.gather(1, kept[:, :, None].expand(-1, -1, E)),)

        windows = torch.cat([x[:, k : k + T] for k in range(self.window)], dim=-1)  # (B, T, W·E)
        seen = windows
        if self.global_context:
            wide = torch.promote_types(x.dtype, torch.float32)  # a long sum in half precision would stop growing
            total, read = state[1:] if state else (x.new_zeros(B, E, dtype=wide), ends.new_zeros(B, 1))
            left = nn.functional.pad(x[:, :T].cumsum(dim=1, dtype=wide), (0, 0, 1, 0)) + total[:, None]  # (B, 1+T, E)
            count = (read + torch.arange(1, T + 1, device=x.device) - self.window).clamp(min=1)  # (B, T)
            seen = torch.cat([windows, (left[:, :T] / count[:, :, None]).to(x.dtype)], dim=-1)
            new += (left[torch.arange(B, device=x.device), ends], read + ends[:, None])
        y = super().forward(seen)
        if padding is not None:
            y, windows = padding.restore(y), padding.restore(windows)
        return y, windows, *new


class FNNPreTrainedModel(SequencePreTrainedModel):
    config: FNNConfig
    config_class = FNNConfig
    _no_split_modules = ["FNNLayer", "FNNWindowLayer"]  # noqa: RUF012 (as transformers declares it)
    _can_record_outputs = {"hidden_states": FNNLayer}  # noqa: RUF012 (likewise)

    def post_init(self) -> None:
        super().post_init()
        # FSDP looks each of them up, and most models have one hidden layer
        here = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = [name for name in self._no_split_modules or () if name in here]


class FNNModel(FNNPreTrainedModel):
    def __init__(self, config: FNNConfig):
        super().__init__(config)
        self.output_size = config.output_hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.input_size)
        self.dropout = nn.Dropout(config.dropout)
        deeper = [FNNLayer(config, config.hidden_size) for _ in range(config.num_hidden_layers - 1)]
        self.layers = nn.ModuleList([FNNWindowLayer(config), *deeper])
        self.gradient_checkpointing = False
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """`input_ids` (B, T) or `inputs_embeds` (B, T, E); `attention_mask` (B, ≥ T): its last T columns count.

        Padding may stand on either side, or between tokens: windows skip it. Before the first token stand zeros.
        `last_hidden_state` is (B, T, H), or with direct connections (B, T, H + W·E), zero at padding. `cache`, before
        transformers 5.24 `past_key_values`, is the state to go on from.
        """
        cache = self.checked(one_cache(past_key_values, cache))
        inputs_embeds, padding = self.embedded(input_ids, inputs_embeds, attention_mask, cache, kwargs)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        layers: Any = cache.layers if cache is not None else None
        T = inputs_embeds.shape[1]

        state = layers[0].states if layers else ()
        x, windows, *new = self.layers[0](self.dropout(inputs_embeds), padding, *state)
        for layer in self.layers[1:]:
            x = layer(x)
        if padding is not None and len(self.layers) > 1:
            x = x * padding.is_real[:, :, None]
        if self.config.direct_connections:
            x = torch.cat([x, windows], dim=-1)
        if layers and use_cache:
            layers[0].advance(tuple(new), num_tokens=T)
            for other in layers[1:]:  # which have nothing to remember
                other.advance((), num_tokens=T)
        return BaseModelOutputWithPast(last_hidden_state=x, **cast(Any, {CACHE_NAME: cache if use_cache else None}))


class FNNForCausalLM(CausalLMHead, FNNPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    base_class = FNNModel


class FNNForSequenceClassification(SequenceClassifierHead, FNNPreTrainedModel):
    base_class = FNNModel


class FNNForTokenClassification(TokenClassifierHead, FNNPreTrainedModel):
    base_class = FNNModel


# Saved weights bring this file along, so that they load where this package is not installed, with trust_remote_code
FNNConfig.register_for_auto_class()
FNNModel.register_for_auto_class("AutoModel")
FNNForCausalLM.register_for_auto_class("AutoModelForCausalLM")
FNNForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
FNNForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
