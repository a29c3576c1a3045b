"""`offline=true`: nothing is asked of the Hub; what is not on this machine yet is named, all at once, beforehand."""

from __future__ import annotations

import os

from hf_llm import libraries
from hf_llm.config import DataConfig, InputError, ModelConfig, TokenizerConfig
from hf_llm.hub import is_repo_id

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def switch_on() -> None:
    """Keep huggingface_hub, transformers and datasets from the network, for this process and those that it starts."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    libraries.load()
    import datasets
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True


def check(data: DataConfig | None, tokenizer: TokenizerConfig | None, model: ModelConfig | None) -> None:
    """See that what these name of the Hub is in its cache on this machine.

    Raises:
        InputError: naming everything that is missing.
    """
    from hf_llm.data.hub import cached

    missing = []
    if data and data.path and is_repo_id(data.path) and cached(data) is None:
        missing.append(f"data.path={data.path}" + (f" at {data.revision}" if data.revision else ""))
    for group, config, names in (("tokenizer", tokenizer, TOKENIZERS), ("model", model, WEIGHTS)):
        if config and config.pretrained and is_repo_id(config.pretrained):
            at = f" at {config.revision}" if config.revision else ""
            if not _is_cached(config.pretrained, config.revision, names):
                missing.append(f"{group}.pretrained={config.pretrained}{at}")
    if missing:
        raise InputError(
            f"offline=true, and not on this machine: {'; '.join(missing)}. Give the same command once with "
            "offline=false where the Hub can be reached (`hf download` fetches single repositories)"
        )


def _is_cached(repo: str, revision: str | None, names: tuple[str, ...]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repo, name, revision=revision), str) for name in names)
