"""The metrics equal scikit-learn or a by-hand computation, however the rows are batched, and touch nothing outside."""

import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from hf_llm import metrics
from hf_llm.config import InputError
from hf_llm.metrics import classification_report
from hf_llm.metrics.language_modeling import language_modeling

ALL = ["accuracy", "precision", "recall", "f1", "mcc", "confusion_matrix"]
RNG = np.random.default_rng(0)
REFERENCES, PREDICTIONS = RNG.choice(4, 997, p=[0.6, 0.25, 0.1, 0.05]), RNG.choice(4, 997, p=[0.4, 0.3, 0.2, 0.1])
LABELS = ["ham", "spam", "中文", "with space"]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_averages_and_classes_equal_scikit_learn(name):
    report = classification_report(PREDICTIONS, REFERENCES, LABELS, None, [name])
    score = getattr(sk, f"{name}_score")
    for average in ("macro", "micro", "weighted"):
        expected = score(REFERENCES, PREDICTIONS, average=average)
        assert report[f"{name}_{average}"] == pytest.approx(expected, abs=1e-12)
    for label, expected in zip(LABELS, score(REFERENCES, PREDICTIONS, average=None), strict=True):
        assert report[f"{name}_{label}"] == pytest.approx(expected, abs=1e-12)
    assert report[name] == report[f"{name}_macro"]


def test_accuracy_mcc_and_confusion_matrix_equal_scikit_learn():
    report = classification_report(PREDICTIONS, REFERENCES, LABELS, None, ALL)
    assert report["accuracy"] == pytest.approx((PREDICTIONS == REFERENCES).mean(), abs=1e-12)
    assert report["mcc"] == pytest.approx(sk.matthews_corrcoef(REFERENCES, PREDICTIONS), abs=1e-12)
    assert report.pop("confusion_matrix") == sk.confusion_matrix(REFERENCES, PREDICTIONS).tolist()
    assert all(type(value) is float for value in report.values())


@pytest.mark.parametrize("positive", [0, 1])
def test_the_positive_label_gives_the_plain_scores(positive):
    references, predictions = REFERENCES % 2, PREDICTIONS % 2
    report = classification_report(predictions, references, ["ham", "spam"], ["ham", "spam"][positive], ALL)
    for name in ("precision", "recall", "f1"):
        expected = getattr(sk, f"{name}_score")(references, predictions, pos_label=positive)
        assert report[name] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [1, 7, 100, 997])
@pytest.mark.parametrize("name", ALL)
def test_the_result_does_not_depend_on_the_batches(name, size):
    metric = metrics.load(name)
    for start in range(0, len(PREDICTIONS), size):
        rows = slice(start, start + size)
        metric.add_batch(predictions=PREDICTIONS[rows], references=REFERENCES[rows])
    assert metric.compute() == metrics.load(name).compute(predictions=PREDICTIONS, references=REFERENCES)


def test_a_metric_starts_anew_after_compute():
    metric = metrics.load("accuracy")
    assert metric.compute(predictions=[0, 1], references=[0, 0]) == {"accuracy": 0.5}
    assert metric.compute(predictions=[1], references=[1]) == {"accuracy": 1.0}


def test_a_class_that_never_occurs_keeps_its_keys_and_does_not_lower_the_macro_average():
    report = classification_report(np.array([0, 1, 1]), np.array([0, 1, 0]), LABELS, None, ALL)
    assert report["precision_中文"] == report["recall_with space"] == report["f1_中文"] == 0.0
    assert report["recall_macro"] == pytest.approx(0.75, abs=1e-12)
    assert np.shape(report["confusion_matrix"]) == (4, 4)


def test_a_class_predicted_but_never_true_and_the_reverse_score_zero_without_a_warning():
    report = classification_report(np.array([0, 0]), np.array([1, 1]), ["a", "b"], "b", ALL)
    assert (report["precision"], report["recall"], report["f1"], report["accuracy"], report["mcc"]) == (0,) * 5


def test_one_class_only_is_measured():
    report = classification_report(np.zeros(3, int), np.zeros(3, int), ["a", "b"], "a", ALL)
    assert (report["accuracy"], report["f1"], report["mcc"]) == (1.0, 1.0, 0.0)
    assert report["confusion_matrix"] == [[3, 0], [0, 0]]


