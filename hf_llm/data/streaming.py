"""Corpora larger than the memory or the disk: each row is read, and checked, when training comes to it.

The rows are checked as strictly as those of whole files, and a bad one stops the training with the same line. What no
one can know of a stream beforehand is known later, or never:

* a bad row is found when it is reached; so is a column that a later file lacks;
* the label names have to be given, and that train has one class only is found when the stream ends, or its limit; of
  several dataloader workers none sees all rows, and it is not found;
* the rows read, used and left out are said when the stream first ends, else when training does; each of several such
  workers speaks for itself;
* no split is made from train, a limit takes the first rows, and the data have no fingerprint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from datasets import ClassLabel, Features, IterableDataset, IterableDatasetDict, Value

from hf_llm.config import DataConfig, InputError
from hf_llm.data import labels as label_names
from hf_llm.data import records, sources
from hf_llm.data.columns import Column, listed
from hf_llm.data.records import NO_LABEL, Part, Record
from hf_llm.data.rows import Tally, report
from hf_llm.data.splits import check_limited, logger, say_limits_without_effect, wanted_splits


class Streams(IterableDatasetDict):
    """The splits as `data.load` returns them when streaming."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[Stream] = []


@contextlib.contextmanager
def reporting(splits: Mapping[str, Any]) -> Iterator[None]:
    """While `splits` are trained on. Afterwards says what was read of those that were not read to their ends.

    A dataloader's worker hands an error on with its traceback in the message: only the error's own words are kept.
    """
    try:
        yield
    except InputError as error:
        raise InputError(str(error).rsplit("InputError: ", 1)[-1].strip()) from error
    for stream in splits.streams if isinstance(splits, Streams) else ():
        stream.report(note=" (not to the end)")


@dataclass
class Stream:
    """The rows of a split, and what has come of them in this process; the latest pass over each part counts."""

    split: str
    parts: list[Part]
    columns: tuple[Column, ...]
    cfg: DataConfig
    sample_by: str
    ids: dict[str, int] = field(default_factory=dict)  # of the label names
    origin: str = ""  # where they come from, for messages
    limit: int | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)  # by the part's name
    ended: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)  # label names
    unit: str = "row"
    reported: bool = False

    def rows(self, part: Part) -> Iterator[dict[str, Any]]:
        """The part's rows with the canonical columns; a bad row is an error, or is left out and counted."""
        tally = self.tallies[records.name_of(part)] = Tally()
        for record in records.records(part, self.columns, self.cfg, self.sample_by, tally):
            self.unit = record.unit
            problem = next((p for c in self.columns if (p := _problem(record, c))), None)
            if problem and self.cfg.bad_rows == "skip":
                tally.left_out[problem] += 1
            elif problem:
                raise InputError(f"{record.at()}: {problem}; data.bad_rows=skip leaves such rows out")
            else:
                tally.used += 1
                yield {column.name: self._value(record, column) for column in self.columns}
        self.ended.add(records.name_of(part))
        if self.limit is None and self.ended >= self._share():
            self.end()

    def _value(self, record: Record, column: Column) -> str | int:
        value = record.values[column.source]
        if column.kind == "label":
            name = _label_name(value, record, column)
            if name not in self.ids:
                raise InputError(f"{record.at()}: {label_names.unlisted(name, list(self.ids), self.origin)}")
            self.met.add(name)
            return self.ids[name]
        if not isinstance(value, str):
            raise InputError(f"{record.at()}: column '{column.source}' holds {records.kind_of(value)}, not string")
        return value

    def _share(self) -> set[str]:
        """The parts that this process is to read: of several dataloader workers, each has every so many-th."""
        worker = _worker()
        parts = self.parts[worker.id :: worker.num_workers] if worker else self.parts
        return {records.name_of(part) for part in parts}

    def end(self) -> None:
        """To be called when the last row has been read.

        Raises:
            InputError: no row can be used, or those of train are of one class.
        """
        where, worker = records.name_of(self.parts[0]), _worker()
        if not any(tally.used for tally in self.tallies.values()):
            reasons = listed({reason: None for tally in self.tallies.values() for reason in tally.left_out})
            raise InputError(f"{where}: no row can be used; all are left out: {reasons}")
        if self.split == "train" and len(self.met) == 1 and (worker is None or worker.num_workers == 1):
            (name,) = self.met
            if self.limit is not None:
                raise InputError(f"{label_names.limited_to_one_class(self.limit, name)}, or raise the limit")
            raise InputError(f"{where}: {label_names.one_class(name)}")
        self.report(f" by dataloader worker {worker.id}" if worker and worker.num_workers > 1 else "")

    def report(self, note: str = "") -> None:
        """One INFO line, once."""
        used = sum(tally.used for tally in self.tallies.values())
        if used and not self.reported:
            self.reported = True
            report(self.split, list(self.tallies.values()), used, self.unit, note)

    def dataset(self) -> IterableDataset:
        """Lazy, and a shard a part; with a limit, a single shard."""
        features = Features(
            {c.name: ClassLabel(names=list(self.ids)) if c.kind == "label" else Value("string") for c in self.columns}
        )
        if self.limit is None:
            return IterableDataset.from_generator(_rows, features, {"parts": self.parts, "stream": self})
        return IterableDataset.from_generator(_first_rows, features, {"stream": self})


