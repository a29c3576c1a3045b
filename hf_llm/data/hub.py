"""Data sets of the Hub, and folders that `save_to_disk` wrote, through `datasets` itself; its errors in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import yaml
from datasets import Dataset, DatasetDict, IterableDatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import DatasetCard, constants, hf_hub_download, resolve_revision
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RemoteEntryNotFoundError

from hf_llm.config import DataConfig, InputError
from hf_llm.data.columns import shorten


def load(cfg: DataConfig) -> DatasetDict | IterableDatasetDict:
    """Every split of the Hub data set `cfg.path`, and what `cfg.splits` slices from them ("train[:1%]").

    Raises:
        InputError: it does not exist, cannot be reached, is gated, is a script, names places outside of itself,
            or its subset is not there.
    """
    options: dict[str, Any] = {"name": cfg.subset, "revision": _looked_at(cfg), "streaming": cfg.streaming}
    if cfg.num_proc and not cfg.streaming:
        options["num_proc"] = cfg.num_proc
    table = cached(cfg) if datasets.config.HF_HUB_OFFLINE and not cfg.streaming else None
    try:
        if table is not None:
            return _from_cache(cfg, table)
        splits = load_dataset(cfg.path, **options)
        for theirs in cfg.splits.values():
            if "[" in theirs:
                splits[theirs] = load_dataset(cfg.path, split=theirs, **options)
    except Exception as error:
        raise InputError(f"data.path={cfg.path}: {_explained(error, cfg)}") from error
    return splits


def _looked_at(cfg: DataConfig) -> str | None:
    """The revision to load, held to the commit whose card was looked at; as given where the Hub has no answer.

    Raises:
        InputError: the card names files outside of its repository: of this machine, or of another host, to which
            `datasets` would send a request.
    """
    import httpx2

    assert cfg.path is not None
    if datasets.config.HF_HUB_OFFLINE:
        return cfg.revision  # then `datasets` reads no card, but the tables it made before
    where = f"data.path={cfg.path}"
    try:
        revision = resolve_revision(cfg.path, repo_type="dataset", revision=cfg.revision)
        for name in (datasets.config.REPOCARD_FILENAME, datasets.config.REPOYAML_FILENAME):
            try:
                path = hf_hub_download(cfg.path, name, repo_type="dataset", revision=revision)
            except RemoteEntryNotFoundError:
                continue
            for place in _places(_metadata(Path(path), f"{where}: {name}")):
                outside = re.match(r"(?!hf://)[A-Za-z][\w+.-]*:|[\\/~]", place)
                if outside or "::" in place or ".." in re.split(r"[\\/]", place):
                    raise InputError(f"{where}: {name} names {place}, a place outside of its repository")
    except (HfHubHTTPError, httpx2.HTTPError, HFValidationError, OSError):
        return cfg.revision  # which `load_dataset` meets as well, and `_explained` explains
    return revision


def _metadata(path: Path, where: str) -> dict[str, Any]:
    """What `datasets` will make of it, by the same means."""
    try:
        if path.suffix == ".md":
            return DatasetCard.load(path).data.to_dict()
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} cannot be read: {shorten(str(error), 200)}") from error
    return loaded if isinstance(loaded, dict) else {}


def _places(metadata: dict[str, Any]) -> Iterator[str]:
    """Where the card says that the files of each subset are."""
    configs = metadata.get("configs")
    waiting: list[Any] = [
        config.get(key)
        for config in (configs if isinstance(configs, list) else [])
        for key in ("data_files", "data_dir")
        if isinstance(config, dict)
    ]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, (dict, list)):
            waiting += node.values() if isinstance(node, dict) else node


def cached(cfg: DataConfig) -> Path | None:
    """Where `datasets` keeps the tables that it made of the data set at this revision; None where it has none.

    Offline it would itself take those that were made last, whatever their revision.
    """
    assert cfg.path is not None
    revision = cfg.revision or "main"
    ref = Path(constants.HF_HUB_CACHE) / f"datasets--{cfg.path.replace('/', '--')}" / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    root = Path(datasets.config.HF_DATASETS_CACHE)
    wanted = cfg.path.replace("/", "___").replace("_", "").lower()  # datasets writes MyData as my_data
    folders = (
        [path for path in root.iterdir() if path.name.replace("_", "").lower() == wanted] if root.is_dir() else []
    )
    found = [path for folder in folders for path in folder.glob(f"*/*/{commit}") if path.is_dir()]
    if cfg.subset or len(found) > 1:
        found = [path for path in found if path.parent.parent.name == (cfg.subset or "default")]
    return found[0] if found else None


def _from_cache(cfg: DataConfig, table: Path) -> DatasetDict:
    assert cfg.path is not None
    builder = Cache(
        repo_id=cfg.path,
        dataset_name=cfg.path.rpartition("/")[2],
        config_name=table.parent.parent.name,
        version=table.parent.name,
        hash=table.name,
    )
    splits = builder.as_dataset()
    for theirs in cfg.splits.values():
        if "[" in theirs:
            splits[theirs] = builder.as_dataset(split=theirs)
    return splits


def _explained(error: Exception, cfg: DataConfig) -> str:
    message = str(error)
    first = shorten(message, 250)
    if "scripts are no longer supported" in message:
        return "the data set is a script, which datasets no longer runs; try data.revision=refs/convert/parquet"
    if isinstance(error, DatasetNotFoundError):
        if "gated" in message:
            return "the data set is gated: ask for access on its page, then log in with `hf auth login`"
        if cfg.revision and "evision" in message:
            return f"the data set has no data.revision={cfg.revision}"
        return (
            "no such folder here, and no such data set on the Hub (or it is private: log in with `hf auth login`); "
            "an id is OWNER/NAME"
        )
    if "onfig" in message and (found := re.search(r"\[(.*?)\]", message, re.DOTALL)):
        given = f"no data.subset={cfg.subset}" if cfg.subset else "give data.subset"
        return f"{given}; there are {shorten(found[1], 200)}"
    if isinstance(error, (ConnectionError, TimeoutError)) or "OfflineMode" in message or "reach" in message:
        return (
            "no such folder here, and the Hub cannot be reached "
            f"(offline, or HF_HUB_OFFLINE=1?): {first}; data read once before are found in the cache"
        )
    if isinstance(error, DatasetsError) and error.__cause__ is not None:
        return f"{shorten(message, 120)}: {shorten(str(error.__cause__), 150)}"
    return first or type(error).__name__


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_saved(folder: Path) -> DatasetDict:
    """What `save_to_disk` wrote; a single data set is the train split.

    Raises:
        InputError: files are missing or broken.
    """
    try:
        saved = load_from_disk(str(folder))
    except Exception as error:
        raise InputError(f"data.path={folder}: save_to_disk's folder is broken: {shorten(str(error), 200)}") from error
    return DatasetDict({"train": saved}) if isinstance(saved, Dataset) else saved
