"""What of a run is published: the files that a user of the model needs, by name; anything else stays where it is."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from hf_llm import changes, runs
from hf_llm.config import InputError
from hf_llm.hub import CARD, PUSHED, REQUIREMENTS, RUN_FOLDER, capsule
from hf_llm.hub.redaction import leak, public, public_command

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Beside weights and code what transformers saves of a model and reads of a tokenizer.
SAVED = {
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "chat_template.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("tokenizer.model", "spiece.model", "spm.model", "spm_char.model", "sentencepiece.model"),
    *("sentencepiece.bpe.model", "source.spm", "target.spm", "vocab-src.json", "vocab-tgt.json", "target_vocab.json"),
    *("entity_vocab.json", "word_shape.json", "word_pronunciation.json", "bpe.codes", "dict.txt", "emoji.json"),
    *("normalizer.json", "byte_maps.json", "prophetnet.tokenizer"),
}
CHUNK = 2**20
LARGEST = 64 * CHUNK  # bytes of a JSON file: a confusion matrix of a thousand classes has a dozen MiB


@dataclass
class File:
    """One file of a repository: its path there, and what is in it: a file here, or bytes."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Its SHA-256, by which the Hub knows a large file, and git's own hash, by which it knows a small one."""
        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % self.size)
        for piece in self.pieces():
            sha256.update(piece)
            git.update(piece)
        return {"sha256": sha256.hexdigest(), "git": git.hexdigest()}

    def pieces(self) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as stream:
            while piece := stream.read(CHUNK):
                yield piece


@dataclass
class Published:
    """What goes out of a run, in the order of its paths, and what stays of its model's folder and its pictures."""

    files: list[File]
    left_out: list[str]


def collect(folder: Path, include: Sequence[str] = ()) -> Published:
    """What `hf-llm push` sends of the finished run in `folder`.

    The model is at the root, as transformers looks for it; the run's configuration, record and metrics in `run/`.

    Args:
        include: names of more files of the run directory.

    Raises:
        InputError: weights or a file of `include` are not there, or a file holds a secret or a path of this machine.
    """
    model = folder / runs.MODEL
    record = capsule.record(folder / runs.ENVIRONMENT)
    metrics = capsule.record(folder / runs.METRICS, LARGEST)
    config = yaml.safe_dump(
        {**public_config(folder), "run": folder.resolve().name}, sort_keys=False, allow_unicode=True
    )
    weights = _weights(model)
    pictures = {"loss_curve.png", *(runs.of_split("confusion_matrix.png", split) for split in metrics)}
    found, left_out = [], []
    for place, names in ((model, {*SAVED, *weights, *_code(model)}), (folder, pictures)):
        for path in sorted(place.iterdir()):
            if path.name in names and path.is_file() and not path.is_symlink():
                found.append(File(path.name, path))
            elif place == model or path.suffix == ".png":
                left_out.append(path.relative_to(folder).as_posix() + "/" * path.is_dir())
    _check_weights(model, weights, [file for file in found if file.path in weights], record)
    public_record = public(record)
    if record.get("command"):
        public_record["command"] = public_command(str(record["command"]))
    found += [
        File(CARD, folder / CARD),
        File(REQUIREMENTS, requirements(record).encode()),
        File(f"{RUN_FOLDER}/{runs.CONFIG}", config.encode()),
        File(f"{RUN_FOLDER}/{runs.ENVIRONMENT}", _json(public_record)),
        File(f"{RUN_FOLDER}/{runs.METRICS}", folder / runs.METRICS),
    ]
    found += _included(folder, include, {Path(file.path).name for file in found} | {PUSHED})
    for file in found:
        if file.path == "config.json":
            file.content = _json(_without_origin(capsule.record(model / file.path, LARGEST)))
        _check(file, folder)
    listed = {file.path: file.digests for file in sorted(found, key=lambda file: file.path)}
    found.append(File(f"{RUN_FOLDER}/{PUSHED}", _json({"files": listed})))
    return Published(sorted(found, key=lambda file: file.path), left_out)


def _weights(model: Path) -> set[str]:
    """The names of the files that hold a model's weights, as transformers looks for them."""
    if not (model / INDEX).is_file() or (model / WEIGHTS).is_file():
        return {WEIGHTS}
    places = capsule.record(model / INDEX, LARGEST).get("weight_map")
    names = map(str, places.values()) if isinstance(places, dict) else ()
    return {INDEX, *(name for name in names if name.endswith(".safetensors"))}


