"""What knowing nothing scores equals DummyClassifier's and sums by hand; the bootstrap keeps its promise."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, log_loss, matthews_corrcoef

from hf_llm.metrics.chance import (
    MOST,
    Comparison,
    agreement,
    class_losses,
    interval,
    label_entropy,
    majority_share,
    span_comparison,
    unigram_losses,
)
from hf_llm.metrics.entities import entity_report, spans


def compared(gains, weights=None):
    gains = np.asarray(gains, dtype=float)
    return Comparison("any", 0.0, 0.0, gains, np.ones(len(gains)) if weights is None else np.asarray(weights))


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.87, 0.13], [0.44, 0.3, 0.2, 0.05, 0.01]])
def test_label_entropy_and_majority_equal_a_dummy_classifier(shares):
    labels = np.random.default_rng(0).choice(len(shares), 400, p=shares)
    rows = np.zeros((400, 1))
    prior = DummyClassifier(strategy="prior").fit(rows, labels)
    expected = log_loss(labels, prior.predict_proba(rows), labels=prior.classes_)
    assert label_entropy(labels) == pytest.approx(expected, rel=1e-12)
    assert class_losses(labels).mean() == pytest.approx(expected, rel=1e-12)
    most = DummyClassifier(strategy="most_frequent").fit(rows, labels)
    assert majority_share(labels) == accuracy_score(labels, most.predict(rows))


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_the_mean_agreement_is_matthews_correlation(classes):
    random = np.random.default_rng(classes)
    true = random.integers(classes, size=300)
    predicted = np.where(random.random(300) < 0.4, true, random.integers(classes + 1, size=300))
    assert agreement(predicted, true).mean() == pytest.approx(matthews_corrcoef(true, predicted), abs=1e-12)


def test_one_class_for_every_row_agrees_with_nothing():
    true = np.array([0] * 87 + [1] * 13)
    assert not agreement(np.zeros(100, dtype=int), true).any()


def test_an_imbalanced_classifier_is_better_although_its_accuracy_is_that_of_the_majority():
    true = np.array([1] * 30 + [0] * 200)
    predicted = np.array([1] * 20 + [0] * 10 + [1] * 20 + [0] * 180)  # 20 found, 20 taken for it
    assert (predicted == true).mean() == majority_share(true)
    [(low, _)] = interval([compared(agreement(predicted, true))])
    assert low > 0


def test_the_interval_is_scipys_bootstrap_of_the_same_ratio():
    random = np.random.default_rng(1)
    weights = random.integers(1, 9, size=500)
    gains = random.normal(0.1, 1, size=500) * weights
    expected = stats.bootstrap(
        (gains, weights), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, vectorized=True,
        n_resamples=4000, method="percentile", random_state=0,
    ).confidence_interval  # fmt: skip
    [(low, high)] = interval([compared(gains, weights)])
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.06 * width)
    assert high == pytest.approx(expected.high, abs=0.06 * width)


def test_more_rows_than_are_drawn_from_give_the_interval_of_their_mean():
    gains = np.random.default_rng(2).normal(0.05, 1, size=3 * MOST + 7)
    [(low, high)] = interval([compared(gains)])
    error = 1.96 * gains.std() / math.sqrt(len(gains))
    assert (low, high) == pytest.approx((gains.mean() - error, gains.mean() + error), abs=0.1 * error)


def test_few_rows_are_found_better_by_luck_no_more_often_than_the_level_says():
    random = np.random.default_rng(3)
    lucky = sum(interval([compared(random.normal(size=8))], seed=i)[0][0] > 0 for i in range(300))
    assert lucky / 300 < 0.045  # plain percentiles: 0.06


def test_the_same_rows_give_the_same_interval():
    gains = np.random.default_rng(4).normal(size=50)
    assert interval([compared(gains)]) == interval([compared(gains)])


def test_unigram_losses_are_witten_and_bells():
    losses = unigram_losses(np.array([6, 2, 0, 0]))  # 8 tokens of 2 types; 2 types are new
    assert np.exp(-losses) == pytest.approx([6 / 10, 2 / 10, 1 / 10, 1 / 10])
    assert np.exp(-unigram_losses(np.array([3, 1]))) == pytest.approx([0.75, 0.25])  # all are known
    assert np.exp(-unigram_losses(np.zeros(4, dtype=int))) == pytest.approx([0.25] * 4)


def test_spans_are_compared_with_as_many_at_random_places():
    true = [["B-PER", "I-PER", "O", "O"], ["O", "B-LOC", "O", "O"], ["O"] * 4]
    ours = [["B-PER", "I-PER", "O", "O"], ["B-LOC", "O", "O", "O"], ["O", "B-PER", "O", "O"]]
    found, wanted = ([set(spans(tags)) for tags in side] for side in (ours, true))
    result = span_comparison(found, wanted, lambda span: (span.type, span.stop - span.start), words=12)
    assert result.value == pytest.approx(entity_report(ours, true)["f1"])
    # of three guesses the first two are of kinds that are there once, at one of 12 places
    assert result.chance == pytest.approx(2 * (2 / 12) / 5)
    assert result.gain == pytest.approx(result.value - result.chance)
