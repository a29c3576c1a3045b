"""Semantic roles, counted as CoNLL-2005's `srl-eval.pl` (Carreras and Màrquez 2005) counts them.

An argument is a role and the words it is made of. A piece tagged `C-ARG1` goes on with the latest `ARG1` before it,
and both are one argument; without one it is an `ARG1` of its own. `R-ARG1`, a relative pronoun say, is a role as any
other.
An argument is right where its role and every one of its pieces are. `V`, the predicate itself, is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set

Span = tuple[int, int]  # the first word and the one after the last
Argument = tuple[str, tuple[Span, ...]]  # a role and its pieces, in order

PREDICATE = "V"


def spans(tags: Sequence[str]) -> list[tuple[str, Span]]:
    """(role, span) of each run of words in a BIO tagging, in order; an `I-` that continues nothing begins a run."""
    found: list[tuple[str, Span]] = []
    role, start = None, 0
    for index, tag in enumerate([*tags, "O"]):
        if role is not None and tag != f"I-{role}":
            found.append((role, (start, index)))
            role = None
        if role is None and tag != "O":
            role, start = tag[2:], index
    return found


def arguments(tags: Sequence[str]) -> list[Argument]:
    """The arguments of a predicate, from its BIO tags (one per word), by where they begin; `V` is among them."""
    pieces: list[tuple[str, list[Span]]] = []
    latest: dict[str, list[Span]] = {}
    for name, span in spans(tags):
        role = name.removeprefix("C-")
        if role != name and role in latest:
            latest[role].append(span)
        else:
            latest[role] = [span]
            pieces.append((role, latest[role]))
    return [(role, tuple(parts)) for role, parts in pieces]


def role_report(predictions: Iterable[Sequence[str]], references: Iterable[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of all arguments together, and of each role (`f1_ARG0`) that occurs.

    Args:
        predictions, references: a BIO tagging for each predicate.

    Returns:
        Also `perfect_predicates`, the share of predicates without a mistake. What has no instances is 0.0.
    """
    right: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    true: Counter[str] = Counter()
    perfect = total = 0
    for guess, truth in zip(predictions, references, strict=True):
        guessed, wanted = _counted(guess), _counted(truth)
        predicted.update(role for role, _ in guessed)
        true.update(role for role, _ in wanted)
        right.update(role for role, _ in guessed & wanted)
        perfect += guessed == wanted
        total += 1
    report = {"perfect_predicates": perfect / total if total else 0.0}
    report |= _scores(right.total(), predicted.total(), true.total())
    for role in sorted(predicted | true):
        report |= {
            f"{name}_{role}": value for name, value in _scores(right[role], predicted[role], true[role]).items()
        }
    return report


def predicate_report(predictions: Iterable[Set[int]], references: Iterable[Set[int]]) -> dict[str, float]:
    """`predicate_precision`, `predicate_recall` and `predicate_f1`: each sentence has a set of words."""
    right = predicted = true = 0
    for guess, truth in zip(predictions, references, strict=True):
        right += len(guess & truth)
        predicted += len(guess)
        true += len(truth)
    return {f"predicate_{name}": value for name, value in _scores(right, predicted, true).items()}


def _counted(tags: Sequence[str]) -> set[Argument]:
    return {argument for argument in arguments(tags) if argument[0] != PREDICATE}


def _scores(right: int, predicted: int, true: int) -> dict[str, float]:
    precision = right / predicted if predicted else 0.0
    recall = right / true if true else 0.0
    f1 = 2 * right / (predicted + true) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}
