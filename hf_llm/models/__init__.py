"""Models: any architecture of transformers, and the RNN and FNN of this package, from scratch or pretrained.

`build` is the only way in. Importing this module registers the architectures of its folder with transformers' Auto
classes: every module there with a config class that has a `model_type`, and models that name their Auto class by
`register_for_auto_class`.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from types import ModuleType
from typing import Any, cast

import psutil
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..config import InputError, ModelConfig
from .causality import check_causal
from .checkpoint import load_config, load_weights, quiet

logger = logging.getLogger(__name__)

_PURPOSES = {
    "AutoModelForCausalLM": "a causal language model",
    "AutoModelForMaskedLM": "a masked language model",
    "AutoModelForSeq2SeqLM": "a sequence-to-sequence model",
    "AutoModelForSequenceClassification": "a text classifier",
    "AutoModelForTokenClassification": "a tagger of words",
    "AutoModelForQuestionAnswering": "a finder of answers",
}


def register(module: ModuleType) -> None:
    """Makes the architectures that `module` defines known to AutoConfig, AutoModel, AutoModelForCausalLM, …"""
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    for config_class in classes:
        if issubclass(config_class, PreTrainedConfig) and config_class.model_type:
            AutoConfig.register(config_class.model_type, config_class)
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
            model = _from_scratch(cfg, auto_model, tokenizer, overrides, max_length)
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
            _check_purpose(type(config), f"model.pretrained={cfg.pretrained}, a {config.model_type}", auto_model)
            dtype = cfg.config.get("dtype") or torch.float32
        else:
            config, _ = _config_from_scratch(cfg, auto_model, tokenizer, overrides, max_length)
            dtype = config.dtype or torch.float32
        model = auto.from_config(config, dtype=dtype)
        if cfg.pretrained is not None:
            _check_positions(model, cfg.pretrained, max_length)
        if len(tokenizer) > cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model


def _label_names(labels: list[str] | None) -> dict[str, Any]:
    if labels is None:
        return {}
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def _from_scratch(
    cfg: ModelConfig,
    auto_model: str,
    tokenizer: PreTrainedTokenizerBase,
    overrides: dict[str, Any],
    length: int | None,
) -> PreTrainedModel:
    config, capacity = _config_from_scratch(cfg, auto_model, tokenizer, overrides, length)
    if capacity is not None:
        logger.info("%s: positions raised from %d to %d, the length of the inputs", cfg.arch, capacity, length)
    with _mistakes_of(cfg.arch):
        return getattr(transformers, auto_model).from_config(config, dtype=config.dtype or torch.float32)


def _config_from_scratch(
    cfg: ModelConfig,
    auto_model: str,
    tokenizer: PreTrainedTokenizerBase,
    overrides: dict[str, Any],
    length: int | None,
) -> tuple[PreTrainedConfig, int | None]:
    """The config, with positions for `length` tokens; and how many it had before, where these were too few."""
    assert cfg.arch is not None
    if cfg.arch not in CONFIG_MAPPING:
        near = get_close_matches(cfg.arch, CONFIG_MAPPING.keys(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "use a model_type of transformers, rnn or fnn"
        raise InputError(f"model.arch: there is no architecture {cfg.arch!r}; {hint}")
    _check_purpose(CONFIG_MAPPING[cfg.arch], f"model.arch={cfg.arch}", auto_model)

    given_vocab = overrides.setdefault("vocab_size", len(tokenizer))
    if isinstance(given_vocab, int) and given_vocab < len(tokenizer):
        raise InputError(
            f"model.config.vocab_size: {given_vocab} is less than the tokenizer's {len(tokenizer)} tokens; "
            "leave it out"
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):  # the defaults are those of some other vocabulary
        overrides.setdefault(name, getattr(tokenizer, name))

    with _mistakes_of(cfg.arch):
        config = AutoConfig.for_model(cfg.arch, **overrides)
        if config.is_encoder_decoder and "SequenceClassification" in auto_model and tokenizer.eos_token_id is None:
            raise InputError(
                f"model.arch={cfg.arch}: an encoder–decoder classifies by its end-of-text token, which this tokenizer "
                "has not; choose bert, gpt2, rnn or fnn, or a tokenizer that ends each text (tokenizer.pretrained=…)"
            )
        _name_decoder_ends(config, tokenizer, overrides)
        with torch.device("meta"):  # no memory and no random numbers: only to look at it
            model = getattr(transformers, auto_model).from_config(config)
        _check_memory(model, cfg.arch)
        capacity = position_capacity(model)
        if length is None or capacity is None or capacity >= length:
            return config, None
        _raise_positions(config, capacity, length, cfg)
        return config, capacity


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
    _check_purpose(type(config), f"model.pretrained={cfg.pretrained}, a {config.model_type}", auto_model)
    model = load_weights(cfg.pretrained, cfg.revision, config, auto_model, cfg.config.get("dtype"), trained)
    _check_positions(model, cfg.pretrained, length)
    return model


def _check_positions(model: PreTrainedModel, name: str, length: int | None) -> None:
    capacity = position_capacity(model)
    if length is not None and capacity is not None and capacity < length:
        raise InputError(
            f"model.pretrained: {name} has {capacity} positions, fewer than the {length} tokens of an "
            f"input; set task.block_size or task.max_length (or its like) to at most {capacity}"
        )


def _check_purpose(config_class: type[PreTrainedConfig], what: str, auto_model: str) -> None:
    auto = getattr(transformers, auto_model)
    if config_class not in auto._model_mapping:
        purpose = _PURPOSES.get(auto_model, auto_model)
        raise InputError(f"model: {what} has no form as {purpose} ({auto_model}); choose another architecture")


def position_capacity(model: PreTrainedModel) -> int | None:
    """The longest input in tokens, or None where nothing bounds it (recurrent models, ALiBi, …)."""
    capacity = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(capacity, int) or capacity <= 0:  # some configs say -1 for no bound
        return None
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from the padding index on, so that many rows are never used.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return min(capacity, module.num_embeddings) - module.padding_idx - 1
    return capacity


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


def _check_memory(sketch: PreTrainedModel, arch: str) -> None:
    """The default sizes of many architectures are those of a model with billions of parameters."""
    parameters = sum(parameter.numel() for parameter in sketch.parameters())
    available = psutil.virtual_memory().available
    if parameters * 4 > available:  # float32
        raise InputError(
            f"model.config: {arch} with these sizes has {parameters / 1e9:.1f} billion parameters, "
            f"{parameters * 4 / 2**30:.0f} GiB of weights where {available / 2**30:.0f} GiB are free; set smaller "
            "ones, e.g. model.config.num_hidden_layers and model.config.hidden_size"
        )


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
