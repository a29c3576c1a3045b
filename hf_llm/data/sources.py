"""Where the rows of each split are, and reading them: files, a folder, the Hub or a built-in corpus."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_llm.config import DataConfig, InputError
from hf_llm.data import builtin, files, formats, hub, references
from hf_llm.data.columns import Column
from hf_llm.data.rows import Rows
from hf_llm.data.splits import renamed


def find(cfg: DataConfig) -> dict[str, Any]:
    """Split (our name) -> its files, not read yet, or its (Dataset, where)."""
    if cfg.files:
        return renamed(files.named(cfg.files), cfg)
    path = str(cfg.path)
    if path.startswith("builtin:"):
        found: dict[str, Any] = dict(builtin.load(path.removeprefix("builtin:")))
    elif (folder := Path(path).expanduser()).is_dir():
        if not hub.is_saved(folder):
            return renamed(files.in_folder(folder, cfg), cfg)
        found = dict(hub.load_saved(folder))
    else:
        refuse_mistaken_path(path)
        found = dict(hub.load(cfg))
    return {split: (data, f"{path}, split {theirs}") for split, (theirs, data) in _with_names(found, cfg).items()}


def _with_names(found: dict[str, Any], cfg: DataConfig) -> dict[str, tuple[str, Any]]:
    return renamed({theirs: (theirs, data) for theirs, data in found.items()}, cfg)


def refuse_mistaken_path(path: str) -> None:
    """A path that cannot be a Hub id (OWNER/NAME or NAME) is a folder that is not there."""
    if os.path.isfile(os.path.expanduser(path)):
        raise InputError(f"data.path={path} is a file: give data.files.train={path}")
    if "://" in path:
        raise InputError(f"data.path={path} is a URL: the URL of a file goes into data.files.train")
    if path.startswith(("/", ".", "~")) or path.count("/") > 1 or "\\" in path:
        raise InputError(f"data.path={path}: no such folder (from {os.getcwd()})")
    if os.path.splitext(path)[1].lower() in (*formats.ENDINGS, *files.COMPRESSIONS):
        raise InputError(f"data.path={path}: no such folder, and a file goes into data.files.train")


def parts_of(source: Any, columns: Sequence[Column], cfg: DataConfig, sample_by: str) -> list[Rows]:
    """The rows of a split, file by file.

    Raises:
        InputError: a file cannot be read or is empty, or lacks a column.
    """
    if isinstance(source, tuple):
        dataset, where = source
        return [Rows(references.lifted_dataset(_flat(dataset), columns), where)]
    parts = []
    for file in source:
        form = files.format_of(file, cfg) if not file.lower().endswith(".zip") else None
        for name, raw in files.contents(file):
            parts.append(formats.parse(raw, name, form or files.format_of(name, cfg), columns, cfg, sample_by))
    return parts


def _flat(dataset: Dataset) -> Dataset:
    """Without an indices mapping (left by `select` or a slice of a split): its table has the rows in order."""
    return dataset if dataset._indices is None else dataset.flatten_indices()
