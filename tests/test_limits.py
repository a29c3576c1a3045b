"""data.limits in evaluate and predict: the same seeded sample as while training."""

import logging

import numpy as np
import pytest
import toys

from hf_llm import InputError, compose, evaluate, predict, train

ASKED = ["trainer.use_cpu=true"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A classifier with limits of its own, and its test file of 60 rows beside it."""
    folder = tmp_path_factory.mktemp("limits")
    test = toys.write_csv(folder, "test.csv", 60)
    limits = ["data.limits.train=50", "data.limits.test=11"]
    return train(compose("train", *toys.classifier(folder, "rnn"), f"data.files.test={test}", *limits, "run=spam"))


def count(metrics):
    return int(np.sum(metrics["confusion_matrix"]))


def test_evaluate_measures_the_sample_that_the_run_measured_or_another_that_is_asked_for(run):
    asked = [f"run={run.folder}", "split=test", *ASKED]
    assert count(run.metrics["test"]) == 11
    assert evaluate(compose("evaluate", *asked))["loss"] == pytest.approx(run.metrics["test"]["loss"], rel=1e-5)
    assert count(evaluate(compose("evaluate", *asked, "data.limits.test=7"))) == 7
    assert count(evaluate(compose("evaluate", *asked, "data.limits.test=null"))) == 60
    test = run.folder.parent.parent / "test.csv"
    assert count(evaluate(compose("evaluate", *asked, f"data.files={test}"))) == 60  # other data, other limits
    assert count(evaluate(compose("evaluate", *asked, f"data.files={test}", "data.limits.test=9"))) == 9
    validation = evaluate(compose("evaluate", f"run={run.folder}", *ASKED))
    assert validation["loss"] == pytest.approx(run.metrics["validation"]["loss"], rel=1e-5)


def test_evaluate_refuses_a_limit_on_another_split(run):
    with pytest.raises(InputError, match=r"data.limits.test: what is evaluated is the validation split; give"):
        evaluate(compose("evaluate", f"run={run.folder}", "data.limits.test=7"))


def test_predict_takes_the_sample_that_evaluate_takes(run, caplog):
    folder = run.folder.parent.parent
    asked = ["predict", f"run={run.folder}", f"input={folder / 'test.csv'}", *ASKED]
    whole = list(predict(compose(*asked)))
    assert len(whole) == 60  # the run's own limits are of its splits
    with caplog.at_level(logging.INFO):
        some = list(predict(compose(*asked, "data.limits.test=11")))
    assert "input: a random sample of 11 of 60 rows (data.limits, seed 42)" in caplog.text
    measured = (run.folder / "predictions_test.jsonl").read_text().splitlines()
    assert [row["text"] in line for row, line in zip(some, measured, strict=True)] == [True] * 11
    places = iter(row["text"] for row in whole)
    assert all(row["text"] in places for row in some)  # in their order
    with pytest.raises(InputError, match=r"data.limits: the input is one split; give one of test, train"):
        predict(compose(*asked, "data.limits.test=11", "data.limits.train=3"))


def test_a_sample_of_propositions_has_whole_sentences(tmp_path):
    from hf_llm import data
    from hf_llm.config import DataConfig
    from hf_llm.data.predicates import sentences

    path = toys.write_propositions(tmp_path)
    columns = {"words": "words", "predicate": "predicate?", "tags": "roles"}
    options = {"files": str(path), "columns": {"words": 1, "predicate": 2, "tags": 3}, "validation_fraction": 0}
    whole = data.load(DataConfig(**options), columns, seed=1)["train"]
    train = data.load(DataConfig(**options, limits={"train": 31}), columns, seed=1)["train"]
    assert 29 <= len(train) <= 31
    known = [(tuple(one.words), tuple(one.predicates)) for one in sentences(whole["words"], whole["predicate"])]
    assert all(
        (tuple(one.words), tuple(one.predicates)) in known for one in sentences(train["words"], train["predicate"])
    )
