"""Runs made before config.yaml had a format number go on as before. See tests/fixtures/old_runs/README.md."""

import json
import shutil

import pytest
from conftest import ROOT

from hf_llm import compose, evaluate, generate, predict, train

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
