"""Entities are counted as conlleval and seqeval count them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hf_llm.metrics.entities import Span, entity_report, mark_entities, spans

IOB2 = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "B-LOC"]]
tags = some.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("A", "B-c", "macro"))])
corpora = some.lists(some.lists(some.tuples(tags, tags), min_size=1, max_size=12), min_size=1, max_size=6)


@settings(deadline=None)  # the first import of seqeval takes seconds
@given(corpora)
def test_spans_and_figures_are_seqevals_whatever_the_tags(corpus):
    seqeval = pytest.importorskip("seqeval.metrics")
    from seqeval.metrics.sequence_labeling import get_entities

    predicted = [[ours for ours, _ in sentence] for sentence in corpus]
    reference = [[theirs for _, theirs in sentence] for sentence in corpus]
    for sentence in predicted + reference:
        assert [(span.type, span.start, span.stop - 1) for span in spans(sentence)] == get_entities(sentence)
    ours = entity_report(predicted, reference)
    asked = {"average": "micro", "zero_division": 0}
    assert ours["precision"] == pytest.approx(seqeval.precision_score(reference, predicted, **asked), abs=1e-12)
    assert ours["recall"] == pytest.approx(seqeval.recall_score(reference, predicted, **asked), abs=1e-12)
    assert ours["f1"] == pytest.approx(seqeval.f1_score(reference, predicted, **asked), abs=1e-12)
    assert ours["accuracy"] == pytest.approx(seqeval.accuracy_score(reference, predicted), abs=1e-12)
    if any(map(spans, reference)):  # seqeval's report of nothing is an error
        theirs = seqeval.classification_report(reference, predicted, output_dict=True, zero_division=0)
        assert ours["f1_macro"] == pytest.approx(theirs["macro avg"]["f1-score"], abs=1e-12)
        for kind in ("A", "B-c"):
            if kind in theirs:
                assert ours[f"recall_{kind}"] == pytest.approx(theirs[kind]["recall"], abs=1e-12)


def test_a_case_by_hand():
    report = entity_report(IOB2, [["B-PER", "I-PER", "O"], ["O", "B-LOC", "I-LOC"]])
    assert (report["precision"], report["recall"], report["f1"]) == (1 / 3, 1 / 2, 0.4)
    assert (report["f1_PER"], report["f1_LOC"], report["f1_macro"]) == (1, 0, 0.5)
    assert report["accuracy"] == 5 / 6


def test_a_type_keeps_the_hyphens_of_its_name():
    assert spans(["B-creative-work", "I-creative-work"]) == [Span("creative-work", 0, 2)]


@pytest.mark.parametrize(
    ("names", "are"),
    [
        (["O", "B-PER"], True),
        (["O", "I-PER", "E-PER", "S-PER"], True),
        (["NOUN", "VERB"], False),
        (["O"], False),
        (["NN", "-LRB-", "O"], False),
    ],
)
def test_tags_of_entities_are_told_from_parts_of_speech(names, are):
    assert mark_entities(names) is are
