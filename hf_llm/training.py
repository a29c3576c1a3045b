"""`train`: the whole main path, on one screen."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import (
    changes,
    checkpoints,
    console,
    distributed,
    interruption,
    libraries,
    offline,
    provenance,
    publishing,
    runs,
)
from hf_llm.config import FORMAT, InputError, TrainConfig, defaults

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A finished run. `model`, `tokenizer` and `trainer` are there where it was trained in this process."""

    folder: Path
    metrics: dict[str, Any]  # split -> metric -> value; empty where preflight=only trained nothing
    model: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    trainer: Trainer | None = None


def train(cfg: TrainConfig) -> Run:
    """Train what `cfg` describes, or go on with it where an earlier call stopped.

    Raises:
        InputError: the data, the model or the configuration cannot be used, or the run's name is taken.
        Interrupted: a signal came, Ctrl-C say; the same call goes on from a checkpoint.
    """
    console.set_up()
    with interruption.watching():
        return _opened(distributed.agreed(cfg))


def _opened(cfg: TrainConfig) -> Run:
    folder = runs.directory(cfg)
    if cfg.format < FORMAT:
        logger.info("%s keeps the defaults and rules of its time (format %d; now %d)", folder, cfg.format, FORMAT)
    if cfg.offline:
        offline.switch_on()
        offline.check(cfg.data, cfg.tokenizer, cfg.model)
    if cfg.preflight == "only":
        return _train(cfg, folder)  # which makes no folder
    publishing.prepare(cfg, folder)
    if distributed.of_rank_0(lambda: runs.state(folder, cfg)) == "complete":
        _check_data_unchanged(cfg, folder)
        logger.info("%s is complete: nothing to do (for another run give another name, run=NAME)", folder)
        publishing.publish(cfg, folder)
        return Run(folder, runs.read_json(folder / runs.METRICS))
    with contextlib.ExitStack() as stack:
        distributed.of_rank_0(lambda: _claim(cfg, folder, stack))
        try:
            with console.log_file(folder / runs.LOG):
                return _train(cfg, folder)
        except InputError:
            runs.discard(folder)
            raise


def _claim(cfg: TrainConfig, folder: Path, stack: contextlib.ExitStack) -> runs.State:
    """Nobody else writes to the run from here on, so that what stands there is looked at once more."""
    stack.enter_context(runs.claimed(folder))
    state = runs.state(folder, cfg)
    if state == "new":
        runs.write_config(folder, cfg)
    return state


def _check_data_unchanged(cfg: TrainConfig, folder: Path) -> None:
    """Of a finished run, whose metrics say nothing about other rows. Only files of this machine are read again."""
    libraries.load()
    from hf_llm import data, tasks

    if cfg.data.streaming or not data.is_local(cfg.data):
        return
    task = tasks.get(cfg.task)
    try:
        seed = cfg.trainer.get("seed", 42)
        rows = data.load(cfg.data, task.columns, seed=seed, sample_by=task.sample_by, run_format=cfg.format)
    except InputError as error:
        logger.warning("%s: the data that it was trained on cannot be read any more (%s)", folder, error)
        return
    runs.check_data_unchanged(folder, data.fingerprint(rows), data.split_fingerprints(rows))


