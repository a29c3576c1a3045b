"""A recurrent network over tokens (LSTM, GRU, or a plain tanh or ReLU cell): language model and classifiers.

LSTM: Hochreiter and Schmidhuber 1997; GRU: Cho et al. 2014; as an LM: Zaremba et al. 2014; tied embeddings: Press and
Wolf 2017; the regularisation of AWD-LSTM: Merity et al. 2017, *Regularizing and Optimizing LSTM Language Models*.
Shapes: B batch, T positions, E embedding size, H hidden size (2 H where both directions are read), V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from .requirement import TRANSFORMERS  # noqa: F401  before what an older transformers has not

# isort: split
import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.import_utils import is_torchdynamo_exporting
from transformers.utils.output_capturing import capture_outputs

from .heads import CausalLMHead, SequenceClassifierHead, TokenClassifierHead
from .keywords import one_cache
from .sequence import Padding, SequenceConfig, SequencePreTrainedModel, dropout, take
from .state import CACHE_NAME

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN, "relu": nn.RNN}


@strict
class RNNConfig(SequenceConfig):
    """Sizes and regularisation of an RNN."""

    model_type = "hf_llm_rnn"

    cell: Literal["lstm", "gru", "tanh", "relu"] = "lstm"
    bidirectional: bool = False  # also read from the end, with `hidden_size` channels more: for classifiers
    locked_dropout: bool = False  # `dropout` has one mask for all positions of a row
    embedding_dropout: float | int = 0.0  # share of the vocabulary whose embeddings are zero in a step
    weight_dropout: float | int = 0.0  # of the hidden-to-hidden weights (DropConnect)
    activation_regularization: float | int = 0.0  # AR: α of the paper, on the squares of the last layer's output
    temporal_activation_regularization: float | int = 0.0  # TAR: its β, on the squares of that output's changes

    shares: ClassVar[tuple[str, ...]] = (*SequenceConfig.shares, "embedding_dropout", "weight_dropout")
    strengths: ClassVar[tuple[str, ...]] = (
        *SequenceConfig.strengths,
        "activation_regularization",
        "temporal_activation_regularization",
    )

    @property
    def output_hidden_size(self) -> int:
        return self.hidden_size * (1 + self.bidirectional)


@dataclass
class RNNModelOutput(BaseModelOutputWithPast):
    """`last_hidden_state` (B, T, H), zero at padding; `hidden_states`: the embeddings, then each layer's output;
    `penalty`: the activation regularisation, in training where the config asks for it."""

    penalty: torch.Tensor | None = None


class RNNLayer(GradientCheckpointingLayer):
    """One recurrent layer."""

    def __init__(self, config: RNNConfig, input_size: int):
        super().__init__()
        options = {} if config.cell in ("lstm", "gru") else {"nonlinearity": config.cell}
        self.cell = CELLS[config.cell](
            input_size, config.hidden_size, batch_first=True, bidirectional=config.bidirectional, **options
        )
        self.residual = config.residual and input_size == config.hidden_size * (1 + config.bidirectional)
        self.weight_dropout = config.weight_dropout
        self.bidirectional = config.bidirectional  # PEFT's wrapper of a cell does not say

    def forward(
        self,
        x: torch.Tensor,
        padding: Padding | None = None,
        use_cache: bool = False,
        *state: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """`x` (B, T, C) -> (B, T, H), then h (and c), (B, H), after the last real token of each row.

        The state is no tuple of its own: reentrant checkpointing would not see that it has a gradient.
        """
        past: Any = None
        if state:  # torch wants (1, B, H), in a tuple only where there is a c too
            past = tuple(s[None] for s in state) if len(state) > 1 else state[0][None]
        front = x if padding is None else padding.to_front(x)
        if padding is None or x.shape[1] == 1 or not (use_cache or self.bidirectional):
            y, new = self._run(front, past)  # what is read after a row's end changes nothing before it
        elif is_torchdynamo_exporting():
            y, new = self._export(front, padding.lengths, past)
        else:  # each row has to stop, or to begin, at its own end
            lengths = padding.lengths.clamp(min=1).cpu()
            packed = pack_padded_sequence(front, lengths, batch_first=True, enforce_sorted=False)
            packed, new = self._run(packed, past)
            y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        if padding is not None:
            y = padding.restore(y)
        if self.residual:
            y = y + x if padding is None else y + x * padding.is_real[:, :, None]
        if not use_cache:
            return (y,)
        new = tuple(s[0] for s in (new if isinstance(new, tuple) else (new,)))
        if padding is not None:  # a row of nothing but padding has read nothing
            before = state or tuple(torch.zeros_like(s) for s in new)
            has_read = (padding.lengths > 0)[:, None]
            new = tuple(torch.where(has_read, after, s) for after, s in zip(new, before, strict=True))
        return y, *new

    def _run(self, x: Any, past: Any) -> tuple[Any, Any]:
        if not (self.training and self.weight_dropout):
            return self.cell(x, past)
        weights = self._weights()
        kept, self.cell._flat_weights = self.cell._flat_weights, weights
        try:
            return self.cell(x, past)
        finally:
            self.cell._flat_weights = kept

    def _weights(self) -> list[torch.Tensor]:
        """Of each direction: input to hidden, hidden to hidden, and the biases of both; with their dropout."""
        # torch's cells compute with a list: of their parameters, of what torch.func has put in their place, or in a
        # replica of DataParallel, which has no parameters, of its copies.
        self.cell._update_flat_weights()
        return [
            dropout(weight, self.weight_dropout, self.training) if name.startswith("weight_hh") else weight
            for name, weight in zip(self.cell._flat_weights_names, self.cell._flat_weights, strict=True)
        ]

    def _export(self, x: torch.Tensor, lengths: torch.Tensor, past: Any) -> tuple[torch.Tensor, tuple]:
        """What packed rows would yield, in operations that `torch.export` can trace: it packs none."""
        zeros = x.new_zeros(1, x.shape[0], self.cell.hidden_size)
        start = (zeros, zeros) if isinstance(self.cell, nn.LSTM) else zeros
        positions = torch.arange(x.shape[1], device=x.device)[None]  # (1, T)
        last = (lengths[:, None] - 1).clamp(min=0)  # (B, 1)
        weights = self._weights()
        if self.cell.bidirectional:
            turned = (last - positions).clamp(min=0)  # (B, T): each row from its own end
            forth, *_ = self._one_way(x, start, weights[:4])
            back, *_ = self._one_way(take(x, turned), start, weights[4:])
            return torch.cat((forth, take(back, turned)), dim=-1), ()
        start = start if past is None else past
        if not isinstance(self.cell, nn.LSTM):
            y, _ = self._one_way(x, start, weights)
            return y, (take(y, last).transpose(0, 1),)
        # No output tells an LSTM's cells. A channel that says where a row is over opens the forget gate there, and
        # shuts the input gate, so wide that the cells stay exactly as they are.
        is_over = (positions >= lengths[:, None])[:, :, None].to(x.dtype)
        input_to_hidden, *rest = weights
        gates = input_to_hidden.new_tensor([-1e4, 1e4, 0, 0])  # input, forget, cell, output
        is_over_to_hidden = gates.repeat_interleave(self.cell.hidden_size)[:, None]
        widened = [torch.cat((input_to_hidden, is_over_to_hidden), dim=1), *rest]
        y, _, c = self._one_way(torch.cat((x, is_over), dim=-1), start, widened)
        return y, (take(y, last).transpose(0, 1), c)

    def _one_way(self, x: torch.Tensor, state: Any, weights: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        run: Any = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}
        options = {"has_biases": True, "num_layers": 1, "dropout": 0.0, "bidirectional": False, "batch_first": True}
        return run[self.cell.mode](x, state, weights, **options, train=self.training)


class RNNPreTrainedModel(SequencePreTrainedModel):
    config: RNNConfig
    config_class = RNNConfig
    _no_split_modules = ["RNNLayer"]  # noqa: RUF012 (as transformers declares it)
    _can_record_outputs = {"hidden_states": RNNLayer}  # noqa: RUF012 (likewise)

    def __init__(self, config: RNNConfig, *args: Any, **kwargs: Any):
        _refuse_quantization(getattr(config, "quantization_config", None))
        super().__init__(config, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, quantization_config: Any = None, **kwargs: Any) -> Any:
        """transformers' own, which refuses to quantise what it would leave as it is."""
        _refuse_quantization(quantization_config)
        return super().from_pretrained(*args, **kwargs)


