"""The loss of a causal LM without its (tokens × vocabulary) logits ever being in memory.

With 50,257 tokens in the vocabulary, the logits and their gradient are most of the memory and half of the time of a
small model's step. Here the output layer is bypassed: the model hands its hidden states to the loss, which multiplies
them with the output weights a few rows at a time (linear_cross_entropy.py).
B: batch, T: positions, N: rows (B·T), C: hidden size, V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel, is_compiled_module
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.loss.loss_utils import ForCausalLMLoss

from hf_llm.models import linear_cross_entropy as chunked
from hf_llm.models.linear_cross_entropy import IGNORED, linear_cross_entropy

# Measured on one thread, forward and backward, in one go and by linear_cross_entropy: 768 rows and 300 classes 2.5 and
# 2.8 ms, 700 and 1,000 14.6 and 11.8 ms, 700 and 2,000 29 and 23 ms.
_FEW_LOGITS = 2**19

RowsLoss = Callable[[torch.Tensor, nn.Linear, torch.Tensor], torch.Tensor]


def applies(model: nn.Module) -> bool:
    """Whether `causal_lm_loss` gives what the model's own loss gives. Found out once, with a toy input.

    False for models that do something between the output layer and the loss (scaled or soft-capped logits), that have
    another loss, or whose output weights are not at hand (FSDP, ZeRO 3, quantised, compiled).
    """
    if is_compiled_module(model):
        return False
    inner = extract_model_from_parallel(model)
    head = inner.get_output_embeddings() if isinstance(inner, PreTrainedModel) else None
    # Not by getattr: PEFT's models answer with what their base model has
    of_head, known = inner.__dict__.get("_fused_loss_applies", (None, None))
    if known is None or of_head is not head:
        known = _probe(inner)
        inner.__dict__["_fused_loss_applies"] = (head, known)
    return known


def causal_lm_loss(
    model: nn.Module,
    inputs: Mapping[str, Any],
    shift_labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """The cross-entropy of the next tokens, in nats: what `model(**inputs, labels=…).loss` gives, for less.

    Args:
        model: a causal LM of transformers or this package, bare or wrapped (DistributedDataParallel). Where it does
            not apply, the ordinary loss is computed.
        inputs: what the model takes (input_ids (B, T), attention_mask, …), without labels.
        shift_labels: (B, T), the token that follows each position, -100 where there is none or it does not count.
        num_items_in_batch: the sum of losses is divided by it (gradient accumulation); None: by the labels that count.
    """
    return loss_and_outputs(model, inputs, shift_labels, num_items_in_batch)[0]


def loss_and_outputs(
    model: nn.Module,
    inputs: Mapping[str, Any],
    shift_labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> tuple[torch.Tensor, Any]:
    """`causal_lm_loss`, and what else the model gave (its state); `logits` are no logits where the loss is fused."""
    if not applies(model):
        outputs = model(**inputs)
        targets = shift_labels.flatten().to(outputs.logits.device)
        total = F.cross_entropy(outputs.logits.flatten(0, 1).float(), targets, reduction="sum")
        loss = _divided(total, targets, num_items_in_batch)
        return loss + auxiliary_loss(model, outputs, targets, num_items_in_batch), outputs

    def mean_loss(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
        return _divided(_summed(hidden, head, targets), targets, num_items_in_batch)

    outputs = _run(model, inputs, shift_labels, mean_loss)
    penalty = outputs.get("penalty")  # in the loss already, as if this batch were all of the step
    if penalty is None or num_items_in_batch is None:
        return outputs.loss, outputs
    loss = outputs.loss - penalty
    return loss + auxiliary_loss(model, outputs, shift_labels.flatten(), num_items_in_batch), outputs


def auxiliary_loss(
    model: nn.Module, outputs: Any, targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor | float:
    """What a model adds to the cross-entropy of `targets`: the load balance of a router, activation regularisation.

    Means over the batch, they count in an accumulated step by its share of the tokens.
    """
    share = 1.0 if num_items_in_batch is None else (targets != IGNORED).sum() / num_items_in_batch
    loss: torch.Tensor | float = 0.0
    if outputs.get("aux_loss") is not None:  # mixtures of experts
        loss = loss + extract_model_from_parallel(model).router_aux_loss_coef * outputs.aux_loss * share
    if outputs.get("penalty") is not None:  # our RNN
        loss = loss + outputs.penalty * share
    return loss


@torch.no_grad()
def token_losses(model: nn.Module, inputs: Mapping[str, Any], shift_labels: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of each next token, in nats, (B, T) float32, 0 where the label is -100.

    Never holds more than a chunk of logits, unless the model does something else than `applies` knows.
    """
    if not applies(model):
        logits = model(**inputs).logits.float()
        losses = F.cross_entropy(logits.flatten(0, 1), shift_labels.flatten(), reduction="none")
        return losses.view_as(shift_labels)
    found = []

    def keep(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
        wanted = targets != IGNORED
        for h, t in _chunks(hidden[wanted], targets[wanted]):
            found.append(F.cross_entropy(F.linear(h, head.weight, head.bias).float(), t, reduction="none"))
        return hidden.new_zeros((), dtype=torch.float32)

    _run(model, inputs, shift_labels, keep)
    losses = torch.cat(found)
    wanted = (shift_labels != IGNORED).to(losses.device)
    return losses.new_zeros(shift_labels.shape).masked_scatter(wanted, losses)


def rows_at_once(rows: int, vocabulary: int) -> int:
    """Of how many of `rows` the fused loss holds the logits at a time."""
    return rows if rows * vocabulary <= _FEW_LOGITS else min(rows, chunked.ROWS_PER_CHUNK)


def _chunks(hidden: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(hidden.split(chunked.ROWS_PER_CHUNK), targets.split(chunked.ROWS_PER_CHUNK), strict=True)


def _divided(total: torch.Tensor, targets: torch.Tensor, count: torch.Tensor | int | None) -> torch.Tensor:
    if count is None:
        count = (targets != IGNORED).sum()
    return total / (count.to(total.device) if isinstance(count, torch.Tensor) else count)


def _summed(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of `hidden` (N, C) @ `head`ᵀ against `targets` (N)."""
    if len(hidden) * head.out_features <= _FEW_LOGITS:  # nothing to save
        return _chunk_sum(hidden, head.weight, head.bias, targets)
    exact = hidden.dtype in (torch.float32, torch.float64)
    if exact and not torch.is_autocast_enabled(hidden.device.type):
        return linear_cross_entropy(hidden, head.weight, head.bias, targets)
    # Gradients of 16 bits want the scale of the loss, which only backward knows: it computes the logits again.
    total = hidden.new_zeros((), dtype=torch.float32)
    for h, t in _chunks(hidden, targets):
        total = total + checkpoint(_chunk_sum, h, head.weight, head.bias, t, use_reentrant=False)
    return total


def _chunk_sum(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    return F.cross_entropy(F.linear(hidden, weight, bias).float(), targets, reduction="sum")


def _run(model: nn.Module, inputs: Mapping[str, Any], shift_labels: torch.Tensor, rows_loss: RowsLoss) -> Any:
    """The model's outputs, its loss computed by `rows_loss(hidden (N, C), head, targets (N))`.

    The loss is computed inside `forward`, so that DistributedDataParallel sees the output weights used, and autocast
    holds. The labels only switch the model's loss on; the targets are `shift_labels` whatever the model does to them.
    """
    inner = extract_model_from_parallel(model)
    head = inner.get_output_embeddings()
    targets = shift_labels.flatten()

    def loss_function(logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        hidden = logits.flatten(0, -2)
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(head.weight.dtype)  # some models upcast their logits
        return rows_loss(hidden, head, targets.to(hidden.device))

    with _bypassed(inner, head, lambda hidden: hidden, loss_function):
        return model(**inputs, labels=shift_labels, return_dict=True)


@contextmanager
def _bypassed(
    model: PreTrainedModel, head: nn.Module, head_forward: Callable, loss_function: Callable
) -> Iterator[None]:
    """For the time of a call, another `forward` of the output layer and another loss, then as it was."""
    before = [(head, "forward"), (model, "_loss_function")]
    saved = [(thing, name, thing.__dict__[name]) for thing, name in before if name in thing.__dict__]
    head.forward = head_forward
    model.loss_function = loss_function
    try:
        yield
    finally:
        for thing, name in before:
            thing.__dict__.pop(name, None)
        for thing, name, value in saved:
            thing.__dict__[name] = value


class _NotPlain(Exception):
    """The model does with its logits what the fused loss cannot."""


@torch.no_grad()
def _probe(model: nn.Module) -> bool:
    """Run a toy batch with a head that answers with marked values, and see whether just these reach the usual loss."""
    if not isinstance(model, PreTrainedModel) or model.loss_function is not ForCausalLMLoss:
        return False
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or hasattr(head, "_hf_hook") or head.weight.shape[:1] != (head.out_features,):
        return False
    sharded = "DTensor" in type(head.weight).__name__ or hasattr(head.weight, "ds_id")
    if sharded or head.weight.device.type == "meta":
        return False
    marked: list[torch.Tensor] = []

    def mark(hidden: torch.Tensor) -> torch.Tensor:
        if marked or hidden.shape[-1] != head.in_features:
            raise _NotPlain
        # Large and varied, so that no scaling or soft cap leaves them as they are
        marked.append(torch.arange(hidden.numel(), device=hidden.device).view_as(hidden).to(hidden.dtype) + 100)
        return marked[0]

    def loss_function(logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        same = bool(marked) and logits.shape == marked[0].shape and torch.equal(logits.to(marked[0].dtype), marked[0])
        if not same or set(kwargs) - {"logits", "labels", "vocab_size", "num_items_in_batch", "shift_labels"}:
            raise _NotPlain
        calls.append(None)
        return torch.zeros((), device=head.weight.device)

    calls: list[None] = []
    training = {module for module in model.modules() if module.training}
    ids = torch.arange(8, device=head.weight.device).view(2, 4) % head.out_features
    model.eval()
    try:
        with _bypassed(model, head, mark, loss_function):
            outputs = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, return_dict=True)
        return len(calls) == 1 and outputs.loss is not None
    except Exception:  # whatever it stumbles over, the ordinary loss is always right
        return False
    finally:
        for module in training:
            module.training = True
