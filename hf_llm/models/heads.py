"""What a sequence model is for: the language model, the classifier of texts and the classifier of tokens.

Each is made of a base model, `model`, whose class the subclass names in `base_class`, and a linear head. This file
travels with saved weights. B: batch, T: positions, C: channels of the base model's output, V: vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from .requirement import TRANSFORMERS  # noqa: F401  before what an older transformers has not

# isort: split
import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from transformers.utils import can_return_tuple, logging

from .keywords import OF_THE_LOSS, has_read, is_tracing, one_cache
from .sequence import SequencePreTrainedModel, dropout, find_padding
from .state import CACHE_NAME

logger = logging.get_logger(__name__)


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

    def generate(self, inputs: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """transformers' own, which refuses a prompt without tokens.

        Raises:
            ValueError: a row of the prompt has none.
        """
        ids = kwargs.get("input_ids") if inputs is None else inputs
        prompt = ids if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
        if prompt is not None:
            _refuse_empty(prompt, kwargs.get("attention_mask"))
        return super().generate(inputs, *args, **kwargs)  # type: ignore[misc]

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs,
    ) -> dict[str, Any]:
        """transformers' own, which refuses a step that has lost the state of those before.

        Raises:
            RuntimeError: the cache did not come back: generation would go on from the last token alone.
        """
        is_step = next_sequence_length is not None and not is_first_iteration and kwargs.get("use_cache")
        if is_step and not has_read(kwargs.get(CACHE_NAME)):
            raise RuntimeError(
                f"{type(self).__name__} was handed no state of the tokens before, so it would go on from the last one "
                "alone: it keeps none, or this version of transformers is too new for it; set use_cache=False"
            )
        return super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,
            next_sequence_length=next_sequence_length,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )

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
        cache: Cache | None = None,
        **kwargs,
    ) -> LanguageModelOutput:
        """`labels` (B, T) equal `input_ids`, -100 where ignored: the loss shifts them. Logits are (B, T, V).

        `cache` is `past_key_values`, by its name since transformers 5.24.

        In kwargs: `shift_labels` (B, T), labels that are shifted already; `num_items_in_batch`, what the summed loss
        is divided by, in place of the labels that count.
        """
        of_the_loss = _taken(kwargs, OF_THE_LOSS)
        if self.training and labels is None and of_the_loss.get("num_items_in_batch") is not None:
            logger.warning_once(
                f"{type(self).__name__} was trained without labels: a loss made of its logits elsewhere has to "
                "compare each with the next token, which Trainer's label_smoothing_factor does only for models of "
                "transformers"
            )
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            past_key_values=one_cache(past_key_values, cache),
            use_cache=use_cache,
            **kwargs,
        )
        hidden = _kept(outputs.last_hidden_state, logits_to_keep)
        if self.projection is not None:
            hidden = self.projection(hidden)
        logits = self.lm_head(hidden)
        penalty = outputs.get("penalty")
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **of_the_loss)
            targets = of_the_loss.get("shift_labels")
            loss = _with_penalty(loss, penalty, labels[:, 1:] if targets is None else targets, **of_the_loss)
        return LanguageModelOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            penalty=penalty,
            **cast(Any, {CACHE_NAME: outputs.get(CACHE_NAME)}),
        )


def _refuse_empty(prompt: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
    """Raises ValueError where a row of `prompt` (B, T, …) is nothing, or nothing but padding."""
    if prompt.shape[1] == 0:
        raise ValueError("the prompt has no tokens: begin with one, e.g. that which begins a document")
    if attention_mask is None or is_tracing():
        return
    empty = (~attention_mask.bool().any(dim=-1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"the prompt of row {empty[0]} has no tokens, only padding: begin with one")


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
        """`labels` (B,): class ids, or floats for regression; (B, num_labels) floats for several labels at once.

        Without `attention_mask`, `config.pad_token_id` at the ends of a row is padding.
        """
        of_the_loss = _taken(kwargs, OF_THE_LOSS)
        kwargs.pop("use_cache", None)  # a classifier reads a text at once
        if attention_mask is None:
            attention_mask = _mask_of(self, input_ids, inputs_embeds)
        outputs = self.model(
            input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, use_cache=False, **kwargs
        )
        x = outputs.last_hidden_state
        scores = None if self.attention is None else self.attention(x)
        pooled = pool(x, attention_mask, self.config.classifier_pooling, scores)
        logits = self.score(dropout(pooled, self.config.classifier_dropout, self.training))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, pooled_logits=logits, config=self.config, **of_the_loss
            )
            if of_the_loss.get("num_items_in_batch") is not None and _ignores_item_count(self.config.problem_type):
                loss = loss * labels.numel() / of_the_loss["num_items_in_batch"]
            loss = _with_penalty(loss, outputs.get("penalty"), labels, **of_the_loss)
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
        """`labels` (B, T): class ids, -100 where none counts. Logits are (B, T, num_labels).

        Without `attention_mask`, `config.pad_token_id` at the ends of a row is padding.
        """
        of_the_loss = _taken(kwargs, OF_THE_LOSS)
        kwargs.pop("use_cache", None)  # a classifier reads a text at once
        if attention_mask is None:
            attention_mask = _mask_of(self, input_ids, inputs_embeds)
        outputs = self.model(
            input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, use_cache=False, **kwargs
        )
        logits = self.score(dropout(outputs.last_hidden_state, self.config.classifier_dropout, self.training))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config, **of_the_loss)
            loss = _with_penalty(loss, outputs.get("penalty"), labels, **of_the_loss)
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


def _mask_of(
    model: SequencePreTrainedModel, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None
) -> torch.Tensor | None:
    """The attention mask (B, T) that a classifier was not given: GPT-2's classifier finds padding by its token too.

    A pad token between others is text, as the end-of-text token may be both.
    """
    given = input_ids if inputs_embeds is None else inputs_embeds
    pad = model.config.pad_token_id
    if given is None or (given.shape[0] == 1 and pad is None):
        return None
    if input_ids is None or pad is None:
        if given.shape[0] > 1:
            missing = "the config has no pad_token_id" if input_ids is not None else "inputs_embeds have no tokens"
            logger.warning_once(
                f"{type(model).__name__} was given no attention_mask, and {missing}: padding is read as text"
            )
        return None
    is_token = (input_ids != pad).long()
    begun, not_ended = is_token.cummax(dim=1).values, is_token.flip(1).cummax(dim=1).values.flip(1)
    return begun * not_ended


def _taken(kwargs: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Takes `names` out of `kwargs`."""
    return {name: kwargs.pop(name) for name in names if name in kwargs}


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
