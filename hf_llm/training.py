"""`train`: the whole main path, on one screen."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import console, distributed, libraries, runs
from hf_llm.config import InputError, TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A finished run. `model`, `tokenizer` and `trainer` are there where it was trained in this process."""

    folder: Path
    metrics: dict[str, Any]  # split -> metric -> value
    model: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    trainer: Trainer | None = None


def train(cfg: TrainConfig) -> Run:
    """Train what `cfg` describes, or go on with it where an earlier call stopped.

    Raises:
        InputError: the data, the model or the configuration cannot be used, or the run's name is taken.
    """
    console.set_up()
    cfg = distributed.agreed(cfg)
    folder = runs.directory(cfg)
    if distributed.of_rank_0(lambda: runs.open_run(folder, cfg)) == "complete":
        _check_data_unchanged(cfg, folder)
        logger.info("%s is complete: nothing to do (for another run give another name, run=NAME)", folder)
        return Run(folder, runs.read_json(folder / runs.METRICS))
    try:
        with runs.claimed(folder), console.log_file(folder / runs.LOG):
            return _train(cfg, folder)
    except InputError:
        runs.discard(folder)
        raise


def _check_data_unchanged(cfg: TrainConfig, folder: Path) -> None:
    """Of a finished run, whose metrics say nothing about other rows. Only files of this machine are read again."""
    libraries.load()
    from hf_llm import data, tasks

    if cfg.data.streaming or not data.is_local(cfg.data):
        return
    task = tasks.get(cfg.task)
    try:
        rows = data.load(cfg.data, task.columns, seed=cfg.trainer.get("seed", 42), sample_by=task.sample_by)
    except InputError as error:
        logger.warning("%s: the data that it was trained on cannot be read any more (%s)", folder, error)
        return
    runs.check_data_unchanged(folder, data.fingerprint(rows))


def _train(cfg: TrainConfig, folder: Path) -> Run:
    libraries.load()
    from transformers import IntervalStrategy, set_seed
    from transformers import logging as transformers_logging

    from hf_llm import data, models, report, tasks
    from hf_llm import tokenizer as tokenizers
    from hf_llm.tasks.arguments import complaints_as_input_errors
    from hf_llm.tasks.base import held_out_in_memory, labels_of, texts_of

    transformers_logging.disable_progress_bar()  # of writing weight files; Trainer's and the Hub's bars stay
    task = tasks.get(cfg.task)
    args = task.arguments(cfg.trainer, folder)
    set_seed(args.seed)  # before any weight exists
    with args.main_process_first(desc="preparing the data"):
        rows = data.load(cfg.data, task.columns, seed=args.seed, sample_by=task.sample_by)
        raw = held_out_in_memory(rows)
        tokenizer = tokenizers.load(cfg.tokenizer, texts_of(raw), special_tokens=task.special_tokens)
        splits = task.encode(raw, tokenizer)
    if "validation" not in splits and args.eval_strategy != "no":
        if args.load_best_model_at_end:
            raise InputError("no validation split to find the best model on: give data.files.validation")
        logger.info("no validation split: nothing is measured while training")
        args.eval_strategy = IntervalStrategy.NO
    labels = labels_of(raw)
    task.check_best_metric(args, labels)
    model = models.build(
        cfg.model,
        auto_model=task.auto_model,
        tokenizer=tokenizer,
        labels=labels,
        max_length=task.longest_input(),
    )
    with complaints_as_input_errors():
        trainer = task.trainer(model, args, splits, tokenizer, fused=cfg.model.fused_loss, callbacks=_callbacks(cfg))
    console.one_voice(trainer)
    report.describe(trainer, splits)

    checkpoint = args.resume_from_checkpoint or runs.last_good(folder)
    fingerprint = data.fingerprint(rows)
    if checkpoint:
        runs.check_checkpoint(checkpoint)
        runs.check_data_unchanged(folder, fingerprint)
        logger.info("resuming from %s", checkpoint)
    runs.write_json(folder / runs.ENVIRONMENT, runs.environment(args.seed, fingerprint))
    with data.reporting(rows):
        trainer.train(resume_from_checkpoint=checkpoint)
    runs.save_model(trainer, folder)
    metrics = report.final(trainer, task, raw, splits, folder)
    return Run(folder, metrics, model, tokenizer, trainer)


def _callbacks(cfg: TrainConfig) -> list[TrainerCallback]:
    from transformers import EarlyStoppingCallback

    callbacks: list[TrainerCallback] = [console.log_callback()]
    if cfg.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(cfg.early_stopping_patience))
    return callbacks


def train_command(cfg: TrainConfig) -> None:
    """`hf-llm train`: train, then show the metrics and where everything is."""
    run = train(cfg)
    console.show_metrics(run.metrics, title=str(run.folder))
    console.say(f"model, metrics, plots and log: {run.folder}/")
