"""Pretrained weights: read without running their code or unpickling anything, and saying once what is new."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import resolve_revision

from ..config import InputError
from .foreign import check_weights, refuse_adapter, refuse_kernels

logger = logging.getLogger(__name__)


def load_config(
    name: str, revision: str | None, overrides: dict[str, Any], labels: list[str] | None
) -> PreTrainedConfig:
    """The checkpoint's config with `overrides`. Raises InputError for a name, key or value that cannot be used."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        name = str(folder)
        _check_folder(folder)
    elif folder.is_file():
        raise InputError(f"model.pretrained: {name} is a file; give the folder with config.json and model.safetensors")
    revision = resolve_revision(name, revision)  # one commit: what is looked at is what is loaded
    with _explained(name, revision):
        refuse_adapter(name, revision)
        saved, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
        refuse_kernels(name, saved)
        config, unknown = AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=False, return_unused_kwargs=True, **overrides
        )
    if unknown:
        key = next(iter(unknown))
        near = get_close_matches(key, config.to_dict(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"model.config.{key}: {name}, a {config.model_type}, has no such field{hint}")
    _check_label_order(name, saved, labels)
    return config


def load_weights(
    name: str,
    revision: str | None,
    config: PreTrainedConfig,
    auto_model: str,
    dtype: str | None = None,
    trained: bool = False,
) -> PreTrainedModel:
    """The model with its safetensors weights, in float32 unless `dtype` says otherwise.

    (Many checkpoints are saved in bfloat16, in which most steps of an optimizer are rounded away.)

    Says in one INFO line which parameters the checkpoint lacks, hence start at random; nothing where it has them all.
    """
    name = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    revision = resolve_revision(name, revision)
    with _explained(name, revision), quiet():
        refuse_adapter(name, revision)
        check_weights(name, revision, config)
        model, info = getattr(transformers, auto_model).from_pretrained(
            name,
            revision=revision,
            config=config,
            dtype=dtype or torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    reshaped = {key: (tuple(theirs), tuple(ours)) for key, theirs, ours in info["mismatched_keys"]}
    prefix = model.base_model_prefix + "."
    for key, (theirs, ours) in sorted(reshaped.items()):
        if key.startswith(prefix):
            raise InputError(
                f"model.config: with it {key} of {name} would be {ours}, but the weights are {theirs}; "
                "leave out what changes the shape of pretrained weights"
            )
    new = set(info["missing_keys"]) | set(reshaped)
    body = {key for key in model.state_dict() if key.startswith(prefix)}
    if body and body <= new:
        raise InputError(f"model.pretrained: none of the weights in {name} fit a {config.model_type}")
    if new and trained:
        raise InputError(
            f"model.pretrained: {name} is no trained {type(model).__name__}: it lacks {', '.join(grouped(new))}; "
            "train it for the task first"
        )
    if new:
        logger.info("%s: newly initialised, to be trained: %s", name, ", ".join(grouped(new)))
    return model


def grouped(keys: set[str]) -> list[str]:
    """Parameter names, sorted, with the numbers of repeated layers as `*`."""
    return sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", key) for key in keys})


def _check_folder(folder: Path) -> None:
    files = {path.name for path in folder.iterdir()}
    if "config.json" not in files and "adapter_config.json" not in files:
        hint = "; its model/ sub-folder has one" if (folder / "model" / "config.json").is_file() else ""
        raise InputError(f"model.pretrained: the folder {folder} has no config.json{hint}")
    if files & {SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, "adapter_config.json"}:
        return
    pickles = sorted(name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")))
    if pickles:
        raise InputError(
            f"model.pretrained: {folder} has its weights in {pickles[0]}, which can run code when it is read; "
            "convert them to model.safetensors"
        )
    raise InputError(f"model.pretrained: the folder {folder} has no weights (no {SAFE_WEIGHTS_NAME})")


def _check_label_order(name: str, saved: dict[str, Any], labels: list[str] | None) -> None:
    """A head that was trained for the same labels in another order would be wrong on every row, silently."""
    if labels is None or not saved.get("id2label"):
        return
    theirs = [label for _, label in sorted((int(key), label) for key, label in saved["id2label"].items())]
    if theirs != labels and sorted(theirs) == sorted(labels):
        raise InputError(
            f"model.pretrained: {name} was trained with the labels in the order [{', '.join(theirs)}]; "
            f"set data.labels=[{','.join(theirs)}]"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own table of missing weights, and without a progress bar for a small file."""
    level = transformers.logging.get_verbosity()
    bar = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bar:
            transformers.logging.enable_progress_bar()


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Turn what transformers and huggingface_hub raise, often a page, into one line that says what to do."""
    try:
        yield
    except InputError:
        raise
    except (
        *(OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError),
        *(HFValidationError, StrictDataclassError),
    ) as error:
        raise InputError(f"model.pretrained: {_reason(name, revision, error)}") from error
    except Exception as error:  # safetensors' own error class derives from Exception alone
        if type(error).__module__.startswith("safetensors"):
            raise InputError(f"model.pretrained: the weights of {name} are damaged ({error})") from error
        raise


def _reason(name: str, revision: str | None, error: BaseException) -> str:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    text = " ".join(str(error).split())

    def caused_by(*classes: type[BaseException]) -> bool:
        return any(isinstance(link, classes) for link in chain)

    if caused_by(GatedRepoError):
        return f"{name} is gated; accept its terms on its page and log in with `hf auth login`"
    if caused_by(RevisionNotFoundError):
        return f"{name} has no revision {revision!r}"
    if caused_by(RepositoryNotFoundError):
        return f"there is no {name!r} on the Hub, or it is private and you are not logged in"
    if "trust_remote_code" in text or ("execute" in text and "code" in text):
        return f"{name} needs its own Python code to be run, which is never done"
    if Path(name).is_dir():
        return f"{name} cannot be loaded: {text[:300]}"
    if caused_by(HFValidationError) or name.count("/") > 1 or name.startswith((".", "/", "~")):
        return f"{name} is not a folder here, nor a Hub id such as gpt2 or user/model"
    if caused_by(OfflineModeIsEnabled) or "offline mode" in text.lower():
        return f"{name} is neither a folder nor in the local cache, and HF_HUB_OFFLINE forbids to fetch it"
    if caused_by(HfHubHTTPError, ConnectionError) or "connect" in text.lower():
        return f"{name} is neither a folder nor in the local cache, and the Hub cannot be reached"
    if "safetensors" in text:
        return f"{name} has no .safetensors weights, and other formats can run code when they are read"
    return f"{name} cannot be loaded: {text[:300]}"
