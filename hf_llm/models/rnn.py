"""A recurrent network over tokens, LSTM or GRU, as a causal LM and as a classifier.

LSTM: Hochreiter and Schmidhuber 1997; GRU: Cho et al. 2014; as an LM: Zaremba et al. 2014; tied embeddings: Press and
Wolf 2017. Shapes: B batch, T positions, E embedding size, H hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
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


class RNNConfig(PreTrainedConfig):
    """Sizes of an RNN. `embedding_size=None` means `hidden_size`."""

    model_type = "rnn"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = 8192
    cell: Literal["lstm", "gru"] = "lstm"
    hidden_size: int = 256
    num_hidden_layers: int = 2
    embedding_size: int | None = None
    dropout: float = 0.1  # of the embeddings and of every layer's output
    classifier_pooling: Literal["mean", "max", "last"] = "max"  # over the real tokens
    initializer_range: float = 0.1  # standard deviation of embeddings and heads
    tie_word_embeddings: bool = False  # the output layer reuses the embedding matrix
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs):
        if self.cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, not {self.cell!r}")
        if self.embedding_size is None:
            self.embedding_size = self.hidden_size
        if self.tie_word_embeddings and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"tie_word_embeddings needs embedding_size ({self.embedding_size}) equal to "
                f"hidden_size ({self.hidden_size})"
            )
        super().__post_init__(**kwargs)


CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


@dataclass
class RNNModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), zero at padding; `hidden_states`: the embeddings, then each layer's output."""

    last_hidden_state: torch.Tensor | None = None
    past_key_values: StateCache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class RNNCausalLMOutput(ModelOutput):
    """`logits` (B, T, V); `loss`: mean cross-entropy in nats per token, if labels were given."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: StateCache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class RNNLayer(GradientCheckpointingLayer):
    """One recurrent layer and the dropout of its output."""

    def __init__(self, config: RNNConfig, input_size: int):
        super().__init__()
        self.cell = CELLS[config.cell](input_size, config.hidden_size, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: torch.Tensor,
        state: tuple[torch.Tensor, ...] | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """`x` (B, T, C) -> (B, T, H), and h (and c), (B, H), after the first `lengths` (B) positions of each row."""
        past: Any = None
        if state is not None:  # torch wants (1, B, H), in a tuple only where there is a c too
            past = tuple(s[None] for s in state) if len(state) > 1 else state[0][None]
        if lengths is None:
            x, new = self.cell(x, past)
        else:
            packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
            packed, new = self.cell(packed, past)
            x, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        new = tuple(s[0] for s in (new if isinstance(new, tuple) else (new,)))
        if lengths is not None:  # a row of nothing but padding has read nothing
            before = state if state is not None else tuple(torch.zeros_like(s) for s in new)
            has_read = (lengths > 0)[:, None]
            new = tuple(torch.where(has_read, after, s) for after, s in zip(new, before, strict=True))
        return self.dropout(x), new


class RNNPreTrainedModel(PreTrainedModel):
    config: RNNConfig
    config_class = RNNConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RNNLayer"]  # noqa: RUF012 (as transformers declares it)
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not isinstance(module, (nn.LSTM, nn.GRU)):
            super()._init_weights(module)
            return
        H = module.hidden_size
        for name, parameter in module.named_parameters():
            init.uniform_(parameter, -(H**-0.5), H**-0.5)
            # Gates lie in the order input, forget, cell, output. A forget gate that starts open lets gradients through
            # (Jozefowicz et al. 2015). A slice loses the flag that says that it was loaded, hence the check.
            is_loaded = getattr(parameter, "_is_hf_initialized", False)
            if isinstance(module, nn.LSTM) and name.startswith("bias_ih") and not is_loaded:
                init.ones_(parameter[H : 2 * H])


class RNNModel(RNNPreTrainedModel):
    def __init__(self, config: RNNConfig):
        super().__init__(config)
        E = config.embedding_size or config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, E)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            RNNLayer(config, config.hidden_size if index else E) for index in range(config.num_hidden_layers)
        )
        self.gradient_checkpointing = False
        self.post_init()

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
    ) -> RNNModelOutput:
        """`input_ids` (B, T) or `inputs_embeds` (B, T, E); `attention_mask` (B, ≥ T): its last T columns count.

        Padding may stand on either side, or between tokens: it is skipped, not read.
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

        x = self.dropout(inputs_embeds)  # (B, T, E)
        T = x.shape[1]
        padding = order_real_first(attention_mask, T)
        if padding is not None:
            order, real = padding
            back = order.argsort(dim=1)
            assert attention_mask is not None
            is_real = attention_mask[:, -T:, None].to(x.dtype)  # (B, T, 1)
            x = permute_positions(x, order)
        # Only who wants the final state pays for stopping each row at its own end.
        lengths = real if padding is not None and use_cache else None
        hidden_states = []
        for index, layer in enumerate([None, *self.layers]):
            if layer is not None:
                x, state = layer(x, cache.layers.get(index), lengths)
                if use_cache:
                    cache.layers[index] = state
            if output_hidden_states or index == len(self.layers):
                hidden_states.append(x if padding is None else permute_positions(x, back) * is_real)
        if use_cache:
            cache.seen_tokens += T
        return RNNModelOutput(
            last_hidden_state=hidden_states[-1],
            past_key_values=cache if use_cache else None,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
        )


class RNNForCausalLM(RNNPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (likewise)

    def __init__(self, config: RNNConfig):
        super().__init__(config)
        self.model = RNNModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
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
    ) -> RNNCausalLMOutput:
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
        return RNNCausalLMOutput(loss, logits, outputs.past_key_values, outputs.hidden_states)


class RNNForSequenceClassification(RNNPreTrainedModel):
    def __init__(self, config: RNNConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = RNNModel(config)
        self.score = nn.Linear(config.hidden_size, len(config.id2label or {}))
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
        pooled = pool(outputs.last_hidden_state, attention_mask, self.config.classifier_pooling)  # (B, H)
        logits = self.score(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config, **kwargs)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


AutoConfig.register("rnn", RNNConfig)
AutoModel.register(RNNConfig, RNNModel)
AutoModelForCausalLM.register(RNNConfig, RNNForCausalLM)
AutoModelForSequenceClassification.register(RNNConfig, RNNForSequenceClassification)
