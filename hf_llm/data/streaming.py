"""Corpora larger than the disk: `datasets` reads them as training goes, and each batch is checked as it comes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Features, IterableDataset, IterableDatasetDict, Value

from hf_llm.config import DataConfig, InputError
from hf_llm.data import files, hub, sources
from hf_llm.data.columns import Column, listed, present, shorten
from hf_llm.data.splits import NAMES, canonical, logger, renamed


def load(
    cfg: DataConfig,
    columns: Sequence[Column],
    sample_by: str,
    labels: Sequence[str] | None,
    origin: str,
    limits: dict[str, int],
    splits: Sequence[str] | None,
) -> IterableDatasetDict:
    """As `data.load`, but rows are checked when they are read, none is counted, and no validation split is carved.

    Raises:
        InputError: also when label names are needed and neither the source nor `labels` gives them.
    """
    found = renamed(_open(cfg, columns, sample_by), cfg)
    use = [canonical(s) for s in splits] if splits else [s for s in NAMES if s in found]
    for split in use:
        if split not in found:
            raise InputError(f"no {split} split; there are {listed(found, near=split)}")
    if "validation" not in found and cfg.validation_fraction:
        logger.info("validation: none, for a stream cannot be carved; data.files.validation gives one")
    result = {}
    for split in use:
        where = f"{cfg.path or 'data.files'}, split {split}"
        dataset = _checked(found[split], where, columns, cfg, labels, origin)
        result[split] = dataset.take(limits[split]) if split in limits else dataset
    return IterableDatasetDict(result)


def _open(cfg: DataConfig, columns: Sequence[Column], sample_by: str) -> dict[str, IterableDataset]:
    folder = Path(cfg.path).expanduser() if cfg.path else None
    if cfg.path and cfg.path.startswith("builtin:"):
        raise InputError(f"data.streaming: {cfg.path} is in memory already; set data.streaming=false")
    if folder and folder.is_dir() and hub.is_saved(folder):
        return {name: split.to_iterable_dataset() for name, split in hub.load_saved(folder).items()}
    if folder and not folder.is_dir():
        sources.refuse_mistaken_path(str(cfg.path))
        return dict(hub.load(cfg))
    data_files = files.in_folder(folder, cfg) if folder else files.named(cfg.files)
    forms = {files.format_of(file, cfg) for split in data_files.values() for file in split}
    if len(forms) > 1:
        raise InputError(f"data.streaming: the files are of several formats ({', '.join(sorted(forms))}); use one")
    (form,) = forms
    builder, options = _builder(form, cfg, columns, sample_by)
    try:
        opened = dict(datasets.load_dataset(builder, data_files=data_files, streaming=True, **options))
    except Exception as error:
        raise InputError(f"{cfg.path or 'data.files'}: cannot be streamed: {shorten(str(error), 200)}") from error
    name = next(column.source for column in columns if column.kind == "text")
    if form == "txt" and name != "text":  # a text file's only column is the text, whatever it is called elsewhere
        opened = {split: dataset.rename_column("text", name) for split, dataset in opened.items()}
    return opened


def _builder(form: str, cfg: DataConfig, columns: Sequence[Column], sample_by: str) -> tuple[str, dict[str, Any]]:
    encoding = "utf-8-sig" if cfg.encoding.lower() in ("utf-8", "utf8") else cfg.encoding
    if form == "txt":
        return "text", {"sample_by": sample_by, "encoding": encoding}
    if form in ("csv", "tsv"):
        return "csv", {
            "sep": cfg.delimiter or ("\t" if form == "tsv" else ","),
            "encoding": encoding,
            "quoting": csv.QUOTE_MINIMAL if cfg.quoting else csv.QUOTE_NONE,
            "column_names": cfg.column_names,
            # every column as the text that it is: "NA" is not null, "007" is not 7
            "keep_default_na": False,
            "converters": {column.source: str for column in columns},
        }
    if form in ("json", "jsonl"):
        return "json", {"encoding": cfg.encoding}
    return form, {}


def _checked(
    dataset: IterableDataset,
    where: str,
    columns: Sequence[Column],
    cfg: DataConfig,
    labels: Sequence[str] | None,
    origin: str,
) -> IterableDataset:
    try:
        first = next(iter(dataset), None)
    except Exception as error:
        cause = error.__cause__ or error
        raise InputError(f"{where}: cannot be read: {shorten(str(cause), 200)}") from error
    if first is None:
        raise InputError(f"{where}: no rows")
    columns = present(columns, list(first), where)
    features, read = {}, {}
    for column in columns:
        if column.kind == "text":
            features[column.name] = Value("string")
            continue
        own = (dataset.features or {}).get(column.source)
        names = list(own.names) if isinstance(own, ClassLabel) else None
        wanted = [str(label) for label in labels] if labels else names
        if wanted is None:
            raise InputError(
                f"{where}: a stream's label names cannot be found beforehand; give data.labels=[…] in id order"
            )
        features[column.name] = ClassLabel(names=wanted)
        read[column.name] = _label_reader(names, wanted, origin)
    check = partial(_check_batch, columns=list(columns), where=where, read=read, skip=cfg.bad_rows == "skip")
    return dataset.select_columns([column.source for column in columns]).map(
        check,
        batched=True,
        with_indices=True,
        remove_columns=list({column.source for column in columns} - set(features)),
        features=Features(features),
    )


def _label_reader(names: list[str] | None, wanted: list[str], origin: str) -> Callable[[Any, str], int]:
    ids = {name: index for index, name in enumerate(wanted)}

    def read(value: Any, at: str) -> int:
        name = names[value] if names else str(value).lower() if isinstance(value, bool) else str(value)
        if name not in ids:
            raise InputError(f"{at}: label '{shorten(name)}' is not one of {origin}: {listed(wanted, near=name)}")
        return ids[name]

    return read


def _check_batch(
    batch: dict[str, list],
    indices: list[int],
    *,
    columns: list[Column],
    where: str,
    read: dict[str, Callable[[Any, str], int]],
    skip: bool,
) -> dict[str, list]:
    """A batch with the canonical columns, without its bad rows if `skip`."""
    result: dict[str, list] = {column.name: [] for column in columns}
    for position, index in enumerate(indices):
        at = f"{where}, row {index + 1}"
        values = {column.name: batch[column.source][position] for column in columns}
        bad = next((c for c in columns if _is_missing(values[c.name], c)), None)
        if bad and skip:
            continue
        if bad:
            raise InputError(f"{at}: null or empty in column '{bad.source}'; data.bad_rows=skip leaves such rows out")
        for name, value in values.items():
            result[name].append(read[name](value, at) if name in read else value)
    return result


def _is_missing(value: Any, column: Column) -> bool:
    if column.kind == "label":
        return value is None or value == "" or (value == -1 and not isinstance(value, bool))
    return not isinstance(value, str) or not value.strip()
