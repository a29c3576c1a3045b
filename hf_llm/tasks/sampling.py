"""Which rows make a step, the same on any number of processes, with any batch per device and any accumulation.

An order of rows is a function of the seed and the epoch. Processes exchange gradients, so each needs as many batches
as the others, and accelerate fills the last of them with the first rows again, which then count twice. Here they are
filled with rows that carry no loss: row i without its targets has the index ~i = -1 - i.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

IGNORE_INDEX = -100  # no loss at this target: torch's cross_entropy and transformers agree on the number
TARGETS = ("labels", "shift_labels")
ROWS_IN_TURN = 16  # of a stream: one by one, two workers are slower than none


class EpochSampler(Sampler[int]):
    """Rows in an order that depends on the seed and the epoch alone, so that a resumed epoch goes on in it.

    Args:
        size: the number of rows.
        step: rows of an optimizer step, over all processes and accumulated batches.
        drop_last: leave out the rows after the last whole step.
    """

    def __init__(self, size: int, step: int, seed: int, drop_last: bool = False):
        self.step, self.seed, self.epoch = step, seed, 0
        self.size, self.kept = size, size - size % step if drop_last else size

    def __len__(self) -> int:
        return self.kept

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's dataloader before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(self.order(generator)[: self.kept])

    def order(self, generator: torch.Generator) -> list[int]:
        """All rows."""
        return torch.randperm(self.size, generator=generator).tolist()


class LengthGroupedSteps(EpochSampler):
    """Each step's rows are of like length, longest first, with the steps in random order.

    transformers' own sampler leaves the batches of every fifty in order, the longest first. Where length tells
    something of the label, training then sees one class for a while and forgets the other: of SMS spam, which is
    longer, a BERT learns nothing in an epoch, and 99 % with the batches shuffled.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int, drop_last: bool = False):
        super().__init__(len(lengths), step, seed, drop_last)
        self.lengths = list(lengths)

    def order(self, generator: torch.Generator) -> list[int]:
        rows = get_length_grouped_indices(self.lengths, self.step, generator=generator)
        whole = len(rows) // self.step  # a shorter step stays the last
        steps = [*torch.randperm(whole, generator=generator).tolist(), whole]
        return [row for step in steps for row in rows[step * self.step : (step + 1) * self.step]]


class FilledSampler(Sampler[int]):
    """What `sampler` yields, and to make up the last `multiple` its last row, without targets.

    A copy of that row, for it is of the length of its neighbours, where rows are sorted by length.
    """

    def __init__(self, sampler: Sampler[int], multiple: int):
        self.sampler, self.multiple = sampler, multiple

    def __len__(self) -> int:
        size = len(self.sampler)  # type: ignore[arg-type]
        return size + -size % self.multiple

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        row = None
        for row in self.sampler:
            yield row
        if row is not None:
            yield from [~row] * (len(self) - len(self.sampler))  # type: ignore[arg-type]


class FilledRows(Dataset):
    """The rows of a dataset; index ~i is row i without its targets. Its length is that of the dataset."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index] if index >= 0 else without_targets(self.rows[~index])

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Torch's dataloader asks for a batch at once, which `datasets` answers in one look-up."""
        numbers = [max(index, ~index) for index in indices]
        fetch = getattr(self.rows, "__getitems__", None)
        rows = fetch(numbers) if fetch else [self.rows[number] for number in numbers]
        return [row if index >= 0 else without_targets(row) for index, row in zip(indices, rows, strict=True)]


class FilledStream(IterableDataset):
    """A stream's rows, each once, and to make up the last `multiple` its last row without targets.

    Every process reads the whole stream, in the same order, and accelerate's `IterableDatasetShard` keeps its share of
    each batch: a row that cannot be used stops all of them. Of several workers each reads its share of the files; they
    take turns every `ROWS_IN_TURN` rows, so that neither the batch nor the number of processes has a say in the order.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], multiple: int, **loader: Any):
        """`loader`: of torch's DataLoader, num_workers and what belongs to it."""
        self.rows, self.multiple = rows, multiple
        self.workers: Iterable[list[dict[str, Any]]] | None = None
        if loader.get("num_workers"):
            self.workers = DataLoader(rows, batch_size=ROWS_IN_TURN, collate_fn=list, **loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        count, row = 0, None
        for row in self.rows if self.workers is None else chain.from_iterable(self.workers):
            yield row
            count += 1
        if row is not None:
            for _ in range(-count % self.multiple):
                yield without_targets(row)


def without_targets(row: dict[str, Any]) -> dict[str, Any]:
    """A row that a batch can be filled with: it adds nothing to the loss, nor to what an evaluation counts."""
    replaced = {name: _constant(row[name], IGNORE_INDEX) for name in TARGETS if name in row}
    return {**row, **replaced, **({"counts": _constant(row["counts"], 0)} if "counts" in row else {})}


def _constant(like: Any, value: int) -> Any:
    if isinstance(like, torch.Tensor):
        return torch.full_like(like, value)
    return [value] * len(like) if isinstance(like, Sequence) else value
