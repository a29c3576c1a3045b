"""A model with random weights: its config from the architecture's defaults, the tokenizer and what was given."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..config import InputError, ModelConfig
from .limits import check_memory, check_purpose, position_capacity

logger = logging.getLogger(__name__)

PREFIX = "hf_llm_"  # of our model types, which transformers may not have for models of its own


def model_type_of(arch: str) -> str:
    """The `model_type` that `model.arch` means: ours first, by its name without the prefix."""
    return PREFIX + arch if PREFIX + arch in CONFIG_MAPPING else arch


def from_scratch(
    cfg: ModelConfig,
    auto_model: str,
    tokenizer: PreTrainedTokenizerBase,
    overrides: dict[str, Any],
    length: int | None,
) -> PreTrainedModel:
    """The model that `build` is asked for. Raises InputError for a config that makes none."""
    config, capacity = config_from_scratch(cfg, auto_model, tokenizer, overrides, length)
    if capacity is not None:
        logger.info("%s: positions raised from %d to %d, the length of the inputs", cfg.arch, capacity, length)
    with _mistakes_of(cfg.arch):
        return getattr(transformers, auto_model).from_config(config, dtype=config.dtype or torch.float32)


def config_from_scratch(
    cfg: ModelConfig,
    auto_model: str,
    tokenizer: PreTrainedTokenizerBase,
    overrides: dict[str, Any],
    length: int | None,
) -> tuple[PreTrainedConfig, int | None]:
    """The config, with positions for `length` tokens; and how many it had before, where these were too few."""
    assert cfg.arch is not None
    model_type = model_type_of(cfg.arch)
    if model_type not in CONFIG_MAPPING:
        near = get_close_matches(cfg.arch, CONFIG_MAPPING.keys(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "use a model_type of transformers, rnn or fnn"
        raise InputError(f"model.arch: there is no architecture {cfg.arch!r}; {hint}")
    check_purpose(CONFIG_MAPPING[model_type], f"model.arch={cfg.arch}", auto_model)

    given_vocab = overrides.setdefault("vocab_size", len(tokenizer))
    if isinstance(given_vocab, int) and given_vocab < len(tokenizer):
        raise InputError(
            f"model.config.vocab_size: {given_vocab} is less than the tokenizer's {len(tokenizer)} tokens; "
            "leave it out"
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):  # the defaults are those of some other vocabulary
        overrides.setdefault(name, getattr(tokenizer, name))

    with _mistakes_of(cfg.arch):
        config = AutoConfig.for_model(model_type, **overrides)
        if config.is_encoder_decoder and "SequenceClassification" in auto_model and tokenizer.eos_token_id is None:
            raise InputError(
                f"model.arch={cfg.arch}: an encoder–decoder classifies by its end-of-text token, which this tokenizer "
                "has not; choose bert, gpt2, rnn or fnn, or a tokenizer that ends each text (tokenizer.pretrained=…)"
            )
        _name_decoder_ends(config, tokenizer, overrides)
        with torch.device("meta"):  # no memory and no random numbers: only to look at it
            model = getattr(transformers, auto_model).from_config(config)
        check_memory(model, cfg.arch)
        capacity = position_capacity(model)
        if length is None or capacity is None or capacity >= length:
            return config, None
        _raise_positions(config, capacity, length, cfg)
        return config, capacity


def _raise_positions(config: PreTrainedConfig, capacity: int, length: int, cfg: ModelConfig) -> None:
    text_config = config.get_text_config()
    names = {"max_position_embeddings", text_config.attribute_map.get("max_position_embeddings")}
    given = sorted(name for name in names if name in cfg.config)
    if given:
        raise InputError(
            f"model.config.{given[0]}: {cfg.config[given[0]]} makes room for {capacity} tokens, fewer than the "
            f"{length} of an input; raise it, or lower task.block_size, task.max_length or its like"
        )
    text_config.max_position_embeddings += length - capacity


def _name_decoder_ends(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, given: Mapping[str, Any]) -> None:
    """What an encoder–decoder's targets begin with, as T5's and Marian's do with the pad token, and end with."""
    if not config.is_encoder_decoder:
        return
    if given.get("decoder_start_token_id") is None:
        config.decoder_start_token_id = tokenizer.pad_token_id
    if getattr(config, "forced_eos_token_id", None) is not None and given.get("forced_eos_token_id") is None:
        config.forced_eos_token_id = tokenizer.eos_token_id


@contextmanager
def _mistakes_of(arch: str | None) -> Iterator[None]:
    """What transformers and torch raise where a config makes no model, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:  # e.g. an activation function that there is not
        raise InputError(f"model.config: {arch} cannot be built from it: there is no {error}") from error
    except (
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        RuntimeError,
        StrictDataclassError,
    ) as error:
        raise InputError(f"model.config: {arch} cannot be built from it: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
