"""What may change between two starts of one run, and what would make it another."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from hf_llm.config import InputError

logger = logging.getLogger(__name__)

# Where a run is, on which processes, and how it is told of: nothing that it is.
NAMED = ("run", "runs_dir", "preflight", "launcher", "card", "offline", "format")

# Trainer settings that change no weight: a resumed run may have others.
FREE = (
    *("logging_strategy", "logging_steps", "logging_first_step", "report_to", "disable_tqdm", "log_level", "run_name"),
    *("save_strategy", "save_steps", "save_total_limit", "resume_from_checkpoint", "per_device_eval_batch_size"),
    *("eval_accumulation_steps", "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory"),
    *("dataloader_persistent_workers", "push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo"),
    *("hub_always_push", "hub_revision"),
)
# Those that may change together, where a step is of as many rows as before (`check_layout`).
LAYOUT = ("per_device_train_batch_size", "gradient_accumulation_steps", "auto_find_batch_size")
CHANGEABLE = {f"trainer.{name}" for name in (*FREE, *LAYOUT)} | {"data.num_proc"}


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Key -> its value there and now, of every key that differs and says something about what the run is."""
    before, after = dict(leaves(saved)), dict(leaves(now))
    return {
        key: f"{key}: {before.get(key)!r} there, {after.get(key)!r} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key.split(".")[0] not in NAMED
    }


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Each value of a nested mapping with its dotted key; an empty mapping is None."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value or None if isinstance(value, Mapping) else value


def check_layout(checkpoint: str, before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Refuse to go on with other rows in a step; announce that they are spread in another way.

    Args:
        before, now: num_processes, per_device_train_batch_size, gradient_accumulation_steps; {} where unknown.

    Raises:
        InputError: the rows of a step are more or fewer now: the schedule and the place in the data would not fit.
    """
    if not before or all(before[name] == now[name] for name in now):
        return
    changed = ", ".join(f"{name}={now[name]} (it was {before[name]})" for name in now if before[name] != now[name])
    rows = math.prod(before[name] for name in now)
    if math.prod(now.values()) != rows:
        raise InputError(
            f"{checkpoint}: a step was of {rows} rows and would be of {math.prod(now.values())}, with {changed}: give "
            "such values that processes x batch size x accumulation is the same, or start another run (run=NAME)"
        )
    logger.info("going on with %s: the same %d rows a step; the random numbers of dropout are others", changed, rows)
