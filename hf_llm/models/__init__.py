"""Models: any architecture of transformers, and the RNN and FNN of this package, from scratch or pretrained.

`build` is the only way in. Importing this module registers the architectures of its folder with transformers' Auto
classes: every module there with a config class that has a `model_type`, and models that name their Auto class by
`register_for_auto_class`.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from types import ModuleType
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..config import InputError, ModelConfig
from .causality import check_causal
from .checkpoint import load_config, load_weights, quiet
from .limits import check_positions, check_purpose
from .scratch import PREFIX, config_from_scratch, from_scratch

logger = logging.getLogger(__name__)


def register(module: ModuleType) -> None:
    """Makes the architectures that `module` defines known to AutoConfig, AutoModel, AutoModelForCausalLM, …

    One whose `model_type` has our prefix is also known by the rest of it, as its checkpoints of before have it, unless
    transformers has that name for a model of its own.
    """
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    for config_class in classes:
        if issubclass(config_class, PreTrainedConfig) and config_class.model_type:
            AutoConfig.register(config_class.model_type, config_class)
            before = config_class.model_type.removeprefix(PREFIX)
            if before not in CONFIG_MAPPING:
                CONFIG_MAPPING.register(before, config_class)
    for model_class in classes:
        if issubclass(model_class, PreTrainedModel) and model_class._auto_class:
            getattr(transformers, model_class._auto_class).register(model_class.config_class, model_class)


for _module in pkgutil.iter_modules(__path__):
    register(importlib.import_module(f"{__name__}.{_module.name}"))


def build(
    cfg: ModelConfig,
    *,
    auto_model: str,
    tokenizer: PreTrainedTokenizerBase,
    labels: list[str] | None = None,
    max_length: int | None = None,
    trained: bool = False,
) -> PreTrainedModel:
    """A model that fits the tokenizer, the labels and the length of the inputs.

    Args:
        cfg: an architecture with random weights (`arch`) or a checkpoint (`pretrained`), and overrides of its config.
        auto_model: the Auto class that says what for, e.g. "AutoModelForCausalLM".
        tokenizer: decides the vocabulary size, which a pretrained embedding is grown to, and the special token ids.
        labels: class names in the order of their ids, for a classifier.
        max_length: the longest input in tokens; positions for it are made, or found missing.
        trained: refuse a checkpoint that lacks some of the weights: it is to be used as it is.

    Weights are drawn from torch's global generator: seed it before. Raises InputError for what cannot be built.
    """
    if (cfg.arch is None) == (cfg.pretrained is None):
        found = "neither" if cfg.arch is None else "both"
        raise InputError(f"model: give model.arch or model.pretrained, one of them; here are {found}")
    overrides = {**cfg.config, **_label_names(labels)}
    if cfg.pretrained is not None:
        model = _from_checkpoint(cfg, auto_model, overrides, labels, max_length, trained)
    else:
        with quiet():
            model = from_scratch(cfg, auto_model, tokenizer, overrides, max_length)
    _fit_tokenizer(model, tokenizer)
    if auto_model == "AutoModelForCausalLM":
        check_causal(model)
        model.loss_type = "ForCausalLM"  # transformers reads it off the class name, and warns about GPT2LMHeadModel
    return model


def sketch(
    cfg: ModelConfig,
    *,
    auto_model: str,
    tokenizer: PreTrainedTokenizerBase,
    labels: list[str] | None = None,
    max_length: int | None = None,
) -> PreTrainedModel:
    """What `build` would make of the same arguments, with shapes and no numbers: on the device of the context that it
    is called in, which is to be torch's "meta", or one of a `FakeTensorMode`. No weights are read, no random number
    is drawn.

    Raises:
        InputError: as `build`, for all that can be known without the weights.
    """
    overrides = {**cfg.config, **_label_names(labels)}
    auto = getattr(transformers, auto_model)
    with quiet():
        if cfg.pretrained is not None:
            config = load_config(cfg.pretrained, cfg.revision, overrides, labels)
            check_purpose(type(config), f"model.pretrained={cfg.pretrained}, a {config.model_type}", auto_model)
            dtype = cfg.config.get("dtype") or torch.float32
        else:
            config, _ = config_from_scratch(cfg, auto_model, tokenizer, overrides, max_length)
            dtype = config.dtype or torch.float32
        model = auto.from_config(config, dtype=dtype)
        if cfg.pretrained is not None:
            check_positions(model, cfg.pretrained, max_length)
        if len(tokenizer) > cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model


def _label_names(labels: list[str] | None) -> dict[str, Any]:
    if labels is None:
        return {}
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def _from_checkpoint(
    cfg: ModelConfig,
    auto_model: str,
    overrides: dict[str, Any],
    labels: list[str] | None,
    length: int | None,
    trained: bool,
) -> PreTrainedModel:
    assert cfg.pretrained is not None
    config = load_config(cfg.pretrained, cfg.revision, overrides, labels)
    check_purpose(type(config), f"model.pretrained={cfg.pretrained}, a {config.model_type}", auto_model)
    model = load_weights(cfg.pretrained, cfg.revision, config, auto_model, cfg.config.get("dtype"), trained)
    check_positions(model, cfg.pretrained, length)
    return model


def _fit_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grow (never shrink) the embedding to the tokenizer, and let the configs name its special tokens."""
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    rows = embedding.weight.shape[0]
    if len(tokenizer) > rows:
        with quiet():  # it explains at length what the line below says
            model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
        logger.info(
            "embedding grown from %d to %d rows for new tokens, from the mean of the old", rows, len(tokenizer)
        )
    # Trainer would align these too, with a warning that reads like a mistake of the user's.
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        token_id = getattr(tokenizer, name)
        if token_id is None:
            continue
        setattr(model.config.get_text_config(), name, token_id)
        generation = getattr(model, "generation_config", None)
        if generation is not None:
            several = getattr(generation, name, None)
            if not (isinstance(several, list) and token_id in several):
                setattr(generation, name, token_id)
    if model.config.is_encoder_decoder and getattr(model.config, "decoder_start_token_id", None) is None:
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = tokenizer.pad_token_id
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    if getattr(embedding, "padding_idx", None) is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        embedding.padding_idx = None  # its row gets no gradient, and the end of a text has to be learnt
