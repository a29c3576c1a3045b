"""Which rows say the same: rows with equal texts, equal contexts, or of one group that the user names."""

from __future__ import annotations

import hashlib

import numpy as np
from datasets import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

GROUP = "__group__"  # the column that data.group_by names, where it is none of the task's
TEXTS = ("text", "text_pair", "source", "words", "question", "context")  # canonical columns that say what a row is


def digests(rows: Dataset, columns: list[str], limit: int | None = None, limit_bytes: int | None = None) -> np.ndarray:
    """(rows,) uint64, equal where the rows' texts in `columns` are equal.

    Equal hashes of different texts are not to be expected: of a million rows and a million, one time in ten million.

    Args:
        limit: stop after about so many rows.
        limit_bytes: stop after about so many bytes of text.
    """
    parts, count, size = [], 0, 0
    for batch in rows.select_columns(columns).with_format("arrow").iter(batch_size=1000):
        texts = [[_as_text(value) for value in batch.column(name).to_pylist()] for name in columns]
        whole = texts[0] if len(texts) == 1 else [_joined(row) for row in zip(*texts, strict=True)]
        parts += [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in whole]
        count += batch.num_rows
        size += batch.nbytes
        if (limit is not None and count >= limit) or (limit_bytes is not None and size >= limit_bytes):
            break
    return np.frombuffer(b"".join(parts), dtype="<u8")


def text_columns(rows: Dataset) -> list[str]:
    """Those of `TEXTS` that the rows have."""
    return [name for name in TEXTS if name in rows.column_names]


def groups(rows: Dataset, group_by: str | None = None) -> np.ndarray:
    """(rows,) int: the number of the group that each row is in, from 0.

    Rows are in one group if their texts are equal, their contexts are equal (question answering), or their values in
    the column `group_by` are equal; and so are rows that a chain of such pairs joins.
    """
    texts = digests(rows, ["context"] if "context" in rows.column_names else text_columns(rows))
    (_, codes) = np.unique(texts, return_inverse=True)
    if group_by is None:
        return codes
    (_, others) = np.unique(digests(rows, [group_by]), return_inverse=True)
    nodes = codes.max() + 1  # a graph of texts and of groups, in which each row joins its text with its group
    size = nodes + others.max() + 1
    joined = coo_array((np.ones(len(codes), dtype=np.int8), (codes, nodes + others)), shape=(size, size))
    (_, components) = connected_components(joined, directed=False)
    return components[codes]


def _as_text(value: str | list[str] | int | None) -> str:
    if isinstance(value, str):
        return value
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _joined(texts: tuple[str, ...]) -> str:
    # lengths apart: ("ab", "c") and ("a", "bc") differ
    return "".join([*(f"{len(text)} " for text in texts[1:]), *texts])
