"""How many rows and tokens a step takes, and how many steps there will be: Trainer's own arithmetic, done before.

`Trainer.set_initial_training_values` and `get_total_train_batch_size` (transformers/trainer.py), and the lengths of a
`DataLoader` and of accelerate's `BatchSamplerShard`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import TrainingArguments

logger = logging.getLogger(__name__)

MOST_EPOCHS = 20  # that few rows are gone through unasked


@dataclass
class Schedule:
    devices: int  # that rows are dealt out to
    per_device: int  # rows of a micro-batch on each
    accumulation: int  # micro-batches of a step
    tokens_per_step: float
    steps_per_epoch: int | None  # None of a stream
    steps: int | None  # in all; None where nothing says so
    warmup: int

    @property
    def effective_batch(self) -> int:
        """Rows (or blocks) of a step."""
        return self.devices * self.per_device * self.accumulation

    @property
    def epochs(self) -> float | None:
        """How often each row is seen."""
        if self.steps is None or not self.steps_per_epoch:
            return None
        return self.steps / self.steps_per_epoch


def of(args: TrainingArguments, rows: int | None, tokens_per_row: float, carries_state: bool = False) -> Schedule:
    """The schedule of a training on `rows` rows or blocks.

    Args:
        rows: of the train split; None where it is a stream.
        tokens_per_row: the mean.
        carries_state: the rows are read as `tasks.streams.BlockStreams`, which fill the last batch up.
    """
    parallel = args.parallelism_config
    copies = math.prod(getattr(parallel, name, 1) for name in ("tp_size", "cp_size", "sp_size")) if parallel else 1
    processes = args.world_size // copies
    devices = processes * max(1, args.n_gpu)
    size = args.train_batch_size  # of a process: per device, times the GPUs where one process has several
    accumulation = args.gradient_accumulation_steps
    per_epoch = None
    if rows is not None:
        if carries_state:
            rows = math.ceil(rows / (size * processes)) * size * processes
        elif args.dataloader_drop_last and args.train_sampling_strategy in ("random", "group_by_length"):
            rows -= rows % (size * processes * accumulation)  # sampling.EpochSampler keeps whole steps
        batches = _batches(rows, size, processes, args)
        per_epoch = math.ceil(batches / accumulation)
    if args.max_steps >= 0:
        steps: int | None = args.max_steps
    else:
        steps = None if per_epoch is None else math.ceil(args.num_train_epochs * per_epoch)
    if per_epoch == 0:
        steps = 0
    tokens = devices * args.per_device_train_batch_size * accumulation * tokens_per_row
    warmup = args.get_warmup_steps(steps or 0)
    return Schedule(devices, args.per_device_train_batch_size, accumulation, tokens, per_epoch, steps, warmup)


def lengthen(args: TrainingArguments, least_steps: int, rows: int | None) -> None:
    """Raise `args.num_train_epochs`, which nobody gave, to `least_steps` steps on `rows` rows, or to MOST_EPOCHS."""
    given, per_epoch = args.num_train_epochs, of(args, rows, 0).steps_per_epoch
    epochs = min(MOST_EPOCHS, math.ceil(least_steps / per_epoch)) if per_epoch else 0
    if epochs > given:
        args.num_train_epochs = float(epochs)
        logger.info(
            "few rows: %d epochs in place of %g (trainer.num_train_epochs=%g for no more)", epochs, given, given
        )


def _batches(rows: int, size: int, processes: int, args: TrainingArguments) -> int:
    """Micro-batches of an epoch, on each process."""
    whole = math.floor if args.dataloader_drop_last else math.ceil
    batches = whole(rows / size)
    split = getattr(args.accelerator_config, "split_batches", False)  # a batch is dealt out, not a batch to each
    return batches if split else whole(batches / processes)


def every(interval: float, steps: int) -> int:
    """`logging_steps`, `eval_steps` and `save_steps`: a number of steps, or below 1 a share of all of them."""
    return math.ceil(steps * interval) if interval < 1 else int(interval)
