"""The settings of transformers' GenerationConfig, checked before any weights are loaded.

GenerationConfig itself takes a value of any type; what is wrong with one is found by `generate`, or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_llm.config import declared
from hf_llm.config.check import _typed, message, unknown
from hf_llm.config.schema import InputError

# (least, most, whether the least itself is too small)
ABOVE_0 = (0, None, True)
SHARE = (0, 1, False)
RANGES: dict[str, tuple[float, float | None, bool]] = {
    "epsilon_cutoff": SHARE,
    "eta_cutoff": SHARE,
    "max_length": (1, None, False),
    "max_new_tokens": (1, None, False),
    "max_time": ABOVE_0,
    "min_length": (0, None, False),
    "min_new_tokens": (0, None, False),
    "min_p": SHARE,
    "no_repeat_ngram_size": (0, None, False),
    "num_beams": (1, None, False),
    "num_return_sequences": (1, None, False),
    "repetition_penalty": ABOVE_0,
    "temperature": ABOVE_0,
    "top_h": (0, 1, True),
    "top_k": (0, None, False),
    "top_p": SHARE,
    "typical_p": (0, 1, True),
}
INSTEAD = {"temperature": "; do_sample=false takes the likeliest token"}
# What makes `generate` return more than token ids: a text is made of those alone.
MORE_THAN_TEXTS = (
    "return_dict_in_generate",
    "output_scores",
    "output_logits",
    "output_attentions",
    "output_hidden_states",
)


def check_settings(values: Mapping[str, Any], mistakes: list[str]) -> None:
    """Of a verb's values, `generation` and `task.generation`: gives them their types, adds what is wrong with them."""
    if isinstance(given := values.get("generation"), dict):
        mistakes += _mistakes(given, "generation.")
    task = values.get("task")
    known = not any(line.startswith("task.generation:") for line in mistakes)  # by the task
    if known and isinstance(task, dict) and isinstance(given := task.get("generation"), dict):
        mistakes += _mistakes(given, "task.generation.")


def checked(given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The settings with their types.

    Raises:
        InputError: listing the unknown keys and the values that `generate` cannot take.
    """
    settings = dict(given)
    if mistakes := _mistakes(settings, prefix):
        raise InputError(message(mistakes))
    return settings


def _mistakes(given: dict[str, Any], prefix: str) -> list[str]:
    fields = declared.generation_fields()
    mistakes: list[str] = []
    for name, value in given.items():
        key, before = f"{prefix}{name}", len(mistakes)
        if name not in fields:
            mistakes.append(unknown(name, fields, prefix))
            continue
        given[name] = _typed(fields[name], value, key, mistakes)
        if len(mistakes) > before:
            continue
        if wrong := _out_of_range(name, given[name]):
            mistakes.append(f"{key}: {value!r} is {wrong}{INSTEAD.get(name, '')}")
        elif fields[name].startswith("list[int]") and not all(type(item) is int for item in value or ()):
            mistakes.append(f"{key}: {value!r} is not a list of whole numbers")
        elif name in MORE_THAN_TEXTS and value:
            mistakes.append(f"{key}: only texts are kept; leave it out (`model.generate` in Python has it)")
    return mistakes


def _out_of_range(name: str, value: Any) -> str | None:
    if name not in RANGES or not isinstance(value, (int, float)):
        return None
    least, most, above = RANGES[name]
    if not (value > least if above else value >= least):  # so said of not-a-number too
        return f"too small; it is {'above' if above else 'at least'} {least}"
    return f"too large; it is at most {most}" if most is not None and value > most else None
