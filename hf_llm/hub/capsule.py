"""A run's configuration and record, read as a stranger's: data that is looked at, never code that runs.

What a person's own command composes may name any file, tracker or launcher. What a folder or a repository brings along
may not: only keys that shape the model are taken from it, local files only where the user says so, and no address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from hf_llm import changes, runs
from hf_llm.config import DataConfig, InputError, TrainConfig, check, printable
from hf_llm.hub import is_repo_id

LARGEST = 2**20  # bytes of a configuration or record
DEEPEST = 12  # groups within groups

# Settings of TrainingArguments that shape the weights and reach no file, process or address.
TAKEN = (
    *("seed", "data_seed", "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_grad_norm"),
    *("optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", "optim_args"),
    *("label_smoothing_factor", "neftune_noise_alpha", "average_tokens_across_devices", "train_sampling_strategy"),
    *("dataloader_drop_last", "bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "full_determinism"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs", "use_cpu", "auto_find_batch_size"),
    *("activation_checkpointing", "activation_checkpointing_kwargs"),  # transformers' names from 5.23 on
    *("eval_strategy", "eval_steps", "eval_on_start", "eval_delay", "load_best_model_at_end", "save_strategy"),
    *("save_steps", "metric_for_best_model", "greater_is_better", "logging_strategy", "logging_steps"),
    *("logging_first_step", "disable_tqdm", "predict_with_generate", "length_column_name", "prediction_loss_only"),
)
# Those that only say how it was done on that machine: left out, and nothing of the model with them.
LEFT_OUT = {*changes.FREE, "project", "batch_eval_metrics", "include_for_metrics", "eval_do_concat_batches"}

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!\d*$)")  # scheme:…, of which builtin: alone is ours
_CODE = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_", "trust_remote_code", "auto_map", "token")


def read(
    path: Path, *, local_files: bool, given: Mapping[str, Any], trainer: Mapping[str, Any] | None = None
) -> TrainConfig:
    """The configuration of a run, without launcher and whatever else reaches out of it.

    Args:
        path: a config.yaml.
        local_files: whether it may name files and folders of this machine.
        given: fields of DataConfig, from the user, in place of the run's own; `path` or `files` replaces its source.
        trainer: settings of TrainingArguments, from the user, likewise.

    Raises:
        InputError: it is not such a configuration, or names a file, an address or code.
    """
    loaded, own = _plain(path), dict(trainer or {})
    if isinstance(loaded.get("trainer"), dict):
        loaded["trainer"] = {key: value for key, value in loaded["trainer"].items() if key not in own}
    return _checked(loaded, path, local_files=local_files, given=given, trainer=own)


def published(path: Path) -> TrainConfig:
    """A pushed run's configuration for using its model: its data and task, without the trainer and places elsewhere.

    Raises:
        InputError: as `read`, but for its data: a source that is not of the Hub or built in is left out.
    """
    loaded = _plain(path)
    loaded["trainer"] = {key: value for key, value in _group(loaded, "trainer").items() if key == "seed"}
    loaded |= {"model": {"arch": "rnn"}, "tokenizer": {}}  # any: model and tokenizer come with the run
    if list(_reaching_out({"data": _group(loaded, "data")}, local_files=False)):
        loaded["data"].update(path=None, files=None)
    return _checked(loaded, path, local_files=False, given={})


def _checked(
    loaded: dict[str, Any],
    path: Path,
    *,
    local_files: bool,
    given: Mapping[str, Any],
    trainer: Mapping[str, Any] | None = None,
) -> TrainConfig:
    mistakes = [f"{path}: {line}" for line in _forbidden(loaded)]
    data = loaded.get("data")
    if isinstance(data, dict) and (given.get("path") or given.get("files")):
        source = ("path", "files", "subset", "revision", "splits", "streaming")
        loaded["data"] = {key: value for key, value in data.items() if key not in source}
    for name in ("run", "runs_dir", "launcher", "card", "preflight", "offline"):
        loaded.pop(name, None)
    if not mistakes:
        mistakes = [f"{path}: {line}" for line in _reaching_out(loaded, local_files)]
    if mistakes:
        raise InputError(mistakes[0])
    _keep_what_shapes_the_model(loaded, path)
    if isinstance(loaded.get("data"), dict):
        loaded["data"] = {**loaded["data"], **given}
    if trainer:
        loaded["trainer"] = {**_group(loaded, "trainer"), **trainer}
    try:
        return check(loaded, TrainConfig)
    except InputError as error:
        raise InputError(f"{path}: {'; '.join(line.strip() for line in str(error).splitlines())}") from error
    except (TypeError, AttributeError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not a run's configuration ({type(error).__name__})") from error


def record(path: Path, largest: int = LARGEST) -> dict[str, Any]:
    """environment.json or another JSON file of a run, as data; {} where there is none.

    Raises:
        InputError: it is no JSON object, or far too large for one.
    """
    if not path.exists():
        return {}
    text = _text(path, largest)
    try:
        loaded = json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: not a JSON object")
    return loaded


def shown(value: Any) -> str:
    """A value of a record for a person to read: on one line, short, without the codes that a terminal obeys."""
    text = printable(str(value), lines=False)
    return text if len(text) <= 120 else text[:117] + "…"


def _text(path: Path, largest: int = LARGEST) -> str:
    if path.is_symlink() and not _is_cached(path):
        raise InputError(f"{path}: a link to elsewhere; a run's files are its own")
    if not path.is_file():
        raise InputError(f"{path}: not a file")
    if path.stat().st_size > largest:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes; a run's record is far smaller")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8") from error


def _is_cached(path: Path) -> bool:
    """The Hub's cache is of links: `snapshots/COMMIT/FILE` to a file of the same repository's `blobs`."""
    repository = next((parent.parent for parent in path.parents if parent.name == "snapshots"), None)
    return repository is not None and path.resolve().parent == (repository / "blobs").resolve()


def _plain(path: Path) -> dict[str, Any]:
    """YAML of maps, lists, texts and numbers: an alias could grow without bound, and a tag names a class."""
    text = _text(path)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            where = f"{path}, line {event.start_mark.line + 1}" if event.start_mark else str(path)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise InputError(f"{where}: an alias; a run's configuration has none")
            if getattr(event, "tag", None):
                raise InputError(f"{where}: a tag; a run's configuration has none")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise InputError(f"{where}: groups more than {DEEPEST} deep")
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())[:150]})") from error
    return runs.load_raw_config(path)


def _leaves(node: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    """Each key and each value below `node`, with where it stands."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield f"{key}.{name}".lstrip("."), None
            yield from _leaves(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node


def _group(loaded: Mapping[str, Any], name: str) -> dict[str, Any]:
    group = loaded.get(name)
    return group if isinstance(group, dict) else {}


def _forbidden(loaded: Mapping[str, Any]) -> Iterable[str]:
    for key, value in _leaves(loaded):
        name = key.rpartition(".")[2]
        if name in _CODE or (name.startswith("_") and name.endswith("_")):
            yield f"{shown(key)}: a run's configuration names no code, trust or secret"
        elif isinstance(value, str) and "\x00" in value:
            yield f"{shown(key)}: holds a null character"


def _reaching_out(loaded: Mapping[str, Any], local_files: bool) -> Iterable[str]:
    """What names a place outside of the run: a file here, or an address."""
    data = _group(loaded, "data")
    places = [("data.path", data.get("path"))]
    places += [(key, value) for key, value in _leaves(data.get("files"), "data.files") if value is not None]
    for group in ("model", "tokenizer"):
        places.append((f"{group}.pretrained", _group(loaded, group).get("pretrained")))
    for key, value in places:
        if value is None or (key == "data.path" and str(value).startswith("builtin:")):
            continue
        text = str(value)
        if _ADDRESS.match(text) and not re.match(r"[A-Za-z]:[\\/]", text):
            yield f"{key}={shown(text)}: an address; a run is repeated from the Hub and from files that you name"
        elif (key.startswith("data.files") or not is_repo_id(text)) and not local_files:
            where = " (data.files.train=FILE)" if key.startswith("data") else ""
            yield (
                f"{key}={shown(text)} is a file or folder of this machine: say where it is{where}, or with "
                "local_files=true that the run may read those it names"
            )
    for group in ("data", "model", "tokenizer"):  # the Hub's cache has a file of the revision's name
        revision = str(_group(loaded, group).get("revision") or "main")
        if not re.fullmatch(r"\w[\w./+@=-]*", revision) or ".." in revision:
            yield f"{group}.revision={shown(revision)}: no branch, tag or commit of a repository"
    values = [(key, value) for key, value in _leaves(loaded.get("task"), "task")]
    values += _leaves(_group(loaded, "model").get("config"), "model.config")
    for key, value in values:
        if key == "task.metrics" and "/" in str(value):
            yield f"{key}={shown(value)}: a metric of the Hub is code; a run's metrics are this project's own"
        elif key.startswith("model.config") and "/" in str(value):
            yield f"{key}={shown(value)}: a place outside of the run, or a kernel of the Hub, which is code"
        elif isinstance(value, str) and ("://" in value or value.startswith(("/", "~", "\\")) or "../" in value):
            yield f"{key}={shown(value)}: a place outside of the run"


def _keep_what_shapes_the_model(loaded: dict[str, Any], path: Path) -> None:
    trainer = loaded.get("trainer")
    if isinstance(trainer, dict):
        for name in list(trainer):
            if name in LEFT_OUT and name not in TAKEN:
                del trainer[name]
            elif name not in TAKEN:
                raise InputError(
                    f"{path}: trainer.{shown(name)} is not taken from a run; where it is needed, say it yourself "
                    f"(trainer.{shown(name)}=…)"
                )
    if isinstance(loaded.get("data"), dict):
        loaded["data"].pop("num_proc", None)
        known = {field.name for field in fields(DataConfig)}
        if strangers := [shown(key) for key in loaded["data"] if key not in known]:
            raise InputError(f"{path}: data.{strangers[0]}: no such key")
