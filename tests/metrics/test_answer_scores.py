"""Exact match and F1 equal SQuAD's and CMRC's published scorers."""

import collections
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hf_llm.metrics.question_answering import (
    amid,
    answer_scores,
    best_threshold,
    chinese_exact,
    chinese_f1,
    question_answering_report,
    segments,
)

words = some.sampled_from(["The", "a", "cat", "cat.", "Dog", "dogs,", "an", "42", "-", ""])
texts = some.lists(words, max_size=6).map(" ".join)
chinese = some.text(alphabet="中国人，。ab 1", max_size=12)


def squad_v2(answer, references):
    """evaluate-v2.0.py's get_raw_scores, of one question, written down again from its definition."""

    def normalize(text):
        text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())

    def f1(gold, predicted):
        gold, predicted = normalize(gold).split(), normalize(predicted).split()
        common = sum((collections.Counter(gold) & collections.Counter(predicted)).values())
        if len(gold) == 0 or len(predicted) == 0:
            return int(gold == predicted)
        if common == 0:
            return 0
        precision, recall = common / len(predicted), common / len(gold)
        return 2 * precision * recall / (precision + recall)

    golds = [text for text in references if normalize(text)] or [""]
    return max(int(normalize(gold) == normalize(answer)) for gold in golds), max(f1(gold, answer) for gold in golds)


def longest_common(one, other):
    """cmrc2018_evaluate.py's find_lcs: the length of the longest run that both have."""
    best, table = 0, [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            if a == b:
                table[i + 1][j + 1] = table[i][j] + 1
                best = max(best, table[i + 1][j + 1])
    return best


@settings(deadline=None)
@given(texts, some.lists(texts, max_size=3))
def test_english_answers_score_as_in_squads_script(answer, references):
    assert answer_scores(answer, references) == pytest.approx(squad_v2(answer, references), abs=1e-12)


@settings(deadline=None)
@given(chinese, chinese)
def test_chinese_answers_score_by_the_longest_run_they_share(answer, reference):
    def segments(text):
        kept = "".join(ch for ch in text.lower().strip() if ch not in "，。")
        return re.findall(r"[\u4e00-\u9fa5]|[a-z0-9_]+", kept)

    ours, theirs = segments(answer), segments(reference)
    shared = longest_common(ours, theirs)
    expected = 2 * shared / (len(ours) + len(theirs)) if shared else 0
    assert chinese_f1(answer, reference) == pytest.approx(expected, abs=1e-12)
    assert chinese_exact(answer, answer) == 1


@settings(deadline=None, max_examples=300)
@given(some.text(alphabet="中文ab1 .'s%()$，-:!", max_size=12))
def test_what_is_not_chinese_is_split_as_nltk_does(text):
    """As cmrc2018_evaluate.py has word_tokenize do it; its split into sentences, which needs data, is left out."""
    nltk = pytest.importorskip("nltk.tokenize")
    kept = "".join(ch for ch in text.lower().strip() if ch not in "，-:")
    parts = re.split(r"([\u4e00-\u9fa5])", kept)
    expected = [word for part in parts for word in nltk.NLTKWordTokenizer().tokenize(part)]
    assert segments(text) == expected


def test_chinese_cases_by_hand():
    assert answer_scores("光荣和ω-force", ["光荣和ω-force"], "zh") == (1, 1)
    assert answer_scores("《村雨城》", ["村雨城"], "zh") == (1, 1)
    assert chinese_f1("任天堂村雨城", "村雨城") == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert chinese_f1("城雨村", "村雨城") == pytest.approx(1 / 3)  # one character, not three in another order


def test_the_report_is_a_mean_in_per_cent_with_and_without_answers():
    report = question_answering_report(["the cat", "", "dog"], [["cat", "a dog"], [], []])
    assert report["exact_match"] == pytest.approx(200 / 3)
    assert report["HasAns_exact"] == 100
    assert report["NoAns_f1"] == 50
    assert "NoAns_f1" not in question_answering_report(["cat"], [["cat"]])


@settings(deadline=None)
@given(
    some.lists(
        some.tuples(some.sampled_from([0.0, 0.5, 1.0]), some.sampled_from([-1.0, 0.0, 0.5, 2.0]), some.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_the_best_threshold_is_the_best_of_all(questions):
    scores, nulls, answerable = (list(column) for column in zip(*questions, strict=True))

    def score(threshold):
        each = [
            (float(not has) if null > threshold else value * has)
            for value, null, has in zip(scores, nulls, answerable, strict=True)
        ]
        return 100 * sum(each) / len(each)

    best, threshold = best_threshold(scores, nulls, answerable)
    assert best == pytest.approx(max(score(t) for t in [-10, *nulls, 10]))
    assert score(threshold) == pytest.approx(best)
    assert score(amid(threshold, nulls)) == pytest.approx(best)
    assert min(abs(amid(threshold, nulls) - null) for null in nulls) > 0.1
