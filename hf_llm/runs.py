"""The run directory: its name, what is in it, and whether it may be used again.

outputs/<run>/
  config.yaml          the resolved configuration; the same again resumes, another is refused
  environment.json     versions, git commit, data fingerprint, seed, command
  train.log            what was said
  checkpoint-N/        Trainer's own, for resuming (checkpoints.py)
  model/               weights (safetensors), config, tokenizer: `AutoModel….from_pretrained` loads it
  metrics.json         a run that has it is complete
  README.md            the model card
  loss_curve.png       and for a classifier confusion_matrix.png and predictions.jsonl
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from filelock import FileLock, Timeout

from hf_llm import changes
from hf_llm.config import InputError, TrainConfig, check

logger = logging.getLogger(__name__)

CONFIG, METRICS, ENVIRONMENT, MODEL, LOG = "config.yaml", "metrics.json", "environment.json", "model", "train.log"
LOCK = ".lock"

State = Literal["new", "unfinished", "complete"]


def default_name(cfg: TrainConfig) -> str:
    """`<model>-<data>`, for a run that was given no name."""
    data = cfg.data.path
    if data is None and cfg.data.files:
        train = cfg.data.files.get("train") if isinstance(cfg.data.files, Mapping) else cfg.data.files
        first = train[0] if isinstance(train, list) else train
        data = Path(str(first or "data")).name.split(".")[0]
    model = Path(cfg.model.pretrained).name if cfg.model.pretrained else cfg.model.arch
    return re.sub(r"[^\w.-]+", "_", f"{model}-{(data or 'data').removeprefix('builtin:').rstrip('/').split('/')[-1]}")


def of_split(name: str, split: str) -> str:
    """The name of a split's own file: validation's is just `name`, such as predictions.jsonl."""
    stem, _, ending = name.rpartition(".")
    return name if split == "validation" else f"{stem}_{split}.{ending}"


class Named(Protocol):
    """The configuration of a verb that has to do with a run."""

    run: str | None
    runs_dir: str


def directory(cfg: Named) -> Path:
    """The run's directory: `runs_dir/run`, or `run` itself where it is a path."""
    name = cfg.run or (default_name(cfg) if isinstance(cfg, TrainConfig) else "")
    return Path(name) if os.sep in name else Path(cfg.runs_dir) / name


def find(cfg: Named) -> Path:
    """The directory of a run that has a model.

    Raises:
        InputError: there is none; names the runs that there are.
    """
    folder = directory(cfg)
    if (folder / MODEL / "config.json").is_file():
        return folder
    others = sorted(path.parent.name for path in Path(cfg.runs_dir).glob(f"[!.]*/{METRICS}"))
    known = f"{cfg.runs_dir}/ has {', '.join(others)}" if others else f"{cfg.runs_dir}/ has no finished run"
    raise InputError(f"run={cfg.run}: no finished run at {folder} ({known})")