def test_a_label_called_macro_does_not_hide_the_average():
    report = classification_report(np.array([0, 1, 1]), np.array([0, 1, 0]), ["macro", "micro"], None, ["recall"])
    assert report["recall_macro"] == pytest.approx(0.75)
    assert (report["recall_label_macro"], report["recall_label_micro"]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "did you mean accuracy"),
        ("evaluate-metric/accuracy", "code from the Hub"),
        ("nothing like it", "there are accuracy"),
    ],
)
def test_an_unknown_metric_is_refused_in_one_line(name, message):
    with pytest.raises(InputError, match=message) as error:
        metrics.load(name)
    assert "\n" not in str(error.value)


def test_an_unknown_option_is_refused():
    with pytest.raises(InputError, match="no option positive_labl; did you mean positive_label"):
        metrics.load("f1", positive_labl="spam")


def test_options_given_to_load_are_used_by_compute():
    metric = metrics.load("recall", labels=["ham", "spam"], positive_label="spam")
    assert metric.compute(predictions=[0, 1, 0], references=[1, 1, 0])["recall"] == 0.5


def test_a_positive_label_that_is_none_is_refused():
    with pytest.raises(InputError, match="did you mean 'spam'"):
        classification_report(PREDICTIONS % 2, REFERENCES % 2, ["ham", "spam"], "Spam", ["f1"])


def test_ids_outside_the_labels_and_no_rows_are_errors():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        classification_report(PREDICTIONS, REFERENCES, ["ham", "spam"], None, ["f1"])
    with pytest.raises(ValueError, match="nothing to compute"):
        classification_report(np.array([], int), np.array([], int), LABELS, None, ["f1"])
    with pytest.raises(ValueError, match="nothing to compute"):
        metrics.load("f1").compute()
    with pytest.raises(ValueError, match=r"Mismatch|match"):
        metrics.load("f1").compute(predictions=[1, 2], references=[1])


def test_a_metric_writes_no_file_and_needs_no_network(tmp_path):
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from hf_llm import metrics\n"
        "print(metrics.load('f1').compute(predictions=[1, 0], references=[1, 1])['f1_1'])"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_METRICS_CACHE": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(2 / 3), done.stderr
    assert not list(tmp_path.rglob("*"))


def test_a_metric_from_elsewhere_is_found_by_its_name():
    from hf_llm.metrics.base import InMemoryMetric

    class Errors(InMemoryMetric, name="errors"):
        def _compute(self, predictions, references):
            """How many rows are wrong."""
            return {"errors": float(sum(p != r for p, r in zip(predictions, references, strict=True)))}

    try:
        assert classification_report(np.array([1, 0]), np.array([1, 1]), ["a", "b"], None, ["errors"]) == {
            "errors": 1.0
        }
    finally:
        del InMemoryMetric.registry["errors"]


def test_language_model_scores_equal_the_computation_by_hand():
    scores = language_modeling(693.1471805599453, tokens=500, words=100, num_bytes=1000)
    assert scores["loss"] == pytest.approx(1.3862943611198906, abs=1e-12)
    assert scores["perplexity"] == pytest.approx(4.0, abs=1e-12)
    assert scores["word_perplexity"] == pytest.approx(1024.0, rel=1e-12)
    assert scores["bits_per_byte"] == pytest.approx(1.0, abs=1e-12)


def test_language_model_scores_are_inf_or_nan_rather_than_an_error():
    scores = language_modeling(1e6, tokens=10, words=0, num_bytes=10)
    assert scores["perplexity"] == math.inf
    assert math.isnan(scores["word_perplexity"])
    assert all(math.isnan(value) for value in language_modeling(0.0, tokens=0, words=0, num_bytes=0).values())
    assert math.isnan(language_modeling(math.nan, tokens=1, words=1, num_bytes=1)["perplexity"])


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_perplexity_does_not_depend_on_the_batches(size):
    nll = RNG.gamma(2, 1e3, 1000) * 10.0 ** RNG.integers(-6, 6, 1000)
    counts = {name: RNG.integers(1, 100, 1000) for name in ("tokens", "words", "num_bytes")}
    metric = metrics.load("perplexity")
    for start in range(0, 1000, size):
        rows = slice(start, start + size)
        metric.add_batch(nll=nll[rows], **{name: count[rows] for name, count in counts.items()})
    totals = {name: int(count.sum()) for name, count in counts.items()}
    assert metric.compute() == language_modeling(math.fsum(nll), **totals)


def test_language_model_scores_import_neither_evaluate_nor_scikit_learn():
    code = (
        "import sys, hf_llm.metrics.language_modeling; "
        "print([m for m in ('evaluate', 'sklearn', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
