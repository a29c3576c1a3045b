"""What a sequence model is for: the language model, the classifier of texts and the classifier of tokens.

Each is made of a base model, `model`, whose class the subclass names in `base_class`, and a linear head. This file
travels with saved weights. B: batch, T: positions, C: channels of the base model's output, V: vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple

from .sequence import SequencePreTrainedModel, StateCache, find_padding


@dataclass
class LanguageModelOutput(CausalLMOutputWithPast):
    """`loss` in nats per token, if labels were given, with `penalty` in it: what training adds to the cross-entropy
    (activation regularisation), if anything. `logits` (B, T, V)."""

    penalty: torch.Tensor | None = None


@dataclass
class TextClassifierOutput(SequenceClassifierOutputWithPast):
    """`loss`, with `penalty` in it as in `LanguageModelOutput`. `logits` (B, num_labels)."""

    penalty: torch.Tensor | None = None


@dataclass
class WordClassifierOutput(TokenClassifierOutput):
    """`loss`, with `penalty` in it as in `LanguageModelOutput`. `logits` (B, T, num_labels)."""

    penalty: torch.Tensor | None = None


class CausalLMHead(SequencePreTrainedModel):
    """y = W h + b; tied, W is the embedding matrix, and where h has another size than an embedding, W P h + b."""

    base_class: ClassVar[type[SequencePreTrainedModel]]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (as transformers declares it)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Trainer's label smoothing compares logits with the next tokens for the classes named here, and for other
        # classes with the tokens themselves.
        if cls.config_class is not None:
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(cls.config_class.model_type, cls.__name__)

    def __init__(self, config: Any):
        super().__init__(config)
        self.model = self.base_class(config)
        size: int = self.model.output_size
        self.projection = None
        if config.tie_word_embeddings and size != config.input_size:
            self.projection = nn.Linear(size, config.input_size, bias=False)
            size = config.input_size
        self.lm_head = nn.Linear(size, config.vocab_size)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the model makes its own StateCache

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *args, **kwargs):
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)  # type: ignore[misc]
        in_chunks = generation_config.prefill_chunk_size is not None and generation_config.use_cache is not False
        if in_chunks and model_kwargs.get("past_key_values") is None:  # which `generate` wants to have at hand
            model_kwargs["past_key_values"] = StateCache(self.config.num_hidden_layers)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> LanguageModelOutput:
        """`labels` (B, T) equal `input_ids`, -100 where ignored: the loss shifts them. Logits are (B, T, V).

        In kwargs: `shift_labels` (B, T), labels that are shifted already; `num_items_in_batch`, what the summed loss
        is divided by, in place of the labels that count.
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **_output_options(kwargs),
        )
        hidden = _kept(outputs.last_hidden_state, logits_to_keep)
        if self.projection is not None:
            hidden = self.projection(hidden)
        logits = self.lm_head(hidden)
        penalty = outputs.get("penalty")
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
            targets = kwargs.get("shift_labels")
            loss = _with_penalty(loss, penalty, labels[:, 1:] if targets is None else targets, **kwargs)
        return LanguageModelOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            penalty=penalty,
        )


