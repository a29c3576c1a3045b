"""Stopped anywhere, the same command again ends as the run that was never stopped: weights, optimizer, logged losses."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import classifier, language_model
from transformers.trainer_pt_utils import safe_globals

from hf_llm import InputError, checkpoints, compose, train
from hf_llm.interruption import PREEMPTED, Interrupted
from hf_llm.tasks.exact_trainer import ExactTrainer

TIMES = ("runtime", "per_second", "jit", "preparation")
EVERY = [
    "trainer.logging_steps=3",
    "trainer.max_steps=-1",
    "trainer.num_train_epochs=2",
    "trainer.save_strategy=steps",
]


def lm(folder, arch="gpt2", *more):
    """Two epochs of 14 steps of 8 blocks, the last of 6."""
    return [
        *language_model(folder, arch),
        *EVERY,
        "data.sample_by=line",
        "data.limits.train=80",
        "trainer.per_device_train_batch_size=8",
        *more,
    ]


def logged(run):
    """Every logged number that is not a time."""
    state = json.loads((Path(checkpoints.last_good(run.folder)) / "trainer_state.json").read_text())
    return [
        {key: value for key, value in entry.items() if not any(time in key for time in TIMES)}
        for entry in state["log_history"]
    ]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.all(one == other))


def assert_same_run(whole, resumed):
    first, second = (load_file(run.folder / "model" / "model.safetensors") for run in (whole, resumed))
    assert same(first, second)
    last = [Path(checkpoints.last_good(run.folder)) for run in (whole, resumed)]
    assert last[0].name == last[1].name
    with safe_globals():  # numpy's state among them
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            assert same(*(torch.load(folder / name, weights_only=True) for folder in last)), name
    assert logged(whole) == logged(resumed)
    metrics = [dict(run.metrics["train"]) for run in (whole, resumed)]
    assert metrics[0]["loss"] == metrics[1]["loss"]
    assert whole.metrics.get("validation") == resumed.metrics.get("validation")


def stop_at(monkeypatch, method, call, number=signal.SIGTERM):
    """Send the process a signal in the middle of the n-th call of a Trainer's method, once."""
    calls = [0]
    real = getattr(ExactTrainer, method)

    def interrupted(self, *args, **kwargs):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), number)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(ExactTrainer, method, interrupted)


OPTIONS = {
    "gpt2": lambda folder: lm(folder),
    "evaluated each 4 steps": lambda folder: lm(
        folder, "gpt2", "trainer.eval_strategy=steps", "trainer.eval_steps=4", "trainer.save_steps=4"
    ),
    "rnn, accumulated": lambda folder: lm(
        folder,
        "rnn",
        "trainer.per_device_train_batch_size=2",
        "trainer.gradient_accumulation_steps=4",
        "trainer.eval_strategy=epoch",
        "trainer.save_strategy=epoch",
    ),
    "carried state": lambda folder: lm(folder, "rnn", "task.carry_state=true"),
    "best model": lambda folder: lm(
        folder,
        "fnn",
        "trainer.eval_strategy=steps",
        "trainer.eval_steps=2",
        "trainer.save_steps=2",
        "trainer.load_best_model_at_end=true",
        "trainer.learning_rate=0.1",
        "trainer.save_total_limit=1",
    ),
    "stopped early": lambda folder: lm(
        folder,
        "fnn",
        "trainer.eval_strategy=steps",
        "trainer.eval_steps=2",
        "trainer.save_steps=2",
        "early_stopping_patience=2",
        "trainer.learning_rate=0.3",
    ),
    "classifier by length": lambda folder: [
        *classifier(folder),
        *EVERY,
        "trainer.train_sampling_strategy=group_by_length",
        "trainer.eval_strategy=epoch",
    ],
    "streamed": lambda folder: [
        *lm(folder),
        "data.streaming=true",
        f"data.files.validation={folder / 'corpus.txt'}",
        "data.validation_fraction=0",
        "data.sample_by=line",
        "tokenizer=byte",
        "trainer.max_steps=20",
        "trainer.eval_strategy=epoch",
    ],
    "streamed with two workers": lambda folder: [
        *lm(folder),
        "data.streaming=true",
        "data.validation_fraction=0",
        "data.sample_by=line",
        "tokenizer=byte",
        "trainer.max_steps=20",
        "trainer.dataloader_num_workers=2",
    ],
}


@pytest.mark.parametrize("step", [1, 7, 14, 16])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_that_a_signal_stopped_ends_as_if_never_stopped(tmp_path, monkeypatch, name, step):
    options = OPTIONS[name](tmp_path)
    whole = train(compose(*options, "run=whole"))
    with monkeypatch.context() as patched:
        stop_at(patched, "training_step", step)
        try:
            train(compose(*options, "run=cut"))
            assert name == "stopped early"  # it had stopped before
        except Interrupted as stopped:
            assert stopped.exit_code == PREEMPTED
            assert (tmp_path / "outputs" / "cut" / f"checkpoint-{stopped.step}").is_dir()
    assert_same_run(whole, train(compose(*options, "run=cut")))
