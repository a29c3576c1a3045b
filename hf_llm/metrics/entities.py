"""Precision, recall and F1 of entities, the spans that tags like B-PER and I-PER mark.

A span counts as found where both its ends and its type agree. Which tags begin and end one is as in conlleval (Tjong
Kim Sang and Buchholz 2000) and in seqeval's default mode, which takes IOB1, IOB2 and BIOES alike: a span begins at B-
or S-, where the type changes, and where O, E- or S- stood before; and it ends before the next one, at E- and S-, and
before O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PREFIXES = ("B", "I", "E", "S", "L", "U")  # L and U are BILOU's names for E and S
OUTSIDE = "O"


class Span(NamedTuple):
    type: str
    start: int
    stop: int  # the first word that is not in it


def mark_entities(tags: Iterable[str]) -> bool:
    """Whether each of `tags` is O, or a prefix and a type, as in B-PER; and not all of them O."""
    names = [tag for tag in tags if tag != OUTSIDE]
    return bool(names) and all(tag[:1] in PREFIXES and tag[1:2] == "-" and len(tag) > 2 for tag in names)


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, in order. A type may have hyphens of its own: B-creative-work."""
    found: list[Span] = []
    start, previous, kind = 0, OUTSIDE, ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, name = tag.partition("-")
        is_open = previous != OUTSIDE
        if is_open and (previous in "ESLU" or prefix in "BSUO" or name != kind):
            found.append(Span(kind, start, index))
            is_open = False
        if prefix != OUTSIDE and not is_open:
            start = index
        previous, kind = prefix, name
    return found


def entity_report(predicted: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> dict[str, float]:
    """`precision`, `recall` and `f1` of all entities together (micro), their mean over types (`f1_macro`), and those
    of each type (`f1_PER`, …), over the types that occur in either; `accuracy` of the tags, which says little.

    Args:
        predicted, reference: the tags of each sentence, as many as it has words.

    A ratio whose denominator is 0 is 0.0.
    """
    right: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    there: Counter[str] = Counter()
    words = agreed = 0
    for ours, theirs in zip(predicted, reference, strict=True):
        found, wanted = set(spans(ours)), set(spans(theirs))
        guessed.update(span.type for span in found)
        there.update(span.type for span in wanted)
        right.update(span.type for span in found & wanted)
        words += len(theirs)
        agreed += sum(a == b for a, b in zip(ours, theirs, strict=True))
    types = sorted({*guessed, *there})
    report = ratios(right.total(), guessed.total(), there.total())
    of_type = {kind: ratios(right[kind], guessed[kind], there[kind]) for kind in types}
    macro = sum(scores["f1"] for scores in of_type.values()) / len(types) if types else 0.0
    report |= {"f1_macro": macro, "accuracy": agreed / words if words else 0.0}
    for kind, scores in of_type.items():  # no type is called "macro" in earnest; one that is keeps out of its way
        report |= {f"{name}_{'type_' if kind == 'macro' else ''}{kind}": value for name, value in scores.items()}
    return report


def ratios(right: int, guessed: int, there: int) -> dict[str, float]:
    """Precision, recall and F1 from counts."""
    precision = right / guessed if guessed else 0.0
    recall = right / there if there else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}