def _train(cfg: TrainConfig, folder: Path) -> Run:
    libraries.load()
    import datasets
    from transformers import IntervalStrategy, set_seed
    from transformers import logging as transformers_logging

    from hf_llm import data, learnt, models, preflight, report, tasks
    from hf_llm import tokenizer as tokenizers
    from hf_llm.preflight import schedule, unused
    from hf_llm.tasks.arguments import complaints_as_input_errors
    from hf_llm.tasks.base import held_out_in_memory, texts_of

    transformers_logging.disable_progress_bar()  # of writing weight files; Trainer's and the Hub's bars stay
    task = tasks.get(cfg.task, cfg.model)
    args = task.arguments(cfg.trainer, folder)
    if runs.is_main_process():
        for line in unused.options(cfg, args, task):
            logger.warning("no effect: %s", line)
    if args.disable_tqdm:
        datasets.disable_progress_bars()  # of reading and tokenising
    set_seed(args.seed)  # before any weight exists
    read: dict[str, Any] = {}
    with args.main_process_first(desc="preparing the data"):
        rows = data.load(
            cfg.data,
            task.columns,
            seed=args.seed,
            sample_by=task.sample_by,
            account=read,
            run_format=cfg.format,
        )
        raw = held_out_in_memory(rows)
        tokenizer = tokenizers.load(cfg.tokenizer, texts_of(raw), special_tokens=task.special_tokens)
        splits = task.encode(raw, tokenizer)
    if "validation" not in splits and args.eval_strategy != "no":
        if args.load_best_model_at_end:
            raise InputError("no validation split to find the best model on: give data.files.validation")
        logger.info("no validation split: nothing is measured while training")
        args.eval_strategy = IntervalStrategy.NO
    if cfg.least_steps and hasattr(splits["train"], "__len__"):
        schedule.lengthen(args, cfg.least_steps, len(splits["train"]))
    labels = task.labels(raw)
    task.check_best_metric(args, labels)
    if cfg.preflight != "off" and runs.is_main_process():
        preflight.say(preflight.look(cfg, args, task, raw, splits, tokenizer, labels, folder), args, folder.name)
    if cfg.preflight == "only":
        return Run(folder, {}, tokenizer=tokenizer)
    model = models.build(
        cfg.model,
        auto_model=task.auto_model,
        tokenizer=tokenizer,
        labels=labels,
        max_length=task.longest_input(),
    )
    with complaints_as_input_errors():
        trainer = task.trainer(
            model,
            args,
            splits,
            tokenizer,
            fused=cfg.model.fused_loss,
            skip_nonfinite=cfg.nonfinite_loss == "skip",
            callbacks=[*_callbacks(cfg), learnt.FlatLoss(lambda: task.chance_loss(splits["train"], tokenizer))],
        )
    console.one_voice(trainer)

    fingerprints = data.fingerprint(rows), data.split_fingerprints(rows)
    checkpoint = _checkpoint(cfg, folder, trainer, *fingerprints)
    runs.write_config(folder, cfg)
    environment = provenance.environment(args.seed, fingerprints[0])
    runs.write_json(folder / runs.ENVIRONMENT, {**environment, "split_fingerprints": fingerprints[1]})
    with data.reporting(rows):
        trainer.train(resume_from_checkpoint=checkpoint)
    task.settle(trainer, raw, splits)
    runs.save_model(trainer, folder)
    _record(folder, trainer, raw, splits, read)
    usual_rate = defaults.usual(cfg).settings["learning_rate"]
    metrics = report.final(trainer, task, raw, splits, folder, usual_rate)
    publishing.write_card(cfg, folder)
    publishing.publish(cfg, folder)
    return Run(folder, metrics, model, tokenizer, trainer)


def _record(folder: Path, trainer: Any, raw: Mapping[str, Any], splits: Mapping[str, Any], read: Any) -> None:
    """What the run's card and its repetition need to know beside its metrics."""
    from hf_llm.preflight.rows import of_encoded

    if not runs.is_main_process():
        return
    train = splits["train"]
    lengths = of_encoded(train)
    runs.record(
        folder,
        rows={name: len(rows) if hasattr(rows, "__len__") else None for name, rows in raw.items()},
        read=read,
        tokens=round(lengths.tokens * _rows_seen(trainer, len(train)) / len(train)) if lengths else None,
        parameters=trainer.model.num_parameters(),
        weights={path.name: checkpoints.digest(path) for path in sorted((folder / runs.MODEL).glob("*.safetensors"))},
    )


def _rows_seen(trainer: Any, rows: int) -> int:
    """How many rows the steps of a training were of: an epoch's last step may be shorter, or left out."""
    step = trainer.get_total_train_batch_size(trainer.args)
    epoch = rows - rows % step if trainer.args.dataloader_drop_last else rows
    epochs, steps = divmod(trainer.state.global_step, max(1, -(-epoch // step)))
    return epochs * epoch + min(steps * step, epoch)


def _checkpoint(
    cfg: TrainConfig, folder: Path, trainer: Any, fingerprint: str | None, splits: Mapping[str, str]
) -> str | None:
    """Where to go on from, if anywhere; the same on every process."""
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [None]
    if runs.is_main_process():
        checkpoints.recover(folder)
        if given := trainer.args.resume_from_checkpoint:
            checkpoints.check_given(given)
        found = [given or checkpoints.last_good(folder)]
    if trainer.args.world_size > 1:
        broadcast_object_list(found)
    (checkpoint,) = found
    if checkpoint:
        runs.check_data_unchanged(folder, fingerprint, splits)
        if not trainer.args.auto_find_batch_size:
            changes.check_layout(checkpoint, checkpoints.facts(Path(checkpoint)).get("layout", {}), trainer.layout())
        begun = runs.load_raw_config(folder / runs.CONFIG)
        for change in changes.differences(begun, dataclasses.asdict(cfg)).values():
            logger.info("going on with another setting: %s", change)
        logger.info("resuming from %s", checkpoint)
        if cfg.trainer.get("save_only_model"):
            logger.warning("%s has no optimizer state (trainer.save_only_model=true): it begins anew", checkpoint)
    return checkpoint


def _callbacks(cfg: TrainConfig) -> list[TrainerCallback]:
    from transformers import EarlyStoppingCallback

    callbacks: list[TrainerCallback] = [console.log_callback()]
    if cfg.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(cfg.early_stopping_patience))
    return callbacks


def train_command(cfg: TrainConfig) -> None:
    """`hf-llm train`: train, then show the metrics and where everything is."""
    run = train(cfg)
    if cfg.preflight == "only":
        console.say("nothing was trained (preflight=only)")
        return
    console.show_metrics(run.metrics, title=str(run.folder))
    console.say(f"model, metrics, plots and log: {run.folder}/")
