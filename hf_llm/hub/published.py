"""What of a run is published: the files that a user of the model needs, without what says whose machine it was."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import get_token

from hf_llm import runs
from hf_llm.config import InputError
from hf_llm.hub import CARD, REQUIREMENTS, RUN_FOLDER

PICTURES = "*.png"
# An absolute path within a text: of two parts at least, for "/" and "and/or" are ordinary words.
_PATH = re.compile(r"(?<![\w.:/\\])(?:~|file://|[A-Za-z]:(?=[\\/]))?(?:[\\/][^\s/\\,'\"`\])}:;|<>]+){2,}[\\/]?")
_SECRET = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}\b")
TEXT_ENDINGS = (".json", ".yaml", ".md", ".txt", ".py", ".jinja", ".jsonl", ".log", ".csv", ".model")
CHUNK = 2**20


@dataclass
class File:
    """One file of a repository: its path there, and what is in it: a file here, or bytes."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def public(value: Any) -> Any:
    """A configuration, or a text of one, with every absolute path cut to its last part."""
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [public(item) for item in value]
    if not isinstance(value, str):
        return value
    text = value.strip()
    if "\n" not in text and (text.startswith(("/", "~/", "\\\\", "../", "..\\")) or re.match(r"[A-Za-z]:[\\/]", text)):
        return _last_part(text)
    return _PATH.sub(lambda match: _last_part(match[0]), value)


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "."


def files(folder: Path, include: Sequence[str] = ()) -> list[File]:
    """What `hf-llm push` sends of the finished run in `folder`, in the order of its path.

    The model is at the root, as transformers looks for it; the run's configuration, record and metrics in `run/`.

    Args:
        include: names of more files of the run directory.

    Raises:
        InputError: a file of `include` is not there, or one holds a secret or a path of this machine.
    """
    model = folder / runs.MODEL
    found = [File(path.relative_to(model).as_posix(), path) for path in sorted(model.rglob("*")) if path.is_file()]
    found = [file for file in found if not _is_state(file.path)]
    found += [File(path.name, path) for path in sorted(folder.glob(PICTURES))]
    config = yaml.safe_dump(
        {**public_config(folder), "run": folder.resolve().name}, sort_keys=False, allow_unicode=True
    )
    record = public(runs.read_json(folder / runs.ENVIRONMENT))
    found += [
        File(CARD, folder / CARD),
        File(REQUIREMENTS, requirements(record).encode()),
        File(f"{RUN_FOLDER}/{runs.CONFIG}", config.encode()),
        File(f"{RUN_FOLDER}/{runs.ENVIRONMENT}", _json(record)),
        File(f"{RUN_FOLDER}/{runs.METRICS}", folder / runs.METRICS),
    ]
    for name in include:
        path = folder / name
        if not path.is_file() or path.resolve().parent != folder.resolve():
            there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != "."))
            raise InputError(f"include: {folder} has no file {name}; there are {there}")
        found.append(File(f"{RUN_FOLDER}/{name}", path))
    if model_config := next((file for file in found if file.path == "config.json"), None):
        model_config.content = _json(_without_origin(runs.read_json(model / "config.json")))
    found = sorted({file.path: file for file in found}.values(), key=lambda file: file.path)
    for file in found:
        _refuse_leaks(file, folder)
    return found


def _is_state(path: str) -> bool:
    """Of a training, not of a model: its arguments (a pickle), optimizer, random numbers; and what is hidden."""
    name = path.rpartition("/")[2]
    return name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")) or name.startswith(".") or "__pycache__" in path


def public_config(folder: Path) -> dict[str, Any]:
    """A run's configuration as it is published: what it is, without where it was."""
    config = runs.load_raw_config(folder / runs.CONFIG)
    return public({key: value for key, value in config.items() if key == "run" or key not in runs.NAMED})


def _without_origin(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "name_or_path")}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def requirements(record: Mapping[str, Any]) -> str:
    """requirements.txt: the versions that the model was trained with, local builds (+cpu) left out."""
    packages = record.get("packages") or {}
    lines = [f"{name}=={str(version).split('+')[0]}" for name, version in packages.items()]
    return "\n".join([f"# Python {record.get('python')}, hf_llm {record.get('hf_llm')}", *lines]) + "\n"


def _refuse_leaks(file: File, folder: Path) -> None:
    """The last look before anything goes out: what names this machine or opens a door stays here."""
    places = {str(Path.home()), str(folder.resolve()), str(Path.cwd()), os.environ.get("HF_HOME", "")}
    places = {place for place in places if len(Path(place).parts) > 2 or place == str(Path.home()) != "/"}
    secrets = {value for value in (get_token(), os.environ.get("WANDB_API_KEY")) if value and len(value) > 5}
    for chunk in _chunks(file):
        for place in sorted(places):
            if re.search(re.escape(place) + r"(?![\w.-])", chunk):
                raise InputError(
                    f"{file.path}: names a folder of this machine ({place}); take it out, then push again"
                )
        if any(secret in chunk for secret in secrets) or _SECRET.search(chunk):
            raise InputError(f"{file.path}: holds what looks like an access token; take it out, then push again")


def _chunks(file: File) -> Iterable[str]:
    """The text of a file, piece by piece, with enough of each in the next; of weights there is only their header."""
    if isinstance(file.content, bytes):
        yield file.content.decode("utf-8", "replace")
    elif file.path.endswith(TEXT_ENDINGS):
        before = ""
        with file.content.open(encoding="utf-8", errors="replace") as stream:
            while piece := stream.read(CHUNK):
                yield before + piece
                before = piece[-500:]
    elif file.path.endswith(".safetensors"):
        with file.content.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            yield raw.read(min(length, 16 * CHUNK)).decode("utf-8", "replace")