def state(folder: Path, cfg: TrainConfig) -> State:
    """What there is in `folder` of the run that `cfg` describes. Nothing is written.

    Raises:
        InputError: another configuration has the name, or the folder holds something else.
    """
    resolved = dataclasses.asdict(cfg)
    path = folder / CONFIG
    if len(folder.name.encode()) > 255:  # most file systems' limit, which is_file() would raise on
        raise InputError(f"cannot make the run directory {folder}: File name too long")
    if path.is_file() and _has_results(folder):
        differing = changes.differences(load_raw_config(path), resolved)
        if refused := [text for key, text in differing.items() if key not in changes.CHANGEABLE]:
            raise InputError(
                f"{folder} holds a run with another configuration ({'; '.join(refused)}): "
                "give this one a name of its own (run=NAME), or move that folder away"
            )
        return "complete" if (folder / METRICS).is_file() else "unfinished"
    if folder.is_dir() and not path.is_file() and any(path.name != LOCK for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no run: choose another name (run=NAME)")
    return "new"


def format_of(cfg: TrainConfig) -> int:
    """The format of the run that `cfg` goes on with; its own where it begins one."""
    folder = directory(cfg)
    path = folder / CONFIG
    try:
        return load_raw_config(path)["format"] if path.is_file() and _has_results(folder) else cfg.format
    except OSError:  # a name too long, say, which the training reports
        return cfg.format


def write_config(folder: Path, cfg: TrainConfig) -> None:
    """The resolved configuration, as data."""
    if not is_main_process():
        return
    try:
        write(folder / CONFIG, yaml.safe_dump(dataclasses.asdict(cfg), sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise InputError(f"{folder / CONFIG} cannot be written: {error.strerror}") from error


def _has_results(folder: Path) -> bool:
    return any((folder / name).exists() for name in (METRICS, MODEL)) or any(folder.glob("checkpoint-*"))


def discard(folder: Path) -> None:
    """Take away the files of a run that has no result: what made them, and has `claimed` it, could not start."""
    if is_main_process() and folder.is_dir() and not _has_results(folder):
        for name in (CONFIG, ENVIRONMENT, LOG):
            (folder / name).unlink(missing_ok=True)


def load_raw_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml as data: an interpolation could read this machine's environment, so it is refused."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        leaves = None
        if isinstance(loaded, dict):  # here, as a number may be too large to be written
            leaves = [(str(key), str(value)) for key, value in changes.leaves(loaded)]
    except RecursionError as error:
        raise InputError(f"{path}: not YAML (groups within groups without end)") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date, number or byte that there is not
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if leaves is None:
        raise InputError(f"{path}: not a run's configuration")
    for key, value in leaves:
        if "${" in key + value:
            raise InputError(f"{path}: {key} holds an interpolation; a run's configuration is plain values")
    return {**loaded, "format": loaded.get("format", 1)}  # the first format had no number


def load_config(folder: Path) -> TrainConfig:
    """The configuration that the run in `folder` was trained with."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} has no {CONFIG}: it is no run; a bare model is given as model.pretrained={folder}")
    try:
        return check(load_raw_config(folder / CONFIG), TrainConfig)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error


def check_output(output: str | None) -> None:
    """Refuse an `output` file that could not be written, before the work that it is to hold.

    Raises:
        InputError: its folder is not there, or it is a folder itself.
    """
    if output in (None, "-"):
        return
    if not Path(output).parent.is_dir():
        raise InputError(f"output={output}: no such folder: {Path(output).parent}")
    if Path(output).is_dir():
        raise InputError(f"output={output} is a folder; give a file in it")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the run's directory, and keep a second start of the same run out while this one is at it.

    Raises:
        InputError: another process is training in `folder`, or it cannot be made.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{folder}: another process is training this run") from error
    except OSError as error:
        raise InputError(f"cannot make the run directory {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing came of it


def check_data_unchanged(folder: Path, fingerprint: str | None, splits: Mapping[str, str]) -> None:
    """Refuse to go on from a checkpoint with other data: its tokenizer and its place in the data would not fit.

    Args:
        fingerprint, splits: of the data now, and of each split.

    Raises:
        InputError: the data's content is not what it was when the run began.
    """
    path = folder / ENVIRONMENT
    record = read_json(path) if path.is_file() else {}
    before, then = record.get("data_fingerprint"), record.get("split_fingerprints") or {}
    if before and fingerprint and before != fingerprint:
        changed = [name for name in {**then, **splits} if then.get(name) != splits.get(name)]
        where = f" (split{'s' * (len(changed) > 1)} {', '.join(changed)})" if then and changed else ""
        raise InputError(
            f"{folder}: the data changed since this run began{where}; start another (run=NAME), or restore it"
        )


def write(path: Path, text: str) -> None:
    """Write aside, then rename: a reader finds the old file or the new one, never half of one.

    Raises:
        InputError: there is no room for it, or the folder cannot be written to.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise InputError(f"{path} could not be written: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Why something could not be written, in a few words."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"


def write_json(path: Path, value: Any) -> None:
    """JSON has no infinity: such a number is written as null."""
    if is_main_process():
        write(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def save_model(trainer: Any, folder: Path) -> None:
    """Weights, config and tokenizer to `folder/model`, whole or not at all, without Trainer's pickled arguments."""
    aside = folder / f".{MODEL}"
    try:
        trainer.save_model(str(aside))
        if is_main_process():
            (aside / "training_args.bin").unlink(missing_ok=True)
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            aside.replace(folder / MODEL)
    except Exception as error:  # torch, safetensors and tokenizers have each their own for a full disk
        shutil.rmtree(aside, ignore_errors=True)
        raise InputError(
            f"{folder / MODEL} could not be saved ({reason(error)}): make room or mend the folder, then give the same "
            "command, which goes on from the last checkpoint"
        ) from error


def record(folder: Path, **facts: Any) -> None:
    """Add to a run's environment.json what is known only once it is trained."""
    write_json(folder / ENVIRONMENT, {**read_json(folder / ENVIRONMENT), **facts})


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks, by the launcher's own variable."""
    return int(os.environ.get("RANK", 0)) == 0
