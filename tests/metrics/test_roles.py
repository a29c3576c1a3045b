"""Arguments and their scores, against a second writing of CoNLL-2005's `srl-eval.pl` and cases by hand."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llm.metrics.roles import arguments, predicate_report, role_report

ROLES = ["A0", "A1", "V", "R-A0", "C-A0", "C-A1", "C-V", "C-R-A0"]


@st.composite
def taggings(draw, words=None):
    """Well-formed BIO taggings."""
    words = draw(st.integers(0, 9)) if words is None else words
    tags: list[str] = []
    while len(tags) < words:
        role = draw(st.sampled_from([*ROLES, None, None, None]))
        length = min(draw(st.integers(1, 3)), words - len(tags))
        tags += ["O"] * length if role is None else [f"B-{role}", *[f"I-{role}"] * (length - 1)]
    return tags


pairs = st.integers(0, 9).flatmap(lambda words: st.tuples(taggings(words), taggings(words)))


class Arg:
    """As the script's `SRL::arg`: a phrase; once something continues it, it spans all its phrases."""

    def __init__(self, start, end, kind):
        self.start, self.end, self.kind, self.phrases = start, end, kind, []

    def add(self, start, end):
        if not self.phrases:
            self.phrases.append((self.start, self.end))
        self.phrases.append((start, end))
        self.end = end


def props(tags):
    """IOB2 -> args, by the script's two steps: phrases first, then continuations looked up by type."""
    phrases, open_phrase = [], None
    for place, tag in enumerate(tags):
        if open_phrase and not tag.startswith("I"):
            phrases.append((*open_phrase, place - 1))
            open_phrase = None
        if tag.startswith("B-"):
            open_phrase = (tag[2:], place)
    if open_phrase:
        phrases.append((*open_phrase, len(tags) - 1))
    args, of_type = [], {}
    for kind, start, end in phrases:
        if kind.startswith("C-") and kind[2:] in of_type:
            of_type[kind[2:]].add(start, end)
            continue
        kind = kind[2:] if kind.startswith("C-") else kind
        of_type[kind] = Arg(start, end, kind)
        args.append(of_type[kind])
    return args


def discriminate(gold, predicted):
    """(ok, over-predicted, missed) types: gold args are indexed by where they start and end, as in the script."""
    table = {(arg.start, arg.end): arg for arg in gold}
    ok, op = [], []
    for arg in predicted:
        match = table.get((arg.start, arg.end))
        same = match is not None and bool(match.phrases) == bool(arg.phrases) and match.kind == arg.kind
        if same and match.phrases:
            left = set(match.phrases)
            for phrase in arg.phrases:
                same = same and phrase in left
                left.discard(phrase)
            same = same and not left
        if same:
            ok.append(arg.kind)
            del table[arg.start, arg.end]
        else:
            op.append(arg.kind)
    return ok, op, [arg.kind for arg in table.values()]


def srl_eval(pairs):
    counts = {name: Counter() for name in ("ok", "op", "ms")}
    perfect = 0
    for predicted, gold in pairs:
        found = discriminate(props(gold), props(predicted))
        kept = [[kind for kind in kinds if kind != "V"] for kinds in found]
        for name, kinds in zip(counts, kept, strict=True):
            counts[name].update(kinds)
        perfect += not kept[1] and not kept[2]
    report = {"perfect_predicates": perfect / len(pairs)}
    for suffix, roles in [
        ("", set().union(*counts.values())),
        *((f"_{r}", {r}) for r in set().union(*counts.values())),
    ]:
        ok, op, ms = (sum(counts[name][role] for role in roles) for name in ("ok", "op", "ms"))
        p = ok / (ok + op) if ok + op else 0.0
        r = ok / (ok + ms) if ok + ms else 0.0
        report |= {f"precision{suffix}": p, f"recall{suffix}": r, f"f1{suffix}": 2 * p * r / (p + r) if p + r else 0.0}
    return report


@given(st.lists(pairs, min_size=1, max_size=6))
def test_scores_are_those_of_srl_eval(pairs):
    predictions, references = zip(*pairs, strict=True)
    assert role_report(predictions, references) == pytest.approx(srl_eval(pairs))


@given(taggings())
def test_a_tagging_is_perfect_against_itself(tags):
    report = role_report([tags], [tags])
    assert report["perfect_predicates"] == 1
    assert report["f1"] == (1.0 if any(role != "V" for role, _ in arguments(tags)) else 0.0)


def test_a_continuation_joins_the_latest_argument_of_its_role():
    tags = ["B-A1", "I-A1", "B-A1", "B-V", "O", "B-C-A1", "B-C-A1", "I-C-A1", "B-C-A0"]
    assert arguments(tags) == [
        ("A1", ((0, 2),)),
        ("A1", ((2, 3), (5, 6), (6, 8))),
        ("V", ((3, 4),)),
        ("A0", ((8, 9),)),
    ]


def test_an_argument_counts_only_with_all_of_its_pieces():
    gold = ["B-A1", "B-V", "B-C-A1", "B-R-A0"]
    report = role_report([["B-A1", "B-V", "O", "B-R-A0"]], [gold])
    assert (report["f1_A1"], report["f1_R-A0"], report["f1"]) == (0.0, 1.0, 0.5)
    assert "f1_V" not in report
    assert "f1_C-A1" not in report


def test_an_inside_tag_without_a_beginning_begins_an_argument():
    assert arguments(["I-A0", "I-A1", "I-A1", "O"]) == [("A0", ((0, 1),)), ("A1", ((1, 3),))]


def test_nothing_found_scores_nothing():
    assert role_report([["O"]], [["B-A0"]]) == {
        "perfect_predicates": 0.0,
        **{name + suffix: 0.0 for suffix in ("", "_A0") for name in ("precision", "recall", "f1")},
    }


def test_predicates_are_counted_over_all_sentences():
    report = predicate_report([{1, 4}, set(), {0}], [{1}, {2}, {0}])
    assert report == pytest.approx({"predicate_precision": 2 / 3, "predicate_recall": 2 / 3, "predicate_f1": 2 / 3})
