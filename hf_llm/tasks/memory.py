"""`auto_find_batch_size`: fewer rows at once where the memory is too small, with the same rows in each step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from hf_llm import checkpoints
from hf_llm.config import InputError

if TYPE_CHECKING:
    from hf_llm.tasks.resumable_trainer import ResumableTrainer

logger = logging.getLogger(__name__)


def train_within(trainer: ResumableTrainer, attempt: Callable[[str | None], Any], checkpoint: str | None) -> Any:
    """`attempt(checkpoint)`, with smaller batches and more accumulation after each time it runs out of memory.

    Trainer's own way lets the step shrink with the batch, and goes on from weights that were trained already. Here
    the next attempt begins at the last checkpoint, or with the weights and random numbers of the first one.

    Raises:
        InputError: one row at once is too much, or there are several processes, which would wait for each other.
    """
    args, run = trainer.args, Path(trainer.args.output_dir or "")
    if args.world_size > 1:
        raise InputError("trainer.auto_find_batch_size=true: only with one process; find the size with that")
    args.auto_find_batch_size = False
    if checkpoint and (found := checkpoints.facts(Path(checkpoint)).get("layout")):
        _use(trainer, found["per_device_train_batch_size"], found["gradient_accumulation_steps"])
    weights = {name: tensor.to("cpu", copy=True) for name, tensor in trainer.model.state_dict().items()}
    random_numbers = torch.get_rng_state()
    while True:
        try:
            return attempt(checkpoint)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        clear_device_cache(garbage_collection=True)
        size, steps = smaller(args.per_device_train_batch_size, args.gradient_accumulation_steps)
        logger.warning(
            "out of memory with trainer.per_device_train_batch_size=%d: going on with %d, and "
            "trainer.gradient_accumulation_steps=%d, so that a step is still of %d rows",
            *(args.per_device_train_batch_size, size, steps, size * steps),
        )
        _use(trainer, size, steps)
        checkpoint = checkpoints.last_good(run) or checkpoint
        if checkpoint is None:
            trainer.model.load_state_dict(weights)
            torch.set_rng_state(random_numbers)


def smaller(batch_size: int, accumulation: int) -> tuple[int, int]:
    """At most half the batch, and the accumulation with which a step has as many rows as before.

    Raises:
        InputError: the batch is of one row already.
    """
    if batch_size == 1:
        raise InputError("out of memory with one row at once: take a smaller model, or shorter rows")
    rows = batch_size * accumulation
    size = max(size for size in range(1, batch_size // 2 + 1) if rows % size == 0)
    return size, rows // size


def _use(trainer: ResumableTrainer, batch_size: int, accumulation: int) -> None:
    trainer.args.per_device_train_batch_size = batch_size
    trainer.args.gradient_accumulation_steps = accumulation
    trainer.optimizer, trainer.lr_scheduler = None, None  # type: ignore[assignment]
    trainer._update_auto_batch_size(trainer.args.train_batch_size)
