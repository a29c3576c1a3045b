"""A feed-forward language model over a window of words, as a causal LM and as a classifier.

Bengio, Ducharme, Vincent, Jauvin 2003, *A Neural Probabilistic Language Model*: with x the concatenated embeddings of
the last n−1 words, y = b + W x + U tanh(d + H x), W x being the optional direct connections.
Shapes: B batch, T positions, W window, E embedding size, H hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import ModelOutput, can_return_tuple

from .sequence import StateCache, order_real_first, permute_positions, pool


class FNNConfig(PreTrainedConfig):
    """Sizes of an FNN. `window` is the n−1 of an n-gram model: how many tokens the next one is predicted from."""

    model_type = "fnn"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = 8192
    window: int = 8
    embedding_size: int = 128
    hidden_size: int = 256
    num_hidden_layers: Literal[1] = 1
    direct_connections: bool = False  # the W x of the paper: from the window's embeddings to the logits
    dropout: float = 0.1  # of the embeddings and of the hidden layer
    classifier_pooling: Literal["mean", "max", "last"] = "max"  # over the real tokens
    initializer_range: float = 0.1  # standard deviation of embeddings and heads
    tie_word_embeddings: bool = False  # the output layer reuses the embedding matrix
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs):
        if self.window < 1:
            raise ValueError(f"window must be at least 1 token, not {self.window}")
        if self.tie_word_embeddings and self.direct_connections:
            raise ValueError("tie_word_embeddings needs direct_connections=false")
        if self.tie_word_embeddings and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"tie_word_embeddings needs embedding_size ({self.embedding_size}) equal to "
                f"hidden_size ({self.hidden_size})"
            )
        super().__post_init__(**kwargs)


@dataclass
class FNNModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), or with direct connections (B, T, H + W·E), zero at padding."""

    last_hidden_state: torch.Tensor | None = None
    past_key_values: StateCache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class FNNCausalLMOutput(ModelOutput):
    """`logits` (B, T, V); `loss`: mean cross-entropy in nats per token, if labels were given."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: StateCache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class FNNLayer(GradientCheckpointingLayer):
    """(B, W−1+T, E) -> (B, T, H): position t sees the embeddings t−W+1 … t, and nothing later."""

    def __init__(self, config: FNNConfig):
        super().__init__()
        self.window = config.window
        self.direct_connections = config.direct_connections
        self.dense = nn.Linear(config.window * config.embedding_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        T = x.shape[1] - self.window + 1
        x = torch.cat([x[:, k : k + T] for k in range(self.window)], dim=-1)  # (B, T, W·E)
        hidden = self.dropout(torch.tanh(self.dense(x)))  # (B, T, H)
        return torch.cat([hidden, x], dim=-1) if self.direct_connections else hidden


class FNNPreTrainedModel(PreTrainedModel):
    config: FNNConfig
    config_class = FNNConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["FNNLayer"]  # noqa: RUF012 (as transformers declares it)
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FNNLayer):
            # The sum over the window keeps the scale of one embedding's coordinates
            init.normal_(module.dense.weight, std=module.dense.in_features**-0.5)


class FNNModel(FNNPreTrainedModel):
    def __init__(self, config: FNNConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([FNNLayer(config)])
        self.gradient_checkpointing = False
        self.post_init()

    @property
    def output_size(self) -> int:
        """Channels of `last_hidden_state`."""
        config = self.config
        return config.hidden_size + config.direct_connections * config.window * config.embedding_size

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: StateCache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> FNNModelOutput:
        """`input_ids` (B, T) or `inputs_embeds` (B, T, E); `attention_mask` (B, ≥ T): its last T columns count.

        Padding may stand on either side, or between tokens: windows skip it. Before the first token stand zeros.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        cache = past_key_values if past_key_values is not None else StateCache()

        embeddings = self.dropout(inputs_embeds)  # (B, T, E)
        B, T, E = embeddings.shape
        x = embeddings
        padding = order_real_first(attention_mask, T)
        if padding is not None:
            order, lengths = padding
            x = permute_positions(x, order)
        (past,) = cache.layers.get(0, (x.new_zeros(B, self.config.window - 1, E),))
        x = torch.cat([past.to(x.dtype), x], dim=1)  # (B, W−1+T, E)
        if use_cache:  # the last W−1 real tokens of each row
            end = torch.full((B,), T, device=x.device) if padding is None else lengths
            kept = end[:, None] + torch.arange(self.config.window - 1, device=x.device)
            cache.layers[0] = (x.gather(1, kept[:, :, None].expand(-1, -1, E)),)
            cache.seen_tokens += T
        x = self.layers[0](x)
        if padding is not None:
            assert attention_mask is not None
            is_real = attention_mask[:, -T:, None].to(x.dtype)  # (B, T, 1)
            x = permute_positions(x, order.argsort(dim=1)) * is_real
        return FNNModelOutput(
            last_hidden_state=x,
            past_key_values=cache if use_cache else None,
            hidden_states=(embeddings, x) if output_hidden_states else None,
        )


class FNNForCausalLM(FNNPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (likewise)

    def __init__(self, config: FNNConfig):
        super().__init__(config)
        self.model = FNNModel(config)
        self.lm_head = nn.Linear(self.model.output_size, config.vocab_size)  # U and W side by side, and b
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the model makes its own StateCache

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: StateCache | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> FNNCausalLMOutput:
        """`labels` (B, T) equal `input_ids`, -100 where ignored: the loss shifts them."""
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_hidden_states=kwargs.pop("output_hidden_states", None),
            return_dict=True,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep, :])  # (B, T, V)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return FNNCausalLMOutput(loss, logits, outputs.past_key_values, outputs.hidden_states)


class FNNForSequenceClassification(FNNPreTrainedModel):
    def __init__(self, config: FNNConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = FNNModel(config)
        self.score = nn.Linear(self.model.output_size, len(config.id2label or {}))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """`labels` (B,): class ids, or floats for regression; (B, labels) for several labels at once."""
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            output_hidden_states=kwargs.pop("output_hidden_states", None),
            return_dict=True,
        )
        pooled = pool(outputs.last_hidden_state, attention_mask, self.config.classifier_pooling)
        logits = self.score(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config, **kwargs)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


AutoConfig.register("fnn", FNNConfig)
AutoModel.register(FNNConfig, FNNModel)
AutoModelForCausalLM.register(FNNConfig, FNNForCausalLM)
AutoModelForSequenceClassification.register(FNNConfig, FNNForSequenceClassification)
