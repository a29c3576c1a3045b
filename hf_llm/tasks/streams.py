"""Truncated back-propagation through time: a causal LM goes on, in each batch, from where the last one left off.

The corpus is cut into as many streams as a micro-batch has rows, over all processes; row r of batch t is block t of
stream r, read from the state that block t-1 left, through which no gradient flows (Williams and Peng 1990; Zaremba et
al. 2014; `batchify` and `repackage_hidden` of pytorch/examples' word_language_model, which drops the corpus's tail).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Cache

from hf_llm.config import InputError
from hf_llm.models.state import CACHE_NAME, StateLayer, detach, holds_state
from hf_llm.tasks.packing import PackedBlocks
from hf_llm.tasks.sampling import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments


class BlockStreams(torch.utils.data.Dataset):
    """The blocks of a corpus in the order in which batches read them: item t * rows + r is block t of stream r.

    A stream is a run of neighbouring blocks. Where they do not divide, the first streams have one more than the
    others, whose row in the last batch is all padding. Batches of rows / processes items, dealt out in turn as
    accelerate does, give each process the same streams throughout: an order for a `SequentialSampler`.

    Args:
        blocks: the corpus.
        rows: of a micro-batch, over all processes: how many streams there are.
    """

    def __init__(self, blocks: PackedBlocks, rows: int):
        self.blocks, self.rows = blocks, rows
        self.shortest, self.longer = divmod(len(blocks), rows)  # blocks of each stream; streams with one more

    def __len__(self) -> int:
        return self.rows * (self.shortest + (self.longer > 0))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`input_ids`, `shift_labels` and `attention_mask`, all (block_size,), `row`, the block's place in the corpus,
        and `position`: t, the same in a batch."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        position, row = divmod(index, self.rows)
        T = self.blocks.block_size
        item = {
            "input_ids": torch.zeros(T, dtype=torch.int64),
            "shift_labels": torch.full((T,), IGNORE_INDEX),
            "attention_mask": torch.zeros(T, dtype=torch.bool),
            "row": torch.tensor(-1),
        }
        if position < self.shortest + (row < self.longer):
            block = self.blocks[row * self.shortest + min(row, self.longer) + position]
            size = len(block["input_ids"])
            item["input_ids"][:size] = block["input_ids"]
            item["shift_labels"][:size] = block["shift_labels"]
            item["attention_mask"][:size] = True
            item["row"] = block["row"]
        return {**item, "position": position}


class CarriedState:
    """What the model remembers of the streams of one process, from one block to the next.

    Args:
        streams: of all processes.
        processes: their number.
        process: this one's index.
    """

    def __init__(self, streams: int, processes: int, process: int):
        self.layout = {"streams": str(streams), "processes": str(processes)}
        self.file = f"carried_state_{process}.safetensors"
        self.cache: Cache | None = None
        self.position = 0  # of the block to come

    def before(self, position: int) -> Cache | None:
        """The state to read block `position` of the streams from; None, which is zero, where they begin.

        Raises:
            InputError: there is none, for the checkpoint that training goes on from had none, or another's.
        """
        if position == 0:  # of every epoch
            return None
        if self.cache is None or self.position != position:
            raise InputError(
                f"task.carry_state=true: the checkpoint has no state of {self.layout['streams']} streams on "
                f"{self.layout['processes']} process(es) before their block {position}: resume with the batch size, "
                "accumulation and number of processes that it was saved with, and without trainer.save_only_model"
            )
        return self.cache

    def keep(self, cache: Cache, position: int) -> None:
        """`cache` is what block `position` left. The next block's gradients do not reach back into it."""
        self.cache, self.position = detach(cache), position + 1

    def save(self, folder: str) -> None:
        """Write it to a checkpoint, this process's to a file of its own."""
        if self.cache is None:
            return
        tensors = {
            f"{index}.{number}": state.contiguous()
            for index, layer in enumerate(self.cache.layers)
            for number, state in enumerate(cast(StateLayer, layer).states)
        }
        numbers = {
            "position": self.position,
            "layers": len(self.cache.layers),
            "seen_tokens": self.cache.get_seq_length(),
        }
        metadata = {**self.layout, **{name: str(number) for name, number in numbers.items()}}
        save_file(tensors, Path(folder) / self.file, metadata=metadata)

    def load(self, folder: str, device: torch.device) -> None:
        """The state that a checkpoint holds, if it is of these streams; else none."""
        self.cache = None
        path = Path(folder) / self.file
        if not path.is_file():
            return
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if any(metadata[name] != value for name, value in self.layout.items()):
                return
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        layers = [StateLayer() for _ in range(int(metadata["layers"]))]
        for index, layer in enumerate(layers):
            count = sum(name.startswith(f"{index}.") for name in tensors)
            states = tuple(tensors[f"{index}.{number}"] for number in range(count))
            layer.advance(states, num_tokens=int(metadata["seen_tokens"]))
        self.cache, self.position = Cache(layers=list(layers)), int(metadata["position"])


def check_state(model: PreTrainedModel) -> None:
    """Refuse a model that has no state to carry.

    Raises:
        InputError: naming the key.
    """
    if not _has_state(model):
        raise InputError(
            f"task.carry_state=true: {type(model).__name__} keeps no recurrent state; set it to false, or take "
            "model=rnn or model=fnn"
        )


def check_layout(args: TrainingArguments) -> None:
    """Refuse what would put the streams' blocks in another order or other rows.

    Raises:
        InputError: naming the key.
    """
    here = "task.carry_state=true"
    strategy, loader = args.train_sampling_strategy, args.accelerator_config
    settings = {  # what breaks it -> whether it is set
        f"trainer.train_sampling_strategy={strategy}": strategy in ("group_by_length", "batch_rebalance"),
        "trainer.auto_find_batch_size=true": args.auto_find_batch_size,
        "trainer.dataloader_in_order=false": not args.dataloader_in_order,
        "trainer.accelerator_config.split_batches=true": getattr(loader, "split_batches", False),
        "trainer.accelerator_config.dispatch_batches=true": getattr(loader, "dispatch_batches", False),
        "trainer.parallelism_config": args.parallelism_config is not None,
    }
    for name, is_set in settings.items():
        if is_set:
            raise InputError(f"{here}: a row of each batch has to go on where it stopped, so leave {name} out")
    if args.n_gpu > 1:
        raise InputError(f"{here}: one process on {args.n_gpu} GPUs cannot hold it; use torchrun, a process a GPU")


def _has_state(model: PreTrainedModel) -> bool:
    """Found out with a toy input: the library's own stateful models hand their state on in other ways."""
    if not model._is_stateful:
        return False
    was_training = model.training
    model.eval()  # draws no random number
    try:
        with torch.no_grad():
            outputs = model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=True)
        return holds_state(outputs.get(CACHE_NAME))
    finally:
        model.train(was_training)
