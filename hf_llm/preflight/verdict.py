"""What surely fails, which is refused, and what is doubtful, which is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_llm.config import InputError
from hf_llm.preflight import schedule

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from hf_llm.preflight import Findings

FEW_ROWS = 10  # of a class
FEW_STEPS = 10
MUCH_CUT = 0.05  # of the rows
MUCH_MEMORY = 0.8  # of the device
FAR_OFF = 10  # times the usual learning rate, or that part of it


def bytes_as_text(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"


def refuse(found: Findings, args: TrainingArguments) -> None:
    """Raises InputError for what cannot end well, with what would mend it."""
    plan, memory, disk = found.schedule, found.memory, found.disk
    if plan.steps == 0 and plan.steps_per_epoch == 0:
        rows = found.splits["train"].items
        raise InputError(
            f"trainer.dataloader_drop_last=true leaves no batch: the train split has {rows:,} {found.unit}, a batch "
            f"{plan.devices} x {plan.per_device}; lower trainer.per_device_train_batch_size, or set it to false"
        )
    if plan.steps == 0:
        key = "max_steps" if args.max_steps == 0 else "num_train_epochs"
        raise InputError(f"trainer.{key}={getattr(args, key):g}: not a step would be trained; give more than 0")
    if memory.device.startswith("cuda") and memory.certain > memory.available:
        raise InputError(
            f"model: weights, gradients and optimizer take {bytes_as_text(memory.certain)}, and {memory.device} has "
            f"{bytes_as_text(memory.available)}: take a smaller model, trainer.optim=adafactor, or spread it over "
            "several (trainer.fsdp=true)"
        )
    least = disk.checkpoint if disk.saves and not disk.there else 0
    if disk.free < max(least, disk.model):
        what = "a checkpoint takes" if least else "the model takes"
        remedy = "free some, or set runs_dir to another disk"
        if least and disk.free > disk.model:
            remedy += ", trainer.save_only_model=true or trainer.save_strategy=no"
        raise InputError(
            f"runs_dir: {what} {bytes_as_text(max(least, disk.model))}, and the disk has {bytes_as_text(disk.free)} "
            f"free: {remedy}"
        )


def doubts(found: Findings, args: TrainingArguments) -> list[str]:
    """One line for each thing that may be a mistake."""
    return [*_of_rows(found), *_of_labels(found), *_of_steps(found, args), *_of_rate(found), *_of_room(found, args)]


def _of_rows(found: Findings) -> list[str]:
    lines = []
    for name, split in found.splits.items():
        if split.seen is not None and split.seen.rows:
            held, train = split.seen.example or (0, 0)
            other = f", {split.seen.other_label:,} of them with another label" if split.seen.other_label else ""
            lines.append(
                f"{name}: {split.seen.rows:,} of {split.rows:,} rows stand in train too{other} (row {held:,} of "
                f"{name} is row {train:,} of train): what is measured on them is memory"
            )
        if split.lengths is not None and split.lengths.cut and split.lengths.cut > MUCH_CUT * (split.rows or 0):
            share = 100 * split.lengths.cut / (split.rows or 1)
            lines.append(
                f"{name}: {share:.0f} % of the rows are cut to task.{found.length_option}; raise it if you can"
            )
    return lines


def _of_labels(found: Findings) -> list[str]:
    lines = []
    train = found.labels.get("train", {})
    few = [f"{label} ({count:,})" for label, count in train.items() if count < FEW_ROWS]
    if few:
        lines.append(f"train: fewer than {FEW_ROWS} rows of {_listed(few)}")
    for name, counts in found.labels.items():
        missing = [label for label, count in counts.items() if count == 0 and train.get(label, 1)]
        if missing and name != "train":
            lines.append(f"{name}: no row of {_listed(missing)}: nothing is said of it there")
    return lines


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _of_steps(found: Findings, args: TrainingArguments) -> list[str]:
    plan = found.schedule
    lines: list[str] = []
    if not plan.steps:
        return lines
    if plan.steps < FEW_STEPS:
        lines.append(f"{plan.steps} steps in all are few: raise the epochs, or lower the batch")
    if plan.steps > 1 and plan.warmup >= plan.steps:
        lines.append(
            f"trainer.warmup_steps={plan.warmup} is not below the {plan.steps:,} steps in all: the learning rate "
            "never gets where it should"
        )
    settings: dict[str, tuple[Any, Any]] = {
        "logging": (args.logging_strategy, args.logging_steps),
        "eval": (args.eval_strategy, args.eval_steps or args.logging_steps),
    }
    for name, (strategy, interval) in settings.items():
        if strategy == "steps" and schedule.every(interval, plan.steps) > plan.steps:
            what = "no loss is logged on the way" if name == "logging" else "nothing is measured before the end"
            lines.append(f"trainer.{name}_steps={interval:g} is more than the {plan.steps:,} steps in all: {what}")
    return lines


def _of_rate(found: Findings) -> list[str]:
    usual = found.usual.settings["learning_rate"]
    if usual / FAR_OFF < found.rate < usual * FAR_OFF:
        return []
    far, likely = ("high", "may never learn") if found.rate > usual else ("low", "may learn next to nothing")
    return [
        f"trainer.learning_rate={found.rate:g} is {far}: for {found.usual.described} {usual:g} is usual; "
        f"at {FAR_OFF} times off a model {likely}"
    ]


def _of_room(found: Findings, args: TrainingArguments) -> list[str]:
    memory, disk, lines = found.memory, found.disk, []
    # transformers 5.23 renamed it
    checkpointing = "activation" if hasattr(args, "activation_checkpointing") else "gradient"
    if memory.total > MUCH_MEMORY * memory.available:
        lines.append(
            f"memory: about {bytes_as_text(memory.total)} of {bytes_as_text(memory.available)} on {memory.device}; "
            "lower trainer.per_device_train_batch_size (and raise trainer.gradient_accumulation_steps), or set "
            f"trainer.{checkpointing}_checkpointing=true"
        )
    if disk.needed is not None and disk.needed > disk.free:
        lines.append(
            f"disk: {disk.kept:,} checkpoints and the model take {bytes_as_text(disk.needed)}, and "
            f"{bytes_as_text(disk.free)} are free; lower trainer.save_total_limit"
        )
    return lines