def _check_weights(model: Path, names: set[str], found: Sequence[File], record: Mapping[str, Any]) -> None:
    """Refuse weights that are not there, or not those that the run recorded when it saved them."""
    recorded = record.get("weights") or {}
    if not isinstance(recorded, Mapping):
        raise InputError(f"{model.parent / runs.ENVIRONMENT}: weights is no list of files and checksums")
    there = {file.path: file for file in found}
    for name in sorted({*names, *recorded}):
        if name not in there:
            raise InputError(f"{model / str(name)} is not there, or a link: the run's weights are not whole")
        if recorded and name != INDEX and there[name].digests["sha256"] != recorded.get(name):
            raise InputError(
                f"{model / name} is not what the run saved: its checksum is not that of {runs.ENVIRONMENT}"
            )


def _code(model: Path) -> set[str]:
    """The modules that a model's or tokenizer's `auto_map` names, and those that they import."""
    wanted: list[str] = []
    for name in ("config.json", "tokenizer_config.json"):
        auto_map = capsule.record(model / name, LARGEST).get("auto_map")
        named = list(auto_map.values()) if isinstance(auto_map, Mapping) else []
        for item in named:
            wanted += [f"{each}".rpartition(".")[0] for each in (item if isinstance(item, list) else [item])]
    modules: set[str] = set()
    while wanted:
        module = wanted.pop()
        path = model / f"{module}.py"
        if module.isidentifier() and module not in modules and path.is_file() and not path.is_symlink():
            modules.add(module)
            text = path.read_text(encoding="utf-8", errors="replace")
            wanted += re.findall(r"^\s*from\s+\.(\w+)\s+import\b", text, re.MULTILINE)
    return {f"{module}.py" for module in modules}


def _included(folder: Path, names: Iterable[str], taken: set[str]) -> Iterator[File]:
    """More files of the run directory, of the user's choosing, but none in place of one that goes out anyway."""
    for name in names:
        path = folder / name
        if Path(name).name != name or not path.is_file() or path.is_symlink():
            there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != "."))
            raise InputError(f"include: {folder} has no file {name}; there are {there}")
        if name in taken:
            raise InputError(f"include: {name} goes out anyway, or another of that name does")
        taken.add(name)
        yield File(f"{RUN_FOLDER}/{name}", path)


def public_config(folder: Path) -> dict[str, Any]:
    """A run's configuration as it is published: what it is, without where it was."""
    config = runs.load_raw_config(folder / runs.CONFIG)
    return public({key: value for key, value in config.items() if key == "run" or key not in changes.NAMED})


def _without_origin(config: Any) -> Any:
    if not isinstance(config, Mapping):
        return config
    return {key: _without_origin(value) for key, value in config.items() if key.lstrip("_") != "name_or_path"}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def requirements(record: Mapping[str, Any]) -> str:
    """requirements.txt: the versions that the model was trained with, local builds (+cpu) left out."""
    packages = record.get("packages")
    lines = [
        f"{name}=={_version(version)}"
        for name, version in (packages.items() if isinstance(packages, Mapping) else ())
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(name)) and _version(version)
    ]
    python, hf_llm = _version(record.get("python")) or "?", _version(record.get("hf_llm")) or "?"
    return "\n".join([f"# Python {python}, hf_llm {hf_llm}", *lines]) + "\n"


def _version(given: Any) -> str | None:
    try:
        return Version(str(given)).public
    except InvalidVersion:
        return None


def _check(file: File, folder: Path) -> None:
    """The last look before anything goes out: what names this machine or opens a door stays here."""
    if isinstance(file.content, Path) and file.content.is_symlink():
        raise InputError(f"{file.content}: a link to elsewhere; a run's files are its own")
    for chunk in _chunks(file):
        if found := leak(chunk, folder):
            raise InputError(f"{file.path}: {found}; take it out, then push again")


def _chunks(file: File) -> Iterable[str]:
    """The text of a file, piece by piece, with enough of each in the next; of weights there is only their header."""
    if file.path.endswith(".safetensors") and isinstance(file.content, Path):
        with file.content.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            yield raw.read(min(length, 16 * CHUNK)).decode("utf-8", "replace")
        return
    before = ""
    for piece in file.pieces():
        text = before + piece.decode("utf-8", "replace")
        yield text
        before = text[-500:]
