"""A stranger's model is data: what would have transformers run code, unpickle or read other files is refused.

transformers itself follows an adapter's configuration to another model, opens whatever file an index of weights names,
and fetches a kernel that a config.json asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, find_adapter_config_file

from ..config import InputError

_WEIGHTS = re.compile(r"[\w.-]+\.safetensors")  # a name: in no other folder, of no other format


def refuse_adapter(name: str, revision: str | None) -> None:
    """Raises InputError where `name`, a folder or Hub id, holds an adapter (PEFT) for some other model."""
    if find_adapter_config_file(name, revision=revision):
        raise InputError(
            f"model.pretrained: {name} holds an adapter (adapter_config.json): merge it into its base model first "
            "(PEFT's merge_and_unload), or name the base model"
        )


def refuse_kernels(name: str, config: dict[str, Any]) -> None:
    """Raises InputError where a config.json asks for an implementation from the Hub, which is code."""
    for key, value in _leaves(config):
        if re.search("[/:|]", value):
            raise InputError(
                f"model.pretrained: the config.json of {name} asks for {key}={value}, a kernel of the Hub, which is "
                "code; take it out"
            )


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The implementations that a configuration names, for the whole model or for its parts."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, key if "implementation" in key else name)
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, key)
    elif isinstance(node, str) and "implementation" in key:
        yield key, node


def check_weights(name: str, revision: str | None, config: PreTrainedConfig) -> None:
    """See that what transformers will read of `name`, a folder or Hub id, is safetensors files beside its config.json.

    Raises:
        InputError: an index, or the configuration, names something else.
        OSError: there are no such files, or the Hub cannot be reached.
    """
    whole = getattr(config, "transformers_weights", None) or SAFE_WEIGHTS_NAME
    if not _WEIGHTS.fullmatch(str(whole)):
        raise InputError(
            f"model.pretrained: the config.json of {name} has its weights in {whole}, no safetensors file"
        )
    absent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    if cached_file(name, whole, revision=revision, **absent):
        return
    index = cached_file(name, SAFE_WEIGHTS_INDEX_NAME, revision=revision)
    assert index is not None
    where = f"model.pretrained: {SAFE_WEIGHTS_INDEX_NAME} of {name}"
    try:
        parts = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} is no index of weights") from error
    for part in sorted(parts, key=str):
        if not _WEIGHTS.fullmatch(str(part)):
            raise InputError(f"{where} names {part}, which is no safetensors file of its own")
        if Path(name).is_dir() and not (Path(name) / part).is_file():
            raise InputError(f"{where} names {part}, which is not there")