def _rows(parts: list[Part], stream: Stream) -> Iterator[dict[str, Any]]:
    for part in parts:
        yield from stream.rows(part)


def _first_rows(stream: Stream) -> Iterator[dict[str, Any]]:
    yield from islice(_rows(stream.parts, stream), stream.limit)
    stream.end()


def _worker() -> Any:
    from torch.utils.data import get_worker_info

    return get_worker_info()


def _problem(record: Record, column: Column) -> str | None:
    value = record.values[column.source]
    if value is NO_LABEL:
        return f"no label (-1) in column '{column.source}'"
    if value is None:
        return f"null in column '{column.source}'"
    if isinstance(value, str) and not value.strip():
        return f"empty {column.kind} in column '{column.source}'"
    return None


def _label_name(value: Any, record: Record, column: Column) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # pandas makes whole numbers with gaps so
        return str(int(value))
    if isinstance(value, float):
        raise InputError(f"{record.at()}: label {value} {label_names.REAL}")
    if isinstance(value, (str, int)):
        return str(value)
    raise InputError(f"{record.at()}: {label_names.no_label(column.source, records.kind_of(value))}")


def load(
    cfg: DataConfig,
    columns: Sequence[Column],
    sample_by: str,
    labels: Sequence[str] | None,
    origin: str,
    limits: dict[str, int],
    splits: Sequence[str] | None,
) -> Streams:
    """As `data.load`, with what this module's docstring says. The first row of each split is checked here.

    Raises:
        InputError: also when label names are needed and neither the source nor `labels` gives them.
    """
    if cfg.path and cfg.path.startswith("builtin:"):
        raise InputError(f"data.streaming: {cfg.path} is in memory already; set data.streaming=false")
    for key, value in (("group_by", cfg.group_by), ("test_fraction", cfg.test_fraction)):
        if value:
            raise InputError(
                f"data.{key}={value}: no split is made from a stream, whose rows are not known beforehand; give "
                "data.files.validation and data.files.test, or set data.streaming=false"
            )
    found = sources.find(cfg)
    use = wanted_splits(list(found), splits, cfg)
    check_limited(limits, found)
    if splits is None:
        say_limits_without_effect(limits, use)
    if "validation" not in found and cfg.validation_fraction:
        logger.info("validation: none, for a stream cannot be carved; data.files.validation gives one")
    result = Streams()
    for split in use:
        stream = Stream(split, _parts(found[split]), tuple(columns), cfg, sample_by, limit=limits.get(split))
        if any(column.kind == "label" for column in columns):
            if split == "test" and splits is None and not _has_labels(stream):
                logger.warning("test: left out, for the labels are not given, at least in the first row")
                continue
            _name_labels(stream, labels, origin)
        result[split] = stream.dataset()
        result.streams.append(stream)
        if stream.limit is not None:
            logger.info(
                "%s: the first %s rows of the stream (data.limits): of one that is sorted they are no fair sample",
                *(split, f"{stream.limit:,}"),
            )
        next(iter(result[split]), None)
        stream.tallies.clear()  # a first look is no reading
    return result


def _parts(source: Any) -> list[Part]:
    """Files as they are; what `datasets` streams, a part a shard."""
    if not isinstance(source, tuple):
        return list(source)
    dataset, where = source
    count = dataset.num_shards if isinstance(dataset, IterableDataset) else 1
    if count == 1:
        return [source]
    return [(dataset.shard(count, i), f"{where}, shard {i + 1} of {count}") for i in range(count)]


def _has_labels(stream: Stream) -> bool:
    """Whether the first row has what could be a label."""
    columns = [replace(column, optional=column.kind == "label") for column in stream.columns]
    first = next(records.records(stream.parts[0], columns, stream.cfg, stream.sample_by, Tally()), None)
    return first is not None and not any(
        column.source not in first.values or _problem(first, column)
        for column in stream.columns
        if column.kind == "label"
    )


def _name_labels(stream: Stream, labels: Sequence[str] | None, origin: str) -> None:
    column = next(column for column in stream.columns if column.kind == "label")
    own = None if labels else records.label_names(stream.parts[0], column, stream.cfg)
    if not labels and own is None:
        where = records.name_of(stream.parts[0])
        raise InputError(
            f"{where}: a stream's label names cannot be found beforehand; give data.labels=[…] in id order"
        )
    names = label_names.checked(labels or own or [], origin)
    stream.ids, stream.origin = {name: index for index, name in enumerate(names)}, origin
