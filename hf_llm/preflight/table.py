"""The findings as a person sees them: tables on standard error, and the same as plain text in the run's log."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from hf_llm.config import plain
from hf_llm.preflight.rows import SHARES
from hf_llm.preflight.verdict import bytes_as_text

if TYPE_CHECKING:
    from hf_llm.preflight import Findings

logger = logging.getLogger(__name__)

LABELS = 20  # that are listed; of more, the most and the least frequent


def show(found: Findings, title: str) -> None:
    tables = [_rows(found, title), *([_labels(found)] if found.labels else []), _figures(found)]
    Console(stderr=True).print(*tables, sep="")
    copy = Console(file=io.StringIO(), width=100, color_system=None, force_jupyter=False)  # it would show it again
    copy.print(*tables, sep="")
    logger.debug("preflight\n%s", copy.file.getvalue())  # type: ignore[attr-defined]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=plain(title, style="table.title"), title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(plain(column), justify="right" if index else "left", no_wrap=True)
    return table


def _rows(found: Findings, title: str) -> Table:
    blocks = found.unit == "blocks"
    lengths = [*(f"{share} %" for share in SHARES), "max"]  # so many per cent of the rows are no longer
    table = _table(
        f"{title}: rows, their lengths in tokens, those seen in train",
        *("split", "rows", "tokens", *(["blocks"] if blocks else []), *lengths),
        *([] if blocks else ["cut"]),
        "seen",
    )
    for name, split in found.splits.items():
        tokens = split.lengths
        cells = [
            _number(split.rows),
            _number(tokens.tokens if tokens else None),
            *([_number(split.items)] if blocks else []),
        ]
        cells += [_number(length) for length in (tokens.percentiles if tokens else [None] * len(lengths))]
        if not blocks:
            cells.append(_number(tokens.cut if tokens else None))
        table.add_row(plain(name), *cells, _seen(found, name))
    return table


def _seen(found: Findings, name: str) -> str:
    if name == "train":
        return ""
    seen = found.splits[name].seen
    if seen is None:
        return "unknown"
    train, held = found.splits["train"].rows, found.splits[name].rows
    partly = seen.compared != (held, train)  # of more rows than are compared
    return f"{seen.rows:,}" + ("+" if partly else "")


def _labels(found: Findings) -> Table:
    table = _table("labels", "label", *found.labels)
    first = next(iter(found.labels.values()))
    by_count = sorted(first, key=lambda label: -first[label])
    shown = list(first) if len(first) <= LABELS else [*by_count[: LABELS // 2], *by_count[-LABELS // 2 :]]
    for label in shown:
        counts = [(split[label], sum(split.values())) for split in found.labels.values()]
        table.add_row(plain(label), *(f"{count:,} ({100 * count / (of or 1):.1f} %)" for count, of in counts))
    if len(shown) < len(first):
        table.caption = f"{len(first):,} labels: the {LABELS // 2} most frequent and the {LABELS // 2} least"
    return table


def _figures(found: Findings) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in figures(found).items():
        table.add_row(name, plain(value))
    return table


def figures(found: Findings) -> dict[str, str]:
    """What is one line each: name -> the arithmetic, in words."""
    plan, disk = found.schedule, found.disk
    trainable = "" if found.trainable == found.parameters else f", {found.trainable:,} of them trained"
    steps = "unknown" if plan.steps is None else f"{plan.steps:,}"
    if plan.steps_per_epoch is not None:
        steps += f" ({plan.steps_per_epoch:,} per epoch"
        steps += f", {plan.epochs:.3g} epoch{'s' * (plan.epochs != 1)})" if plan.epochs is not None else ")"
    if plan.warmup:
        steps += f", {plan.warmup:,} of warm-up"
    return {
        "model": f"{found.architecture}, {found.parameters:,} parameters{trainable}; "
        f"vocabulary {found.vocabulary:,}; on {found.memory.device}",
        "batch": f"{plan.effective_batch:,} {found.unit} = {plan.devices:,} device{'s' * (plan.devices > 1)} "
        f"x {plan.per_device:,} x {plan.accumulation:,} accumulated; about {plan.tokens_per_step:,.0f} tokens a step",
        "steps": steps,
        "rate": _rate(found),
        "memory": _memory(found),
        "disk": f"checkpoint {bytes_as_text(disk.checkpoint)}, "
        + ("how many is unknown" if disk.kept is None else f"{disk.kept:,} at once of {disk.saves:,} at most")
        + f", model {bytes_as_text(disk.model)}"
        + (f": {bytes_as_text(disk.needed)}" if disk.needed is not None else "")
        + f" of {bytes_as_text(disk.free)} free",
    }


def _rate(found: Findings) -> str:
    usual = found.usual.settings["learning_rate"]
    beside = "the usual one" if found.rate == usual else f"beside {usual:g}, the usual one"
    return f"{found.rate:g}, {found.scheduler}; {beside} for {found.usual.described}"


def _memory(found: Findings) -> str:
    memory = found.memory
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "loss": memory.loss or None if found.unit == "blocks" else 0,
    }
    said = [f"{bytes_as_text(value)} {name}" for name, value in parts.items() if value]
    unknown = [name for name in ("optimizer", "activations") if parts[name] is None]
    text = f"about {bytes_as_text(memory.total)} (estimate: {' + '.join(said)}"
    text += f"; not accounted for: {', '.join(unknown)}" if unknown else ""
    text += f"; {memory.sharded}" if memory.sharded else ""
    whose = "free" if memory.device == "cpu" else "on the device"
    return f"{text}) of {bytes_as_text(memory.available)} {whose}"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
