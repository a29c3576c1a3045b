"""HF's Trainer, with checkpoints that are whole or not there, and a resumed run that ends as if never stopped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from transformers import Trainer, TrainerCallback, TrainerState

from hf_llm import checkpoints, runs
from hf_llm.config import InputError
from hf_llm.interruption import WATCH, Interrupted
from hf_llm.tasks import memory

PROGRESS = "progress_{}.json"  # of each process: what Trainer keeps in no file


class ResumableTrainer(Trainer):
    """What Trainer's own resume leaves out, so that stopping anywhere changes no number:

    * The loss summed up since it was last logged is part of a checkpoint. So is an evaluation that was due.
    * An evaluation draws from random numbers of its own: measuring more often changes no training.
    * The state of early stopping is restored, and a run that had stopped early stays stopped.
    * A checkpoint at an epoch's end is saved once, after that epoch's evaluation.
    * A checkpoint of the last step is restored, where Trainer would take a step more.
    * A stream goes on in the pass that it was in, where Trainer would take all steps for those of the first.
    * A signal (`interruption`) stops every process at the same step, with a checkpoint.
    """

    model: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.args.restore_callback_states_from_checkpoint = True
        self.add_callback(_StopWhereSaved(self))
        self._evaluation_is_due = False  # from the checkpoint that training goes on from
        self._total_loss_scalar = 0.0
        self._epoch = 0
        self._epoch_began = 0  # after so many steps
        self._cpu_group: Any = None

    @property
    def mean_train_loss(self) -> float | None:
        """Over all steps, those before a resume too; None before the first."""
        return self._total_loss_scalar / self.state.global_step if self.state.global_step else None

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        checkpoint = resume_from_checkpoint if isinstance(resume_from_checkpoint, str) else None
        self._evaluation_is_due = bool(checkpoint and self._progress(checkpoint).get("evaluation_is_due"))
        if self.args.world_size > 1 and self._cpu_group is None:
            self._cpu_group = torch.distributed.new_group(backend="gloo")  # a GPU need not wait for what goes over it
        with WATCH.deferring():
            if checkpoint and self._restore_if_finished(checkpoint):
                return None
            attempt: Any = partial(super().train, **kwargs)
            if self.args.auto_find_batch_size:
                return memory.train_within(self, attempt, checkpoint)
            return attempt(resume_from_checkpoint)

    def _restore_if_finished(self, checkpoint: str) -> bool:
        state = TrainerState.load_from_json(os.path.join(checkpoint, checkpoints.TRAINER_STATE))
        control: Any = state.stateful_callbacks.get("TrainerControl", {})
        stopped_early = state.global_step < state.max_steps and control.get("args", {}).get("should_training_stop")
        max_steps = self.set_initial_training_values(self.args, self.get_train_dataloader())[-1]
        if not stopped_early and state.global_step < (max_steps or state.max_steps):
            return False
        self._load_from_checkpoint(checkpoint)
        self.state = self._with_best_here(state)
        if progress := self._progress(checkpoint):
            self._total_loss_scalar = progress["total_loss"] + progress["loss_since_logged"]
        if self._evaluation_is_due:
            self._determine_best_metric(self._evaluate(None, None), None)
            if state.best_global_step == state.global_step:
                state.best_model_checkpoint = checkpoint
        if self.args.load_best_model_at_end and state.best_model_checkpoint:
            self._load_best_model()
        return True

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "train_loss" in logs and self.mean_train_loss is not None:
            logs["train_loss"] = self.mean_train_loss  # Trainer's own is over the steps since the last resume
        super().log(logs, *args, **kwargs)

    # Saving

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Aside, then sealed and renamed by the main process, when all have written their part.

        Raises:
            InputError: it could not be written; the checkpoints before it are as they were.
        """
        run, state = Path(self._get_output_dir(trial)), self.state
        checkpoint = run / f"{checkpoints.PREFIX}{state.global_step}"
        aside = run / f".{checkpoint.name}"
        if self.args.should_save:
            shutil.rmtree(aside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            with self._writing_to(aside):
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if state.best_global_step == state.global_step:
                state.best_model_checkpoint = str(checkpoint)
            if self.args.should_save:
                state.save_to_json(str(aside / checkpoint.name / checkpoints.TRAINER_STATE))
                checkpoints.seal(aside / checkpoint.name, checkpoint, {"layout": self.layout()})
        except Exception as error:  # torch, safetensors and tokenizers have each their own for a full disk
            raise _not_written(checkpoint, error) from error
        finally:
            if self.args.should_save:
                shutil.rmtree(aside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.rotate(run, self.args.save_total_limit, checkpoint, state.best_model_checkpoint)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(checkpoint))

    @contextlib.contextmanager
    def _writing_to(self, aside: Path) -> Iterator[None]:
        """Trainer's own saving, in a folder where it finds nothing to delete, and from where nothing is pushed."""
        pushes, self.args.push_to_hub = self.args.push_to_hub, False
        self._get_output_dir = lambda trial: str(aside)  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self._get_output_dir  # type: ignore[method-assign]
            self.args.push_to_hub = pushes

    def layout(self) -> dict[str, int]:
        """How the rows of a step are spread; a resume in another layout has to make the same steps."""
        return {
            "num_processes": self.args.world_size,
            "per_device_train_batch_size": self._train_batch_size,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
        }

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        progress = {
            "loss_since_logged": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "evaluation_is_due": self._evaluation_is_due,
            "epoch": self._epoch,
            "epoch_began": self._epoch_began,
        }
        path = Path(output_dir) / PROGRESS.format(self.args.process_index)
        path.write_text(json.dumps(progress), encoding="utf-8")

    # Going on

    def _progress(self, checkpoint: str) -> dict[str, Any]:
        """What this process had saved; of another number of processes the mean, as Trainer logs it."""
        own = Path(checkpoint) / PROGRESS.format(self.args.process_index)
        saved = [json.loads(path.read_text(encoding="utf-8")) for path in Path(checkpoint).glob(PROGRESS.format("*"))]
        if not saved:
            return {}
        if len(saved) == self.args.world_size:
            return json.loads(own.read_text(encoding="utf-8"))
        return {**saved[0], "loss_since_logged": sum(each["loss_since_logged"] for each in saved) / len(saved)}

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Called before the first batch of a resumed training."""
        super()._load_rng_state(checkpoint)
        if checkpoint and (progress := self._progress(checkpoint)):
            self._tr_loss.fill_(progress["loss_since_logged"])
            self._total_loss_scalar = progress["total_loss"]
            self._globalstep_last_logged = progress["last_logged"]

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        epochs_trained, batches = super()._init_training_state(*args, **kwargs)
        self._with_best_here(self.state)
        self.state.compute_steps(self.args, args[0])  # when to log, save and evaluate may be another now
        checkpoint = args[3]
        if checkpoint and not hasattr(self.train_dataset, "__len__") and (progress := self._progress(checkpoint)):
            epochs_trained = progress["epoch"]
            steps = self.state.global_step - progress["epoch_began"]
            batches = 0 if self.args.ignore_data_skip else steps * self.args.gradient_accumulation_steps
            self._epoch_began = progress["epoch_began"]
        return epochs_trained, batches

    def _with_best_here(self, state: TrainerState) -> TrainerState:
        """The best checkpoint is in this run's folder, also when that was moved since."""
        if state.best_global_step:
            best = Path(self.args.output_dir or "") / f"{checkpoints.PREFIX}{state.best_global_step}"
            state.best_model_checkpoint = str(best) if best.is_dir() else None
        return state

    def _run_epoch(self, **kwargs: Any) -> None:  # type: ignore[override]
        self._epoch = kwargs["epoch"]
        if self._evaluation_is_due:  # where training was interrupted in it
            self._evaluation_is_due = False
            self.control.should_evaluate, self.control.should_save, self.control.should_log = True, True, False
            names = ("model", "trial", "epoch", "ignore_keys_for_eval", "start_time")
            self._load_rng_state(kwargs["resume_from_checkpoint"])
            self._maybe_log_save_evaluate(self._tr_loss, None, **{name: kwargs[name] for name in names})
            if self.control.should_training_stop:
                return
        super()._run_epoch(**kwargs)

    def epoch_ended(self) -> None:
        """What is saved from now on is of the next."""
        self._epoch, self._epoch_began = self._epoch + 1, self.state.global_step

    def _maybe_log_save_evaluate(
        self, tr_loss: torch.Tensor, grad_norm: Any, model: torch.nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        except _EvaluationInterrupted:
            self._evaluation_is_due = True
            self._save_checkpoint(model, trial)
            raise Interrupted(WATCH.number or 0, self.state.global_step) from None

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best and (Path(best) / checkpoints.MANIFEST).is_file() and (wrong := checkpoints.damage(Path(best))):
            raise InputError(f"{best}, the best checkpoint: {wrong}; trainer.load_best_model_at_end=true needs it")
        super()._load_best_model()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with _random_numbers_unchanged():
            return super().evaluate(*args, **kwargs)

    def signal_on_any_process(self) -> int | None:
        """The number of a signal that this process or another has got; all of them are told the same."""
        WATCH.number = self.largest(WATCH.number or 0) or None
        return WATCH.number

    def largest(self, number: int) -> int:
        """Of the numbers that the processes have."""
        if self._cpu_group is None:
            return number
        tensor = torch.tensor(number)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=self._cpu_group)
        return int(tensor)


class _EvaluationInterrupted(Exception):
    pass


class _StopWhereSaved(TrainerCallback):
    """Stops at a step's end once a signal has come, with a checkpoint; at an epoch's end, saves after evaluating."""

    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer
        self.save_at_epoch_end = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.signal_on_any_process():
            control.should_save = True
        if control.should_save and float(state.epoch).is_integer():
            self.save_at_epoch_end, control.should_save = True, False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = control.should_save or self.save_at_epoch_end
        self.save_at_epoch_end = False
        self.trainer.epoch_ended()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.is_in_train and self.trainer.signal_on_any_process():
            raise _EvaluationInterrupted

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.signal_on_any_process():
            raise Interrupted(WATCH.number or 0, state.global_step)


def _not_written(checkpoint: Path, error: Exception) -> InputError:
    last = checkpoints.folders(checkpoint.parent)
    here = f"the last one, {last[-1].name}, is whole" if last else "there is none before it"
    return InputError(
        f"{checkpoint} could not be saved ({runs.reason(error)}); {here}: make room or mend the folder, then give the "
        "same command"
    )


@contextlib.contextmanager
def _random_numbers_unchanged() -> Iterator[None]:
    python, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
