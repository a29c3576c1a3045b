"""Tags of any kind (text, whole numbers, ClassLabel) -> lists of ClassLabel ids that every split shares."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, List
from datasets.table import InMemoryTable

from hf_llm.config import InputError
from hf_llm.data import labels as label_names
from hf_llm.data.rows import Rows
from hf_llm.data.words import flat as flattened

logger = logging.getLogger(__name__)


def encode(
    splits: Mapping[str, Sequence[Rows]], name: str, labels: Sequence[str] | None, origin: str, *, optional: bool
) -> None:
    """Makes column `name` of every part a list of ClassLabels whose ids follow `labels`, or the names found.

    Names that only a held-out split has are counted in, with a warning: rare tags often stand in one split alone. No
    row of train has them, so they are never predicted; where they are to be found they are missed.

    Raises:
        InputError: `labels` are given, and a tag is none of them.
    """
    parts = [part for rows in splits.values() for part in rows]
    have = [part for part in parts if name in part.dataset.column_names]
    if len(have) < len(parts) or (optional and labels is None):
        for part in have:
            part.dataset = part.dataset.remove_columns(name)
        return
    flat = {id(part): _names(part, name) for part in parts}
    if labels is None:
        labels, origin = _found(splits, flat), "the data"
    labels = label_names.checked(labels, origin)
    for part in parts:
        ids = pc.index_in(flat[id(part)], pa.array(labels, pa.string()))
        lengths = pc.fill_null(pc.list_value_length(part.dataset.data.column(name)), 0).to_numpy()
        if ids.null_count:
            index = pc.index(pc.is_null(ids), True).as_py()
            row = int(np.searchsorted(np.cumsum(lengths), index, side="right"))
            tag = flat[id(part)][index].as_py()
            raise InputError(f"{part.at(row)}: {label_names.unlisted(str(tag), labels, origin)}")
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        lists = pa.ListArray.from_arrays(offsets, pc.cast(ids, pa.int64()))
        features = part.dataset.features.copy()
        features[name] = List(ClassLabel(names=list(labels)))
        table = part.dataset.data.table
        table = table.set_column(table.column_names.index(name), name, lists)
        part.dataset = Dataset(InMemoryTable(table.replace_schema_metadata(None).cast(features.arrow_schema)))


def encode_roles(
    splits: Mapping[str, Sequence[Rows]], name: str, labels: Sequence[str] | None, origin: str, *, optional: bool
) -> None:
    """As `encode`; but roles that are none of `labels` get the ids after theirs: rare ones turn up in any new text.

    A model with those labels never predicts them, so that they count as missed.
    """
    parts = [part for rows in splits.values() for part in rows]
    if labels is not None and all(name in part.dataset.column_names for part in parts):
        found = {tag for part in parts for tag in pc.unique(_names(part, name)).to_pylist()}
        if unseen := sorted(found - set(labels)):
            logger.warning("%s: none of %s; these tags count as missed", ", ".join(unseen), origin)
            labels = [*labels, *unseen]
    encode(splits, name, labels, origin, optional=optional)


def _names(part: Rows, name: str) -> pa.Array:
    feature = part.dataset.features[name]
    flat = flattened(part.dataset.data.column(name))
    inner = getattr(feature, "feature", None)
    if isinstance(inner, ClassLabel):
        return pc.take(pa.array(inner.names, pa.string()), flat)
    return pc.cast(flat, pa.string())


def _found(splits: Mapping[str, Sequence[Rows]], flat: Mapping[int, pa.Array]) -> list[str]:
    """The names: a ClassLabel's own where all parts have the same, else those that occur, sorted."""
    parts = [part for rows in splits.values() for part in rows]
    own: set[tuple[str, ...]] = {
        tuple(getattr(getattr(part.dataset.features["tags"], "feature", None), "names", ())) for part in parts
    }
    if len(own) == 1 and (names := own.pop()):
        return list(names)
    of_split = {
        split: {name for part in rows for name in pc.unique(flat[id(part)]).to_pylist()}
        for split, rows in splits.items()
    }
    everywhere = set().union(*of_split.values())
    for split, here in of_split.items():
        if "train" in of_split and (unseen := here - of_split["train"]):
            some = ", ".join(sorted(unseen)[:8]) + (", …" if len(unseen) > 8 else "")
            logger.warning("%s: tags that no row of train has cannot be learnt, and count as missed: %s", split, some)
    if "train" in of_split and len(of_split["train"]) < 2:
        raise InputError(f"{splits['train'][0].where}: every word has the tag '{everywhere.pop()}'; two are needed")
    return sorted(everywhere)