def _refuse_quantization(quantization_config: Any) -> None:
    if quantization_config is not None:
        raise ValueError(
            "quantization_config: transformers quantises linear layers, and the weights of an RNN are in torch's "
            "recurrent cells, so that nothing would be quantised; leave it out"
        )


class RNNModel(RNNPreTrainedModel):
    def __init__(self, config: RNNConfig):
        super().__init__(config)
        self.output_size = config.output_hidden_size
        sizes = [config.input_size, *[self.output_size] * (config.num_hidden_layers - 1)]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.input_size)
        self.layers = nn.ModuleList(RNNLayer(config, size) for size in sizes)
        self.gradient_checkpointing = False
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs,
    ) -> RNNModelOutput:
        """`input_ids` (B, T) or `inputs_embeds` (B, T, E); `attention_mask` (B, ≥ T): its last T columns count.

        Padding may stand on either side, or between tokens: it is skipped, not read. `cache`, before transformers 5.24
        `past_key_values`, is the state to go on from.
        """
        cache = self.checked(one_cache(past_key_values, cache))
        if cache is not None and self.config.bidirectional:
            raise ValueError("a bidirectional RNN reads from the end too: it cannot go on from past_key_values")
        inputs_embeds, padding = self.embedded(input_ids, inputs_embeds, attention_mask, cache, kwargs)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        use_cache = use_cache and not self.config.bidirectional
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        layers: Any = cache.layers if cache is not None else None
        T = inputs_embeds.shape[1]

        x = self._dropout(inputs_embeds)  # (B, T, E)
        for index, layer in enumerate(self.layers):
            state = layers[index].states if layers else ()
            y, *new = layer(x, padding, use_cache, *state)
            if layers and use_cache:
                layers[index].advance(tuple(new), num_tokens=T)
            x = self._dropout(y)
        return RNNModelOutput(
            last_hidden_state=x,
            penalty=self._penalty(x, y, padding) if self.training else None,
            **cast(Any, {CACHE_NAME: cache if use_cache else None}),
        )

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        embeddings = super().embed(input_ids)
        if not (self.training and self.config.embedding_dropout):
            return embeddings
        words = torch.ones(self.config.vocab_size, 1, device=embeddings.device, dtype=embeddings.dtype)
        kept = dropout(words, self.config.embedding_dropout)
        return embeddings * kept[input_ids.to(kept.device)]

    def _dropout(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.config.dropout, self.training, self.config.locked_dropout)

    def _penalty(self, dropped: torch.Tensor, raw: torch.Tensor, padding: Padding | None) -> torch.Tensor | None:
        """AR on the last layer's output after dropout and TAR on it before, means over the numbers at real tokens."""
        alpha, beta = self.config.activation_regularization, self.config.temporal_activation_regularization
        if not (alpha or beta):
            return None
        real = torch.ones_like(raw[:, :, :1], dtype=torch.bool) if padding is None else padding.is_real[:, :, None]
        both = real[:, 1:] & real[:, :-1]
        changes = raw[:, 1:] - raw[:, :-1]
        return alpha * _mean_square(dropped, real) + beta * _mean_square(changes, both)


def _mean_square(x: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return (x.float().square() * where).sum() / (where.sum() * x.shape[-1]).clamp(min=1)


class RNNForCausalLM(CausalLMHead, RNNPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    base_class = RNNModel

    def __init__(self, config: RNNConfig):
        if config.bidirectional:
            raise ValueError(
                "bidirectional=true reads the tokens that a causal language model is to predict; "
                "it is for classifiers: set bidirectional=false"
            )
        super().__init__(config)


class RNNForSequenceClassification(SequenceClassifierHead, RNNPreTrainedModel):
    base_class = RNNModel


class RNNForTokenClassification(TokenClassifierHead, RNNPreTrainedModel):
    base_class = RNNModel


# Saved weights bring this file along, so that they load where this package is not installed, with trust_remote_code
RNNConfig.register_for_auto_class()
RNNModel.register_for_auto_class("AutoModel")
RNNForCausalLM.register_for_auto_class("AutoModelForCausalLM")
RNNForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
RNNForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
