"""Stopped anywhere, the same command again ends as the run that was never stopped, to the last bit."""

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import classifier, language_model, masked_language_model
from transformers.trainer_pt_utils import safe_globals

from hf_llm import InputError, checkpoints, compose, train
from hf_llm.interruption import PREEMPTED, Interrupted
from hf_llm.tasks.classification_trainer import ClassificationTrainer
from hf_llm.tasks.language_model_trainer import LanguageModelTrainer
from hf_llm.tasks.masked_lm_trainer import MaskedLMTrainer

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
        "data.limits.train=60",
        "trainer.save_steps=5",
        "trainer.per_device_train_batch_size=8",
        *more,
    ]


def logged(run):
    """Every logged number that is not a time; the last entry, Trainer's summary, is compared with the metrics."""
    return [
        {key: value for key, value in entry.items() if not any(time in key for time in TIMES)}
        for entry in run.trainer.state.log_history
        if "train_loss" not in entry
    ]


def losses(run):
    return [entry["loss"] for entry in logged(run) if "loss" in entry]


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

    def interrupting(real):
        def method(self, *args, **kwargs):
            calls[0] += 1
            if calls[0] == call:
                os.kill(os.getpid(), number)
            return real(self, *args, **kwargs)

        return method

    for owner in (LanguageModelTrainer, ClassificationTrainer, MaskedLMTrainer):
        monkeypatch.setattr(owner, method, interrupting(getattr(owner, method)))


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
    "masked": lambda folder: [*masked_language_model(folder), *EVERY, "trainer.save_steps=5"],
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


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """Name of the options -> their folder and their whole run, trained once."""
    runs = {}

    def run(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp("whole")
            runs[name] = folder, train(compose(*OPTIONS[name](folder), "run=whole"))
        return runs[name]

    return run


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("step", [7, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 14, 16))])
def test_a_run_that_a_signal_stopped_ends_as_if_never_stopped(never_stopped, monkeypatch, name, step):
    folder, whole = never_stopped(name)
    options = [*OPTIONS[name](folder), f"run=cut-{step}"]
    with monkeypatch.context() as patched:
        stop_at(patched, "training_step", step)
        stopped = pytest.raises(Interrupted) if step <= whole.metrics["train"]["steps"] else contextlib.nullcontext()
        with stopped as caught:
            train(compose(*options))
    if caught is not None:
        assert caught.value.exit_code == PREEMPTED
        assert (folder / "outputs" / f"cut-{step}" / f"checkpoint-{caught.value.step}").is_dir()
    assert_same_run(whole, train(compose(*options)))


@pytest.mark.parametrize("name", ["evaluated each 4 steps", "best model", "stopped early", "classifier by length"])
@pytest.mark.parametrize("call", [1, 3])
def test_a_signal_in_an_evaluation_leaves_it_to_the_resumed_run(never_stopped, monkeypatch, name, call):
    folder, whole = never_stopped(name)
    options = [*OPTIONS[name](folder), f"run=evaluating-{call}"]
    with monkeypatch.context() as patched:
        stop_at(patched, "prediction_step", call)
        with pytest.raises(Interrupted):
            train(compose(*options))
    assert_same_run(whole, train(compose(*options)))


def test_a_signal_between_steps_stops_at_once_and_loses_nothing(never_stopped, monkeypatch):
    folder, whole = never_stopped("gpt2")
    options = [*OPTIONS["gpt2"](folder), "run=final"]
    with monkeypatch.context() as patched:  # in the evaluation after the training
        stop_at(patched, "prediction_step", 1, signal.SIGINT)
        with pytest.raises(Interrupted) as stopped:
            train(compose(*options))
    assert stopped.value.exit_code == 130
    assert_same_run(whole, train(compose(*options)))


