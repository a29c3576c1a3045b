"""What bounds a model: the purposes its architecture has a form for, its positions, and the memory of its weights."""

from __future__ import annotations

import psutil
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from ..config import InputError

_PURPOSES = {
    "AutoModelForCausalLM": "a causal language model",
    "AutoModelForMaskedLM": "a masked language model",
    "AutoModelForSeq2SeqLM": "a sequence-to-sequence model",
    "AutoModelForSequenceClassification": "a text classifier",
    "AutoModelForTokenClassification": "a tagger of words",
    "AutoModelForQuestionAnswering": "a finder of answers",
}


def check_purpose(config_class: type[PreTrainedConfig], what: str, auto_model: str) -> None:
    """Raises InputError where an architecture has no form as the Auto class wants it."""
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


def check_positions(model: PreTrainedModel, name: str, length: int | None) -> None:
    """Raises InputError where a checkpoint's positions are fewer than the tokens of an input."""
    capacity = position_capacity(model)
    if length is not None and capacity is not None and capacity < length:
        raise InputError(
            f"model.pretrained: {name} has {capacity} positions, fewer than the {length} tokens of an "
            f"input; set task.block_size or task.max_length (or its like) to at most {capacity}"
        )


def check_memory(sketch: PreTrainedModel, arch: str) -> None:
    """Raises InputError where the weights do not fit: many architectures' default sizes are billions of parameters."""
    parameters = sum(parameter.numel() for parameter in sketch.parameters())
    available = psutil.virtual_memory().available
    if parameters * 4 > available:  # float32
        raise InputError(
            f"model.config: {arch} with these sizes has {parameters / 1e9:.1f} billion parameters, "
            f"{parameters * 4 / 2**30:.0f} GiB of weights where {available / 2**30:.0f} GiB are free; set smaller "
            "ones, e.g. model.config.num_hidden_layers and model.config.hidden_size"
        )
