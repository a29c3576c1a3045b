"""How large a checkpoint will be, and how many of them will be on the disk at once."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_llm.preflight import schedule

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainingArguments

BESIDES = 32_000  # bytes of a checkpoint that do not grow: config, random states, schedule, arguments, Trainer's state


@dataclass
class Disk:
    checkpoint: int  # bytes of one
    model: int  # bytes of what is kept at the end
    saves: int | None  # checkpoints written in all, at most; None where the number of steps is not known
    kept: int | None  # of them, how many are there at once: the limit, and one more while it is written
    free: int  # bytes
    there: int = 0  # checkpoints of an earlier start, which make room for new ones

    @property
    def needed(self) -> int | None:
        """Bytes that the run will take of what is free."""
        return None if self.kept is None else self.checkpoint * max(0, self.kept - self.there) + self.model


def of(
    args: TrainingArguments,
    plan: schedule.Schedule,
    tokenizer: PreTrainedTokenizerBase,
    weights: int,
    optimizer: int,
    folder: Path,
) -> Disk:
    """What checkpoints of `weights` and `optimizer` bytes take where `folder` is, or will be."""
    model = weights + len(tokenizer.backend_tokenizer.to_str(pretty=True).encode()) + BESIDES
    saves = _saves(args, plan)
    limit = args.save_total_limit
    kept = saves
    if saves is not None and limit:
        best = bool(args.load_best_model_at_end)  # is kept, whatever the limit, beside the newest
        kept = min(saves, max(limit, 1 + best) + 1)
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return Disk(
        checkpoint=model if args.save_only_model else model + optimizer,
        model=model,
        saves=saves,
        kept=kept,
        free=shutil.disk_usage(parent).free,
        there=sum(1 for _ in folder.glob("checkpoint-*")),
    )


def _saves(args: TrainingArguments, plan: schedule.Schedule) -> int | None:
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "no":
        return 0
    if plan.steps is None:
        return None
    if strategy == "best":  # at most one for each evaluation
        strategy, interval = str(getattr(args.eval_strategy, "value", args.eval_strategy)), args.eval_steps
    else:
        interval = args.save_steps
    if strategy == "epoch":
        return math.ceil(plan.epochs) if plan.epochs is not None else 1
    return math.ceil(plan.steps / schedule.every(interval or args.logging_steps, plan.steps)) if plan.steps else 0