def test_a_moved_run_still_finds_its_best_model(never_stopped, monkeypatch):
    folder, whole = never_stopped("best model")
    options = OPTIONS["best model"](folder)
    with monkeypatch.context() as patched:
        stop_at(patched, "training_step", 16)
        with pytest.raises(Interrupted):
            train(compose(*options, "run=here"))
    (folder / "outputs" / "here").rename(folder / "outputs" / "there")
    assert_same_run(whole, train(compose(*options, "run=there")))


def damaged(checkpoint, how):
    path = checkpoint / ("trainer_state.json" if how == "emptied" else "model.safetensors")
    content = bytearray(path.read_bytes())
    if how == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "one bit flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "gone":
        path.unlink()
    elif how == "never sealed":
        (checkpoint / "manifest.json").unlink()
    elif how == "manifest cut short":
        manifest = checkpoint / "manifest.json"
        manifest.write_text(manifest.read_text()[:-20])


HOW = ["cut short", "emptied", "one bit flipped", "gone", "never sealed", "manifest cut short"]


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_checkpoint_is_named_and_passed_over(never_stopped, monkeypatch, caplog, how):
    folder, whole = never_stopped("gpt2")
    name = how.replace(" ", "-")
    options = [*OPTIONS["gpt2"](folder), f"run={name}"]
    with monkeypatch.context() as patched:
        stop_at(patched, "training_step", 12)
        with pytest.raises(Interrupted):
            train(compose(*options))
    newest = folder / "outputs" / name / "checkpoint-12"
    damaged(newest, how)
    said = []
    monkeypatch.setattr(checkpoints.logger, "warning", lambda text, *values: said.append(text % values))
    resumed = train(compose(*options))
    assert any(str(newest) in line for line in said)
    assert_same_run(whole, resumed)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Exception("No space left (os error 28)")])
