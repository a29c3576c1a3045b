"""Runs made before config.yaml had a format number go on as before. See tests/fixtures/old_runs/README.md."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file

from hf_llm import compose, evaluate, generate, predict, push, rerun, train

CLASSIFIER = [
    *("data.files.train=train.csv", "data.files.test=test.csv", "data.limits.train=120", "task=text_classification"),
    *("tokenizer=word", "model=rnn", "model.config.hidden_size=16", "model.config.embedding_size=16"),
    *("model.config.num_hidden_layers=1", "task.max_length=16", "trainer.use_cpu=true", "trainer.disable_tqdm=true"),
    "trainer.save_total_limit=1",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the old runs in outputs/, and their data; it is the current directory."""
    shutil.copytree(ROOT / "tests" / "fixtures" / "old_runs", tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs").rename(tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def assert_same_weights(folder):
    """Those of the finished classifier, but for the rounding of another processor."""
    found, then = (load_file(run / "model" / "model.safetensors") for run in (folder, Path("outputs/classifier")))
    for name, weight in then.items():
        assert torch.allclose(found[name], weight, atol=1e-5), name


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluate_measures_what_the_run_measured(here, split):
    found = evaluate(compose("evaluate", "run=classifier", f"split={split}", "trainer.use_cpu=true"))
    then = metrics_of(here / "outputs" / "classifier")[split]
    assert found["loss"] == pytest.approx(then["loss"], rel=1e-5)
    assert found["confusion_matrix"] == then["confusion_matrix"]


def test_a_language_model_is_measured_as_then_and_continues_a_prompt(here):
    found = evaluate(compose("evaluate", "run=language_model", "trainer.use_cpu=true"))
    assert found["loss"] == pytest.approx(metrics_of(here / "outputs" / "language_model")["validation"]["loss"])
    (row,) = generate(compose("generate", "run=language_model", "prompt=red", "generation.min_new_tokens=3"))
    assert row["text"].strip()


def test_predict_labels_rows(here):
    (here / "new.txt").write_text("red blue\none two\n")
    rows = list(predict(compose("predict", "run=classifier", "input=new.txt", "trainer.use_cpu=true")))
    assert len(rows) == 2


def test_the_same_command_finds_the_run_complete(here):
    before = (here / "outputs" / "classifier" / "config.yaml").read_bytes()
    run = train(compose(*CLASSIFIER, "run=classifier"))
    assert run.trainer is None
    assert run.metrics == metrics_of(here / "outputs" / "classifier")
    assert (here / "outputs" / "classifier" / "config.yaml").read_bytes() == before


def test_a_stopped_run_goes_on_to_the_weights_of_then_and_says_that_it_is_old(here, caplog):
    run = train(compose(*CLASSIFIER, "run=stopped"))
    assert caplog.text.count("keeps the defaults and rules of its time") == 1
    assert run.trainer.state.global_step == 45
    assert run.trainer.args.learning_rate == 1e-3  # then for whatever was trained
    found, then = (
        load_file(here / "outputs" / name / "model" / "model.safetensors") for name in ("stopped", "classifier")
    )
    for name, weight in then.items():
        assert torch.allclose(found[name], weight, atol=1e-5), name
    assert run.metrics["validation"]["loss"] == pytest.approx(
        metrics_of(here / "outputs" / "classifier")["validation"]["loss"], rel=1e-4
    )
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert saved["format"] == 1


def test_a_repetition_trains_the_run_as_then(here):
    result = rerun(compose("rerun", "run=classifier", "local_files=true", "trainer.use_cpu=true"))
    assert_same_weights(result.folder)


def test_a_push_lists_the_files_of_an_old_run(here, capsys):
    push(compose("push", "run=classifier", "repo=me/old", "dry_run=true"))
    assert (here / "outputs" / "classifier" / "README.md").is_file()


def test_a_new_run_of_the_same_settings_has_the_new_format(here):
    cfg = compose(*CLASSIFIER, "run=fresh", "preflight=only")
    assert cfg.format == 2
    assert cfg.trainer["num_train_epochs"] != 3
