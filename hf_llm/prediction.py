"""`predict`: what a model makes of every row of a file or of standard input: a label, tags, an answer, a text."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import console, report, runs
from hf_llm.config import InputError, PredictConfig

if TYPE_CHECKING:
    from hf_llm.tasks import Task


def predict(cfg: PredictConfig) -> list[dict[str, Any]]:
    """A row per input row, in the same order; what is in it the task's page says. Of a text classifier the text,
    `label`, `score`, and `scores` by class (they sum to 1).

    Raises:
        InputError: the run, the model or the input cannot be used, or the task is to `generate`.
    """
    return _predict(cfg)[1]


def _predict(cfg: PredictConfig) -> tuple[Task, list[dict[str, Any]]]:
    console.set_up()
    runs.check_output(cfg.output)
    from hf_llm import data, saved

    if cfg.input == "-" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            "input=-: several processes cannot share standard input; give input=FILE, or start one process"
        )
    if cfg.input != "-" and not Path(cfg.input).is_file():
        raise InputError(f"input={cfg.input}: no such file")
    loaded = saved.load(cfg)
    if not loaded.task.predicts:
        name = type(loaded.model).__name__
        raise InputError(f"{name} predicts tokens, not labels: use `hf-llm generate` or `hf-llm evaluate`")
    columns = loaded.task.input_columns()
    source = loaded.data(cfg.data)
    source.columns = {name: column for name, column in source.columns.items() if name in columns}
    source.bad_rows = cfg.data.get("bad_rows", "error")  # a row that is left out shifts all after it: only if asked
    source.limits = cfg.data.get("limits") or {}  # the run's own are of its splits, and not of this input
    rows = data.read(
        sys.stdin if cfg.input == "-" else cfg.input,
        source,
        columns,
        seed=loaded.data_seed,
        run_format=loaded.run_format,
    )
    with tempfile.TemporaryDirectory() as scratch:
        args = loaded.task.arguments(loaded.trainer(cfg.trainer), scratch)
        trainer: Any = loaded.task.trainer(loaded.model, args, {}, loaded.tokenizer)
        return loaded.task, list(loaded.task.predict(trainer, rows, loaded.tokenizer))


def predict_command(cfg: PredictConfig) -> None:
    """`hf-llm predict`: JSON lines, to standard output or a file; at a terminal what the task shows in their place."""
    task, rows = _predict(cfg)
    if not runs.is_main_process():
        return
    if cfg.output == "-" and sys.stdout.isatty() and rows and task.picture(rows[0]) is not None:
        console.show(task.picture(row) for row in rows)
        return
    lines = report.json_lines(rows)
    if cfg.output == "-":
        sys.stdout.write(lines)
    else:
        runs.write(Path(cfg.output), lines)
        console.say(f"{lines.count(chr(10))} rows in {cfg.output}")