def _kept(hidden: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """The positions of `hidden` (B, T, H) that logits are wanted of: the last so many (0: all), or those of a tensor,
    1-D for every row, 2-D for each, where a boolean one is a mask (B, T).

    transformers has it as `slice_logits_to_keep` from 5.21 on, which leaves Python 3.10 behind.
    """
    if isinstance(logits_to_keep, int):
        return hidden[:, slice(-logits_to_keep, None)]
    if logits_to_keep.ndim == 1:
        return hidden[:, logits_to_keep]
    if logits_to_keep.dtype == torch.bool:
        return hidden[logits_to_keep]
    return hidden.take_along_dim(logits_to_keep[..., None], dim=1)


class SequenceClassifierHead(SequencePreTrainedModel):
    """Logits over the classes from one vector per text, pooled over its real tokens by `config.classifier_pooling`."""

    base_class: ClassVar[type[SequencePreTrainedModel]]

    def __init__(self, config: Any):
        super().__init__(config)
        self.num_labels: int = config.num_labels
        self.model = self.base_class(config)
        size: int = self.model.output_size
        self.attention = None
        if config.classifier_pooling == "attention":
            self.attention = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False))
        self.score = nn.Linear(size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> TextClassifierOutput:
        """`labels` (B,): class ids, or floats for regression; (B, num_labels) floats for several labels at once."""
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            **_output_options(kwargs),
        )
        x = outputs.last_hidden_state
        scores = None if self.attention is None else self.attention(x)
        logits = self.score(pool(x, attention_mask, self.config.classifier_pooling, scores))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config, **kwargs)
            if kwargs.get("num_items_in_batch") is not None and _ignores_item_count(self.config.problem_type):
                loss = loss * labels.numel() / kwargs["num_items_in_batch"]
            loss = _with_penalty(loss, outputs.get("penalty"), labels, **kwargs)
        return TextClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, penalty=outputs.get("penalty")
        )


class TokenClassifierHead(SequencePreTrainedModel):
    """Logits over the classes for each token."""

    base_class: ClassVar[type[SequencePreTrainedModel]]

    def __init__(self, config: Any):
        super().__init__(config)
        self.num_labels: int = config.num_labels
        self.model = self.base_class(config)
        self.score = nn.Linear(self.model.output_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ) -> WordClassifierOutput:
        """`labels` (B, T): class ids, -100 where none counts. Logits are (B, T, num_labels)."""
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            **_output_options(kwargs),
        )
        logits = self.score(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config, **kwargs)
            loss = _with_penalty(loss, outputs.get("penalty"), labels, **kwargs)
        return WordClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, penalty=outputs.get("penalty")
        )


def pool(
    x: torch.Tensor, attention_mask: torch.Tensor | None, how: str, scores: torch.Tensor | None = None
) -> torch.Tensor:
    """One vector per row, (B, T, C) -> (B, C), over its real tokens; zeros for a row of nothing but padding.

    `how`: their `mean`, `max`, the `last` of them, or by `attention` their mean weighted with the softmax of `scores`
    (B, T, 1) (Yang et al. 2016, *Hierarchical Attention Networks for Document Classification*).
    """
    padding = find_padding(attention_mask, *x.shape[:2])
    is_real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if padding is None else padding.is_real
    is_real = is_real.to(x.device)[:, :, None]  # (B, T, 1)
    if how == "last":
        T = x.shape[1]
        last = (is_real * torch.arange(1, T + 1, device=x.device)[:, None]).argmax(dim=1, keepdim=True)  # (B, 1, 1)
        return (x * is_real).gather(1, last.expand(-1, -1, x.shape[-1]))[:, 0]
    if how == "max":
        largest = x.masked_fill(~is_real, torch.finfo(x.dtype).min).amax(dim=1)
        return largest.masked_fill(~is_real.any(dim=1), 0.0)
    if scores is not None:
        weights = scores.masked_fill(~is_real, torch.finfo(scores.dtype).min).softmax(dim=1)
        return (x * weights * is_real).sum(dim=1)
    return (x * is_real).sum(dim=1) / is_real.sum(dim=1).clamp(min=1)


def _output_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Takes out of `kwargs` what says what the base model is to return; the rest is for the loss."""
    kwargs.pop("return_dict", None)  # can_return_tuple has seen to it
    return {name: kwargs.pop(name) for name in list(kwargs) if name.startswith("output_")}


def _with_penalty(
    loss: torch.Tensor,
    penalty: torch.Tensor | None,
    targets: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """A mean over the batch, the penalty counts by the part of an accumulated step's `targets` that are in it."""
    if penalty is None:
        return loss
    share = 1.0 if num_items_in_batch is None else (targets != -100).sum() / num_items_in_batch
    return loss + penalty * share


def _ignores_item_count(problem_type: str | None) -> bool:
    """Of transformers' losses of text classifiers only the cross-entropy divides by `num_items_in_batch`."""
    return problem_type in ("regression", "multi_label_classification")
