"""What is about to be trained on what, how large and how long it will be: said before any weight exists.

`look` finds it out, `table.show` prints it, and `verdict.refuse` ends what cannot end well. No random number is drawn:
the weights of a run do not depend on whether it was looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import SchedulerType

from hf_llm import models
from hf_llm.config import TrainConfig, defaults
from hf_llm.config.defaults import Usual
from hf_llm.preflight import disk, memory, schedule, table, verdict
from hf_llm.preflight.rows import Lengths, Seen, label_counts, of_encoded, seen_in_train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

    from hf_llm.tasks import Task
    from hf_llm.tasks.base import Splits

logger = logging.getLogger(__name__)


@dataclass
class Split:
    rows: int | None  # None of a stream
    items: int | None  # what batches are made of: rows, or blocks of a language model
    lengths: Lengths | None
    seen: Seen | None


@dataclass
class Findings:
    unit: str  # what batches are made of: rows or blocks
    length_option: str  # of the task, what cuts long rows
    splits: dict[str, Split]
    labels: dict[str, dict[str, int]]  # split -> label -> rows
    architecture: str
    parameters: int
    trainable: int
    vocabulary: int
    schedule: schedule.Schedule
    rate: float  # the learning rate, at its highest
    scheduler: str
    usual: Usual  # the settings that suit what is trained
    memory: memory.Memory
    disk: disk.Disk
    doubts: list[str]


def look(
    cfg: TrainConfig,
    args: TrainingArguments,
    task: Task,
    raw: Mapping[str, Any],
    splits: Splits,
    tokenizer: PreTrainedTokenizerBase,
    labels: list[str] | None,
    folder: Path,
) -> Findings:
    """What there is to say of the training of `cfg` in `folder`.

    Args:
        raw: split -> rows with the canonical columns; train may be a stream, of which little is known.
        splits: the same, encoded.

    Raises:
        InputError: the model cannot be built.
    """
    seen = seen_in_train(raw)
    found = {
        name: Split(_size(raw[name]), _size(encoded), of_encoded(encoded), seen.get(name))
        for name, encoded in splits.items()
    }
    train = found["train"]
    longest = task.longest_input() or 0
    blocks = task.unit == "blocks"
    if train.items and train.lengths:
        mean = train.lengths.tokens / train.items
        longest = min(longest, train.lengths.tokens if blocks else train.lengths.percentiles[-1])
    else:
        mean = float(longest)
    plan = schedule.of(args, train.items, mean, getattr(task, "carry_state", False))

    sketch = partial(
        models.sketch,
        cfg.model,
        auto_model=task.auto_model,
        tokenizer=tokenizer,
        labels=labels,
        max_length=task.longest_input(),
    )
    with torch.device("meta"):
        model = sketch()
    size = min(args.per_device_train_batch_size, train.items or args.per_device_train_batch_size)
    predicted = longest  # tokens of an item whose logits the loss holds
    if model.config.is_encoder_decoder:
        predicted = min(longest, getattr(task, "max_target_length", longest))
    elif not (blocks or task.auto_model == "AutoModelForCausalLM"):
        predicted = 0  # a class an item, or a few a token
    needs, optimizer = _memory(cfg, args, model, sketch, size, longest, task.auto_model, predicted)
    space = disk.of(args, plan, tokenizer, _saved_bytes(model), optimizer or 0, folder)
    result = Findings(
        unit=task.unit,
        length_option=task.length_option,
        splits=found,
        labels=label_counts(raw, task.target, labels) if labels and task.target and task.has_classes else {},
        architecture=type(model).__name__,
        parameters=model.num_parameters(),
        trainable=model.num_parameters(only_trainable=True),
        vocabulary=model.config.vocab_size,
        schedule=plan,
        rate=args.learning_rate,
        scheduler=SchedulerType(args.lr_scheduler_type).value,
        usual=defaults.usual(cfg),
        memory=needs,
        disk=space,
        doubts=[],
    )
    result.doubts = verdict.doubts(result, args)
    return result


def _memory(
    cfg: TrainConfig,
    args: TrainingArguments,
    model: PreTrainedModel,
    sketch: partial[PreTrainedModel],
    size: int,
    longest: int,
    auto_model: str,
    predicted: int,
) -> tuple[memory.Memory, int | None]:
    """The estimate for a device, and the size of the optimizer's state as a checkpoint has it."""
    shares = memory.shares(args)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    gradients = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    optimizer = memory.optimizer_bytes(model, args)
    fused = (
        cfg.model.fused_loss
        and auto_model == "AutoModelForCausalLM"
        and not (args.label_smoothing_factor or args.torch_compile)
        and shares.weights == 1
    )
    if args.world_size > 1 and not shares.words:
        gradients *= 2  # DistributedDataParallel has buckets to exchange them in
    needs = memory.Memory(
        weights=weights // shares.weights,
        gradients=gradients // shares.gradients,
        optimizer=None if optimizer is None else optimizer // shares.optimizer,
        activations=memory.activation_bytes(sketch, args, size, longest),
        loss=memory.loss_bytes(model, args, size * predicted, fused) if predicted else 0,
        device="cpu" if args.device.type == "cpu" else str(args.device),
        available=memory.available(args.device),
        sharded=shares.words,
    )
    return needs, optimizer


def _saved_bytes(model: PreTrainedModel) -> int:
    """Of the weights on the disk: tied ones once, buffers that are saved included."""
    return sum({id(value): value.nbytes for value in model.state_dict(keep_vars=True).values()}.values())


def _size(split: Any) -> int | None:
    return len(split) if hasattr(split, "__len__") else None


def say(found: Findings, args: TrainingArguments, title: str) -> None:
    """What `look` found, on standard error and in the run's log; with a line for each doubt.

    Raises:
        InputError: the training surely fails; after all has been said.
    """
    table.show(found, title=title)
    for doubt in found.doubts:
        logger.warning("doubtful: %s", doubt)
    verdict.refuse(found, args)