def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(never_stopped, monkeypatch, error):
    folder, whole = never_stopped("gpt2")
    options = [*OPTIONS["gpt2"](folder), f"run=full-{type(error).__name__}"]
    real = torch.save

    def full(value, path, *args, **kwargs):
        if ".checkpoint-10" in str(path):
            Path(path).write_bytes(b"half")
            raise error
        return real(value, path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(
            InputError, match=r"checkpoint-10 could not be saved .*; the last one, checkpoint-5, is whole"
        ):
            train(compose(*options))
    run = folder / "outputs" / f"full-{type(error).__name__}"
    assert [path.name for path in run.glob("*checkpoint-*")] == ["checkpoint-5"]
    assert_same_run(whole, train(compose(*options)))


def test_a_model_that_cannot_be_written_is_written_by_the_next_call(never_stopped, monkeypatch):
    folder, whole = never_stopped("gpt2")
    options = [*OPTIONS["gpt2"](folder), "run=full-model"]
    with monkeypatch.context() as patched:
        real = Path.replace
        full = OSError(28, "No space left on device")

        def replace(self, target):
            if self.name == ".model":
                raise full
            return real(self, target)

        patched.setattr(Path, "replace", replace)
        with pytest.raises(InputError, match=r"model could not be saved \(No space left on device\)"):
            train(compose(*options))
    assert not list((folder / "outputs" / "full-model").glob("*model"))
    assert_same_run(whole, train(compose(*options)))


def test_rotation_goes_by_step_and_keeps_the_newest_and_the_best(tmp_path):
    for step in (5, 10, 15, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        os.utime(tmp_path / f"checkpoint-{step}", (1e9 - step, 1e9 - step))  # a clock that goes backwards
    checkpoints.rotate(tmp_path, 2, newest=tmp_path / "checkpoint-15", best=str(tmp_path / "checkpoint-5"))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-5", "checkpoint-15"}


def test_a_save_that_was_cut_off_while_it_replaced_a_checkpoint_loses_neither(tmp_path):
    for name in ("checkpoint-5", ".checkpoint-10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    checkpoints.seal(tmp_path / "checkpoint-5", tmp_path / "checkpoint-7", {})
    (tmp_path / "checkpoint-7").rename(tmp_path / ".checkpoint-7.replaced")  # cut off before the new one came
    checkpoints.recover(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-7"]


def test_settings_that_change_no_weight_may_change_between_stop_and_resume(never_stopped, monkeypatch):
    folder, whole = never_stopped("gpt2")
    options = [*OPTIONS["gpt2"](folder), "run=other-settings"]
    with monkeypatch.context() as patched:
        stop_at(patched, "training_step", 7)
        with pytest.raises(Interrupted):
            train(compose(*options))
    resumed = train(compose(*options, "trainer.logging_steps=1", "trainer.save_steps=9"))
    steps = [entry["step"] for entry in logged(resumed) if "loss" in entry]
    assert steps == [3, 6, *range(8, resumed.metrics["train"]["steps"] + 1)]
    assert (resumed.folder / "checkpoint-27").is_dir()
    assert "logging_steps: 1" in (resumed.folder / "config.yaml").read_text()
    weights = [load_file(run.folder / "model" / "model.safetensors") for run in (whole, resumed)]
    assert same(*weights)


def test_rows_of_a_step_may_be_spread_in_another_way_but_not_be_others(never_stopped, monkeypatch):
    folder, _ = never_stopped("gpt2")
    still = [f"model.config.{name}_pdrop=0" for name in ("resid", "embd", "attn")]
    options = [*OPTIONS["gpt2"](folder), *still]
    whole = train(compose(*options, "run=still"))
    with monkeypatch.context() as patched:
        stop_at(patched, "training_step", 7)
        with pytest.raises(Interrupted):
            train(compose(*options, "run=spread"))
    with pytest.raises(InputError, match=r"a step was of 8 rows and would be of 4"):
        train(compose(*options, "run=spread", "trainer.per_device_train_batch_size=4"))
    spread = ["trainer.per_device_train_batch_size=4", "trainer.gradient_accumulation_steps=2"]
    resumed = train(compose(*options, "run=spread", *spread))
    assert losses(whole) == pytest.approx(losses(resumed), rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(tmp_path, monkeypatch):
    options = lm(tmp_path)
    real = LanguageModelTrainer.mean_loss
    seen = []

    def poisoned(self, model, inputs, count):
        seen.append(inputs["row"].tolist())
        return real(self, model, inputs, count) * (float("nan") if len(seen) == 7 else 1)

    monkeypatch.setattr(LanguageModelTrainer, "mean_loss", poisoned)
    with pytest.raises(InputError) as stopped:
        train(compose(*options, "run=nan"))
    rows = ", ".join(map(str, sorted(seen[6])))
    assert f"step 7: the loss is not finite, in blocks {rows} of train" in str(stopped.value)
    assert "checkpoint-5 is whole" in str(stopped.value)
    seen.clear()
    skipped = train(compose(*options, "run=skip", "nonfinite_loss=skip"))
    assert skipped.metrics["train"]["steps"] == len(seen)
    assert all(
        torch.isfinite(tensor).all() for tensor in load_file(skipped.folder / "model" / "model.safetensors").values()
    )
    assert np.isfinite(losses(skipped)).all()


def test_out_of_memory_takes_fewer_rows_at_once_and_the_same_in_a_step(never_stopped, monkeypatch, caplog):
    folder, _ = never_stopped("gpt2")
    still = [f"model.config.{name}_pdrop=0" for name in ("resid", "embd", "attn")]
    options = [*OPTIONS["gpt2"](folder), *still, "trainer.auto_find_batch_size=true"]
    whole = train(compose(*options, "run=fits"))
    real = LanguageModelTrainer.training_step
    calls = [0]

    def small_memory(self, model, inputs, *args, **kwargs):
        calls[0] += 1
        if len(inputs["input_ids"]) > 3 and calls[0] > 3:  # a later step, after weights have changed
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(LanguageModelTrainer, "training_step", small_memory)
    smaller = train(compose(*options, "run=small"))
    assert checkpoints.facts(Path(checkpoints.last_good(smaller.folder)))["layout"] == {
        "num_processes": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
    }
    assert losses(whole) == pytest.approx(losses(smaller), rel=1e-5)
