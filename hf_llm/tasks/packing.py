"""Documents -> blocks of `block_size` tokens, so that every token of the corpus is predicted exactly once.

The corpus is read as one stream, `<eos> d1 <eos> d2 <eos> …`, and block i is tokens [i·T, i·T + T + 1): T inputs
and, one to the right, T targets. Neighbouring blocks share one token, so no target is lost at a border, and the last,
shorter block is kept. (run_clm.py drops the first target of each block and the tail of every 1,000 documents.)
With a `context` a block is read after so many of the tokens before it, which are no targets again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset
from torch.nn.utils.rnn import pad_sequence

from hf_llm.tasks.sampling import IGNORE_INDEX

COUNTED = ("num_words", "num_bytes", "num_unknown")  # of a document


class EndToEnd:
    """The lists of a column, end to end: any slice of their values, cut out of the Arrow table when asked for."""

    def __init__(self, rows: Dataset, column: str):
        if rows._indices is not None:  # a selection: the table still holds all rows
            rows = rows.flatten_indices()
        lists = rows.data.column(column)
        self.lengths: np.ndarray = pc.list_value_length(lists).to_numpy()  # of each list
        self._chunks = [chunk.flatten().to_numpy(zero_copy_only=True) for chunk in lists.chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def cut(self, start: int, stop: int) -> np.ndarray:
        """Values [start, stop), from as many Arrow chunks as they lie in."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            offset = int(self._starts[first])
            parts.append(self._chunks[first][start - offset : stop - offset])
            start, first = int(self._starts[first + 1]), first + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def counts(self, size: int) -> np.ndarray:
        """How often each of the values 0 to `size` - 1 is there, (size,); others are left out."""
        total = np.zeros(size, dtype=np.int64)
        for chunk in self._chunks:
            for start in range(0, len(chunk), 1 << 22):  # bincount makes 8 bytes of each value
                part = chunk[start : start + (1 << 22)]
                total += np.bincount(part[(part >= 0) & (part < size)], minlength=size)
        return total


