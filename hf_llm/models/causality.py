"""Whether a causal language model is one."""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ..config import InputError

logger = logging.getLogger(__name__)


@torch.no_grad()
def check_causal(model: PreTrainedModel) -> None:
    """Refuse a "causal LM" that sees what it predicts: changing the last token must not change earlier logits."""
    training = {module for module in model.modules() if module.training}
    vocab = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    ids = torch.arange(8, device=model.device)[None] % vocab
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % vocab
    model.eval()
    try:
        before, after = (model(input_ids=x).logits[0, :-1] for x in (ids, other))
    except Exception as error:  # some architectures want longer or other inputs; nothing is known against them
        logger.debug("no check that %s is causal: %s", model.config.model_type, error)
        return
    finally:
        for module in training:
            module.training = True
    if not torch.allclose(before, after, atol=1e-4):
        hint = (
            "set model.config.is_decoder=true"
            if hasattr(model.config, "is_decoder")
            else "choose another architecture"
        )
        raise InputError(
            f"model: {model.config.model_type} reads in both directions, so as a causal language model it would see "
            f"the tokens it is to predict; {hint}, or use it for text_classification"
        )
