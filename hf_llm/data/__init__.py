"""Hub, local files or a built-in corpus -> a DatasetDict with the task's canonical columns, checked row by row."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from datasets import Dataset, DatasetDict, IterableDatasetDict, concatenate_datasets

from hf_llm.config import FORMAT, DataConfig, InputError
from hf_llm.data import format_1, offsets, sources, streaming, tags
from hf_llm.data import labels as label_names
from hf_llm.data.carving import carve
from hf_llm.data.columns import Column, listed, wanted
from hf_llm.data.decoding import STANDARD_INPUT, standard_input
from hf_llm.data.duplicates import GROUP
from hf_llm.data.files import is_local
from hf_llm.data.fingerprint import fingerprint, split_fingerprints
from hf_llm.data.formats import parse, parse_text
from hf_llm.data.jsonlines import parse_json
from hf_llm.data.rows import Rows, clean, refuse_blank_lines, report
from hf_llm.data.splits import (
    canonical,
    check_limited,
    checked_limits,
    limited,
    made_from_train,
    say_limits_without_effect,
    wanted_splits,
)
from hf_llm.data.streaming import reporting

logger = logging.getLogger(__name__)

ENCODE = {
    "label": label_names.encode,
    "tags": tags.encode,
    "roles": tags.encode_roles,
}  # names -> ids, by the kind of column

__all__ = ["canonical", "fingerprint", "is_local", "load", "read", "reporting", "split_fingerprints"]


def load(
    cfg: DataConfig,
    columns: Mapping[str, str],
    *,
    seed: int,
    sample_by: str = "document",
    labels: list[str] | None = None,
    splits: Sequence[str] | None = None,
    account: dict[str, Any] | None = None,
    run_format: int = FORMAT,
) -> DatasetDict | IterableDatasetDict:
    """The splits train, validation and test (those that there are), with the task's columns only, in the task's order.

    Texts are strings, never null or blank. Labels are ids of a ClassLabel that all splits share. Where there is no
    validation split, `cfg.validation_fraction` of train becomes it, and likewise `cfg.test_fraction` (`carving`).
    Logs, for each split, the rows read, used, and left out with the reasons.

    Args:
        columns: canonical name -> kind, as `Column` has it, with a trailing "?" if rows may do without.
        seed: of the choice of validation and test rows, and of the samples of `cfg.limits`.
        sample_by: a document of a text file, unless `cfg.sample_by` says: line, paragraph or document (= file).
        labels: a trained model's label names in id order; without them `cfg.labels`, a ClassLabel's own names, or
            those found in train, sorted.
        splits: which are wanted, by our name or one that only the source has; None for train, validation and test.
        account: gets, for each split of the source, the rows read and used, and those left out by reason.
        run_format: `format` of the run's config.yaml, for the rules by which splits and samples are made.

    Returns:
        A DatasetDict; with `cfg.streaming` an IterableDatasetDict, whose rows are checked as they are read; what
        can be known of them only then, or never, `streaming` says.

    Raises:
        InputError: one line that names the file, row and column, or the config key, and what would be right.
    """
    _check(cfg)
    needed = wanted(columns, cfg)
    sample_by = cfg.sample_by or sample_by
    limits = checked_limits(cfg)
    names, origin = (labels, "the model's labels") if labels else (cfg.labels, "data.labels")
    if cfg.streaming:
        if lists := [column.name for column in needed if column.kind not in ("text", "label", "id")]:
            raise InputError(
                f"data.streaming=true: {lists[0]} cannot be streamed, only texts and labels; set it false"
            )
        return streaming.load(cfg, needed, sample_by, names, origin, limits, splits)

    found = sources.find(cfg)
    if (
        cfg.test_fraction
        and "test" in found
        and _parts("test", found.pop("test"), needed, cfg, sample_by, may_lack_labels=True)
    ):
        raise InputError(f"data.test_fraction={cfg.test_fraction}: there is a test split already; leave one out")
    made = made_from_train(found, cfg)
    check_limited(limits, [*found, *made])
    group_by = _group_column(cfg, needed, made, run_format, say=splits is None)
    has_label = any(column.kind in ENCODE for column in needed)
    use = wanted_splits(list(found), splits, cfg, made)
    read = {split for split in use if split in found}
    if set(made) & set(use) or (made and "train" in use) or (has_label and names is None and "train" in found):
        read.add("train")  # also for the label names

    parts = {}
    for split in found:
        if split in read:
            more = [group_by] if group_by and group_by.name == GROUP and split == "train" else []
            rows = _parts(split, found[split], [*needed, *more], cfg, sample_by, may_lack_labels=splits is None)
            if rows:
                parts[split] = rows
    for column in needed:
        if column.kind in ENCODE:
            ENCODE[column.kind](parts, column.name, names, origin, optional=column.optional)
        if column.kind == "answers":
            offsets.mend(parts, column.name)
    result = {split: _joined(split, rows, account) for split, rows in parts.items()}
    if made and "train" in result:
        if run_format == 1:
            result["train"], result["validation"] = format_1.carve(result["train"], made["validation"], seed)
        else:
            result |= carve(result["train"], made, seed, group_by.name if group_by else None)
    result = {split: result[split] for split in use if split in result}
    if splits is None:
        say_limits_without_effect(limits, result)
    whole = result.get("train")
    result = format_1.limited(result, limits) if run_format == 1 else limited(result, limits, seed)
    if whole is not None and "train" in limits and has_label and labels is None:
        label_names.refuse_limit_to_one_class(whole, result["train"], limits["train"])
    return DatasetDict(result)


def _group_column(
    cfg: DataConfig, needed: Sequence[Column], made: Mapping[str, float], run_format: int, *, say: bool
) -> Column | None:
    """The column of `cfg.group_by`, if a split is made: one of `needed`, or one of its own."""
    if run_format == 1 and (cfg.group_by or cfg.test_fraction):
        key = "group_by" if cfg.group_by else "test_fraction"
        raise InputError(f"data.{key}: the run was begun before there was such an option; train another (run=NAME)")
    if cfg.group_by and not made and say:
        logger.warning("data.group_by has no effect: no split is made from train")
    if not cfg.group_by or not made:
        return None
    own = next((column for column in needed if column.source == cfg.group_by), None)
    return own or Column(GROUP, cfg.group_by, "group")


def read(
    source: str | TextIO,
    cfg: DataConfig,
    columns: Mapping[str, str],
    *,
    labels: list[str] | None = None,
    sample_by: str = "line",
    seed: int = 42,
    run_format: int = FORMAT,
) -> Dataset:
    """The rows of one file, or of an open standard input, to predict on; a sample of them, where `cfg.limits` has one
    number, whatever split it is for.

    Standard input is of `cfg.format` (txt, csv, tsv, json or jsonl); by default JSON lines if its first character that
    is not blank is "{", else a text a line.

    Raises:
        InputError: as `load`; and at a blank line of text, unless `cfg.bad_rows` is "skip".
    """
    limits = checked_limits(cfg)
    if len(limits) > 1:
        raise InputError(f"data.limits: the input is one split; give one of {', '.join(limits)}")
    needed = wanted(columns, cfg)
    sample_by = cfg.sample_by or sample_by
    if isinstance(source, str):
        (files,) = sources.files.named({"input": source}).values()
        rows = sources.parts_of(files, needed, cfg, sample_by)
    else:
        rows = [_standard_input(source, needed, cfg, sample_by)]
    if cfg.bad_rows != "skip":
        for part in rows:
            refuse_blank_lines(part)
    rows = _cleaned(rows, needed, cfg)
    names, origin = (labels, "the model's labels") if labels else (cfg.labels, "data.labels")
    for column in needed:
        if column.kind in ENCODE:
            ENCODE[column.kind]({"input": rows}, column.name, names, origin, optional=column.optional)
    given, limit = {"input": _joined("input", rows)}, dict(zip(["input"], limits.values(), strict=False))
    return (format_1.limited(given, limit) if run_format == 1 else limited(given, limit, seed))["input"]


def _standard_input(stream: TextIO, needed: Sequence[Column], cfg: DataConfig, sample_by: str) -> Rows:
    where, text = STANDARD_INPUT, standard_input(stream, cfg.encoding)
    if not text.strip():
        raise InputError(f"{where} is empty: pipe a text a line into it, or JSON lines")
    form = cfg.format
    if any(column.kind == "predicate" for column in needed) and not form:
        form = "jsonl" if text.lstrip().startswith("{") else "txt"
    if form:
        return parse(text.encode(), where, form, needed, DataConfig(**{**vars(cfg), "encoding": "utf-8"}), "line")
    if text.lstrip().startswith("{"):
        return parse_json(text, where, needed)
    return parse_text(text, where, needed, sample_by)


def _check(cfg: DataConfig) -> None:
    """What `sources` and `streaming` both rely on."""
    if bool(cfg.path) == bool(cfg.files):
        given = f"both data.path={cfg.path} and data.files are given" if cfg.path else "no data"
        raise InputError(f"{given}: give data.path (a Hub id, a folder or builtin:NAME) or data.files, and not both")
    for name, fraction in (("validation", cfg.validation_fraction), ("test", cfg.test_fraction or 0)):
        if not 0 <= fraction < 1:
            raise InputError(f"data.{name}_fraction={fraction}: give a number from 0 to below 1")
    if cfg.validation_fraction + (cfg.test_fraction or 0) >= 1:
        raise InputError(
            f"data.validation_fraction={cfg.validation_fraction} and data.test_fraction={cfg.test_fraction} leave "
            "train no rows: together they are below 1"
        )
    for key, value, choices in (
        ("sample_by", cfg.sample_by, ("line", "paragraph", "document")),
        ("bad_rows", cfg.bad_rows, ("error", "skip")),
    ):
        if value is not None and value not in choices:
            raise InputError(f"data.{key}={value}: give one of {', '.join(choices)}")


def _parts(
    split: str, source: object, needed: Sequence[Column], cfg: DataConfig, sample_by: str, *, may_lack_labels: bool
) -> list[Rows]:
    """The checked rows of a split; none for a test split that nobody asked for and whose labels are not given."""
    lenient = split == "test" and may_lack_labels
    sought = [
        Column(c.name, c.source, c.kind, c.optional or (lenient and c.kind in (*ENCODE, "answers"))) for c in needed
    ]
    rows = sources.parts_of(source, sought, cfg, sample_by)
    if lenient and not all(label_names.are_given(part, needed) for part in rows):
        logger.warning("test: left out, for its labels are not given")
        return []
    return _cleaned(rows, needed, cfg)


def _joined(split: str, rows: Sequence[Rows], account: dict[str, Any] | None = None) -> Dataset:
    dataset = concatenate_datasets([part.dataset for part in rows]) if len(rows) > 1 else rows[0].dataset
    said = report(split, rows, len(dataset), rows[0].unit)
    if account is not None:
        account[split] = said
    return dataset


def _cleaned(rows: Sequence[Rows], needed: Sequence[Column], cfg: DataConfig) -> list[Rows]:
    for part in rows:
        clean(part, needed, cfg.bad_rows)
    if not any(len(part.dataset) for part in rows):
        reasons = listed({reason: None for part in rows for reason in part.left_out})
        raise InputError(f"{rows[0].where}: no row can be used; all are left out: {reasons}")
    return list(rows)
