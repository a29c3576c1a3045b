"""What a token looked at: the attention weights of a transformer, for one text, and their picture."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 60  # tokens: of more, no one could read the names


def has_attention(model: PreTrainedModel) -> bool:
    """Whether the model is one stack of attention layers, as GPT-2 and BERT are; RNN and FNN have none."""
    layers = getattr(model.config, "num_attention_heads", None)
    return isinstance(layers, int) and not model.config.is_encoder_decoder


def looking(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model that gives its weights out: the fast kernels that it computes with do not keep them."""
    copied = copy.deepcopy(model)
    copied.set_attn_implementation("eager")
    return copied.eval()


def weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[str], np.ndarray]:
    """The tokens of `text`, its first `LONGEST`, and who looked at whom.

    Args:
        model: as `looking` returns it.

    Returns:
        The tokens as they are read, and an array (layers, heads, tokens that look, tokens looked at): rows sum to 1.
    """
    import torch

    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST).to(model.device)
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True, use_cache=False).attentions
    ids = inputs["input_ids"][0].tolist()
    names = [str(tokenizer.decode([token])) or str(token) for token in ids]
    return names, torch.stack([layer[0].float() for layer in attentions]).cpu().numpy()


def picture(names: Sequence[str], shares: np.ndarray, title: str) -> Figure:
    """Rows look at columns; the darker, the more of the row's attention.

    Args:
        shares: (tokens, tokens), rows that sum to 1.
    """
    from matplotlib.figure import Figure  # by itself, without pyplot: a page's requests come in threads

    side = min(max(4.0, 0.32 * len(names) + 1.5), 14.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=max(float(shares.max()), 1e-9))
    figure.colorbar(drawn, label="share of the row's attention", shrink=0.8)
    shown = [name.replace("\n", "⏎").replace("$", r"\$") for name in names]
    axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=9)
    axes.set_yticks(range(len(shown)), shown, fontsize=9)
    axes.set(xlabel="token looked at", ylabel="token that looks", title=title)
    return figure


def chosen(attention: np.ndarray, layer: int, head: int | None) -> np.ndarray:
    """(tokens, tokens) of a layer, from 1, and of a head, from 1; None: the mean of its heads."""
    of_layer: Any = attention[layer - 1]
    return of_layer.mean(axis=0) if head is None else of_layer[head - 1]
