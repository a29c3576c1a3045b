"""The settings of transformers' GenerationConfig, checked before any weights are loaded.

GenerationConfig itself takes a value of any type; what is wrong with one is found by `generate`, or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_llm.config import declared
from hf_llm.config.known import ANY_NUMBER, GENERATION_RANGES
from hf_llm.config.schema import InputError
from hf_llm.config.values import message, typed, unknown

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
        given[name] = typed(fields[name], value, key, mistakes, GENERATION_RANGES.get(name, ANY_NUMBER))
        if len(mistakes) > before:
            continue
        if fields[name].startswith("list[int]") and not all(type(item) is int for item in value or ()):
            mistakes.append(f"{key}: {value!r} is not a list of whole numbers")
        elif name in MORE_THAN_TEXTS and value:
            mistakes.append(f"{key}: only texts are kept; leave it out (`model.generate` in Python has it)")
    return mistakes
