"""A hash of what a data set holds, for a run's provenance and for caches: the same content, the same hash."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, IterableDatasetDict

BATCH = 10_000  # rows; bounds the memory, and has no influence on the hash


_KNOWN: WeakKeyDictionary[Dataset, str] = WeakKeyDictionary()  # a run asks twice: for the cache, and for its record


def fingerprint(rows: Dataset | DatasetDict | IterableDatasetDict) -> str | None:
    """SHA-256 (hex) of columns, label names and values, and of the splits' names, on any machine; None when streaming.

    Unlike `Dataset._fingerprint`, it does not depend on how the data were read, cut into files or cached.
    """
    if isinstance(rows, Dataset):
        if rows not in _KNOWN:
            _KNOWN[rows] = _of_content(rows)
        return _KNOWN[rows]
    if isinstance(rows, IterableDatasetDict):
        return None
    return hashlib.sha256(repr([(split, fingerprint(rows[split])) for split in sorted(rows)]).encode()).hexdigest()


def split_fingerprints(rows: DatasetDict | IterableDatasetDict) -> dict[str, str]:
    """Split -> the fingerprint of its rows; {} when streaming."""
    return {} if isinstance(rows, IterableDatasetDict) else {split: str(fingerprint(rows[split])) for split in rows}


def _of_content(dataset: Dataset) -> str:
    total = hashlib.sha256()
    for name in sorted(dataset.column_names):
        feature = getattr(dataset.features[name], "feature", dataset.features[name])  # of a list, its items
        names = feature.names if isinstance(feature, ClassLabel) else None
        lengths, values = hashlib.sha256(), hashlib.sha256()
        for batch in dataset.select_columns(name).with_format("arrow").iter(BATCH):
            for chunk in batch.column(name).chunks:
                _update(lengths, values, chunk)
        total.update(repr((name, len(dataset), names)).encode() + lengths.digest() + values.digest())
    return total.hexdigest()


def _update(lengths, values, chunk: pa.Array) -> None:
    if pa.types.is_string(chunk.type):
        # lengths apart from the characters: ("ab", "c") and ("a", "bc") differ
        lengths.update(pc.binary_length(chunk).cast(pa.int64()).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        if len(chunk) and offsets[-1] > offsets[0]:
            values.update(memoryview(chunk.buffers()[2])[offsets[0] : offsets[-1]])
    elif pa.types.is_list(chunk.type):
        lengths.update(pc.list_value_length(chunk).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        _update(lengths, values, chunk.flatten())
    elif pa.types.is_struct(chunk.type):
        for part in chunk.flatten():
            _update(lengths, values, part)
    else:
        numbers = pc.fill_null(chunk.cast(pa.int64()), -1)  # with nulls numpy would have them as floats
        values.update(numbers.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