class PackedBlocks(torch.utils.data.Dataset):
    """The blocks of a tokenised corpus, cut out when asked for: nothing is copied or stored twice.

    Args:
        documents: columns `input_ids` (each document with its end-of-text token), and those of `COUNTED`.
        block_size: T, in tokens.
        eos_token_id: what precedes the first document.
        bos_token_id: a token that the tokenizer put before each document; it is input, never a target.
        count_text: also give each block's `counts` (`COUNTED`, of the documents that end in it), from which an
            evaluation tells perplexity per word and bits per byte.
        context: tokens that are read before a block, as many as there are.
    """

    def __init__(
        self,
        documents: Dataset,
        block_size: int,
        eos_token_id: int,
        bos_token_id: int | None = None,
        count_text: bool = False,
        context: int = 0,
    ):
        self.block_size, self.context = block_size, context
        self.bos_token_id = None if bos_token_id == eos_token_id else bos_token_id
        self._prefix = np.array([eos_token_id], dtype=np.int32)
        self._corpus = EndToEnd(documents, "input_ids")
        self.document_lengths = self._corpus.lengths  # tokens, with the end-of-text
        self.num_tokens = len(self._corpus)  # targets; the <eos> in front is input only
        self._counts: np.ndarray | None = None
        if count_text:
            self._counts = self._count_text(documents)

    def _count_text(self, documents: Dataset) -> np.ndarray:
        """(blocks, 3): words, bytes and unknown tokens of the documents whose last token is a target of the block."""
        block = np.maximum(np.cumsum(self.document_lengths) - 1, 0) // self.block_size
        counts = np.zeros((len(self), len(COUNTED)), dtype=np.int64)
        for column, name in enumerate(COUNTED):
            np.add.at(counts[:, column], block, np.asarray(documents[name]))
        return counts

    def target_counts(self, vocabulary: int) -> np.ndarray:
        """How often each token is a target, (vocabulary,)."""
        counts = self._corpus.counts(vocabulary)
        if self.bos_token_id is not None:
            counts[self.bos_token_id] = 0
        return counts

    def __len__(self) -> int:
        return -(-self.num_tokens // self.block_size)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        start = index * self.block_size
        stop = min(start + self.block_size, self.num_tokens)
        first = max(start - self.context, 0)
        cut = self._corpus.cut
        window = cut(first - 1, stop) if first else np.concatenate([self._prefix, cut(0, stop)])
        block = torch.from_numpy(window.astype(np.int64))  # (context + T + 1,)
        item = {**_inputs_and_targets(block, self.bos_token_id, start - first), "row": torch.tensor(index)}
        if self._counts is not None:
            item["counts"] = torch.from_numpy(self._counts[index])
        return item


class StreamedBlocks(torch.utils.data.IterableDataset):
    """The same blocks from a stream of tokenised documents, holding one block at a time.

    Of several dataloader workers each packs its own shards of the documents, and ends with a shorter block.
    """

    def __init__(
        self,
        documents: IterableDataset,
        block_size: int,
        eos_token_id: int,
        bos_token_id: int | None = None,
        context: int = 0,
    ):
        self.documents = documents
        ends = {"eos_token_id": eos_token_id, "bos_token_id": bos_token_id}
        self.options = {"block_size": block_size, **ends, "context": context}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return stream_blocks(self.documents, **self.options)  # type: ignore[arg-type]


def stream_blocks(
    documents: Iterable[dict[str, Any]],
    block_size: int,
    eos_token_id: int,
    bos_token_id: int | None = None,
    context: int = 0,
) -> Iterator[dict[str, list[int]]]:
    """Blocks of `context` + `block_size` inputs; the first and the last are filled up with ignored targets."""
    bos_token_id = None if bos_token_id == eos_token_id else bos_token_id
    nothing = [0] * len(COUNTED)
    past: list[int] = []
    window, counts = [eos_token_id], nothing

    def block(window: list[int]) -> dict[str, list[int]]:
        item = _inputs_and_targets(torch.tensor(past + window), bos_token_id, len(past))
        lists = {name: tensor.tolist() for name, tensor in item.items()}
        missing = context + block_size - len(lists["input_ids"])  # processes exchange blocks of one size
        lists["input_ids"] += [eos_token_id] * missing
        lists["shift_labels"] += [IGNORE_INDEX] * missing
        return {**lists, "counts": counts}

    for document in documents:
        tokens = list(document["input_ids"])
        while len(window) + len(tokens) > block_size + 1:
            room = block_size + 1 - len(window)
            window += tokens[:room]
            yield block(window)
            past = (past + window[:-1])[-context:] if context else []
            window, counts, tokens = window[-1:], nothing, tokens[room:]
        window += tokens
        counts = [count + document[name] for count, name in zip(counts, COUNTED, strict=True)]
    if len(window) > 1:
        yield block(window)


def _inputs_and_targets(block: torch.Tensor, bos_token_id: int | None, context: int) -> dict[str, torch.Tensor]:
    """(T + 1,) tokens -> input_ids (T,) and, one to the right, shift_labels (T,), but for the first `context`."""
    targets = block[1:].clone()
    targets[:context] = IGNORE_INDEX
    if bos_token_id is not None:
        targets[targets == bos_token_id] = IGNORE_INDEX
    return {"input_ids": block[:-1], "shift_labels": targets}


def collate(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack blocks to (B, T). Only the corpus's last block is shorter, and the first where the others have a context:
    they are padded on the right, where a causal model's earlier positions cannot see it, and carry no loss there; so
    neither mask nor pad token is needed."""
    batch = {
        "input_ids": _pad([block["input_ids"] for block in blocks], 0),
        "shift_labels": _pad([block["shift_labels"] for block in blocks], IGNORE_INDEX),
    }
    batch["labels"] = batch["input_ids"]  # Trainer looks for this key before it counts the targets in shift_labels
    if "position" in blocks[0]:  # of `streams.BlockStreams`, whose rows may end before the batch: no state of padding
        batch["position"] = blocks[0]["position"]
        mask = torch.stack([block["attention_mask"] for block in blocks])
        if not mask.all():
            batch["attention_mask"] = mask
    if "row" in blocks[0]:
        batch["row"] = torch.stack([block["row"] for block in blocks])
    if "counts" in blocks[0]:
        batch["counts"] = torch.stack([torch.as_tensor(block["counts"]) for block in blocks])
    return batch


def _pad(rows: list[Any], value: int) -> torch.Tensor:
    tensors = [torch.as_tensor(row) for row in rows]
    if all(len(tensor) == len(tensors[0]) for tensor in tensors):
        return torch.stack(tensors)
    return pad_sequence(tensors, batch_first=True, padding_value=value)
