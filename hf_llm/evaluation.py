"""`evaluate`: the metrics of a saved run, or of any saved model, on a split or a file."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from hf_llm import console, runs
from hf_llm.config import FORMAT, EvaluateConfig, InputError

logger = logging.getLogger(__name__)


def evaluate(cfg: EvaluateConfig) -> dict[str, Any]:
    """The metrics of `cfg.split`, the same whatever the batch size.

    Returns:
        Metric name -> value; for a classifier also `confusion_matrix`, rows true and columns predicted.

    Raises:
        InputError: the run, the model, the data or the split is not there or does not fit.
    """
    console.set_up()
    runs.check_output(cfg.output)
    from hf_llm import data, saved
    from hf_llm.tasks.base import held_out_in_memory

    loaded = saved.load(cfg)
    source = loaded.data(cfg.data)
    if source.files is not None and not isinstance(source.files, dict):
        source.files = {cfg.split: source.files}
    if not source.path and not source.files:
        raise InputError("data: missing; name what to evaluate on, as in data.files=FILE or data.path=HUB_ID")
    if others := [name for name in cfg.data.get("limits") or {} if data.canonical(name) != data.canonical(cfg.split)]:
        raise InputError(
            f"data.limits.{others[0]}: what is evaluated is the {cfg.split} split; give data.limits.{cfg.split}=N, or "
            f"split={others[0]}"
        )
    if loaded.run_format < FORMAT:
        logger.info("run=%s: splits and limits are made by the rules of its time (format 1)", cfg.run)
    with tempfile.TemporaryDirectory() as scratch:
        args = loaded.task.arguments(loaded.trainer(cfg.trainer), scratch)
        raw = data.load(
            source,
            loaded.task.columns,
            seed=loaded.data_seed,
            sample_by=loaded.task.sample_by,
            labels=loaded.labels,
            splits=[cfg.split],
            run_format=loaded.run_format,
        )
        rows = raw[cfg.split]
        if loaded.task.predicts:  # they are gone through again
            rows = held_out_in_memory({"evaluated": rows})["evaluated"]
        encoded = loaded.task.encode({"evaluated": rows}, loaded.tokenizer)["evaluated"]
        trainer: Any = loaded.task.trainer(loaded.model, args, {}, loaded.tokenizer)
        return loaded.task.outcome(trainer, rows, encoded).metrics


def evaluate_command(cfg: EvaluateConfig) -> None:
    """`hf-llm evaluate`: a table, and where asked a JSON file."""
    metrics = evaluate(cfg)
    console.show_metrics({cfg.split: metrics}, title=str(cfg.run or cfg.model.pretrained))
    if cfg.output:
        runs.write_json(Path(cfg.output), metrics)
