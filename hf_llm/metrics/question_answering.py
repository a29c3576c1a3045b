"""Exact match and F1 of answers, as SQuAD's and CMRC's published scorers count them, in per cent.

SQuAD: evaluate-v1.1.py (Rajpurkar et al. 2016) and evaluate-v2.0.py (2018); CMRC 2018: cmrc2018_evaluate.py (Cui et
al. 2019), which counts Chinese by character, and takes F1 over the longest run that two answers share. What is not
Chinese that script has nltk split.
"""

from __future__ import annotations

import difflib
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from hf_llm.config import InputError

SAME = 1e-4  # logits differ by less than this when the batch is of another size
Language = Literal["en", "zh"]
Score = Callable[[str, str], float]

_CHINESE_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE = re.compile(r"[\u4e00-\u9fa5]")
_CHINESE_ALONE = re.compile(r"([\u4e00-\u9fa5])")


def normalized(text: str) -> str:
    """Lower-case, without punctuation and articles, single spaces."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def english_exact(answer: str, reference: str) -> float:
    return float(normalized(answer) == normalized(reference))


def english_f1(answer: str, reference: str) -> float:
    """Over words, in any order. Where one of the two has none, 1 if both have none (v2.0)."""
    ours, theirs = normalized(answer).split(), normalized(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    return _f1((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))


def chinese_exact(answer: str, reference: str) -> float:
    return float(_bare(answer) == _bare(reference))


def chinese_f1(answer: str, reference: str) -> float:
    """Over the longest run of characters that both have."""
    ours, theirs = segments(answer), segments(reference)
    shared = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match().size
    return _f1(shared, len(ours), len(theirs))


def _f1(shared: int, ours: int, theirs: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / ours, shared / theirs
    return 2 * precision * recall / (precision + recall)


def _bare(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in _CHINESE_PUNCTUATION)


def segments(text: str) -> list[str]:
    """Chinese characters one by one, and the words between them."""
    parts = _CHINESE_ALONE.split(_bare(text))
    return [piece for part in parts for piece in ([part] if _CHINESE.fullmatch(part) else _words(part))]


def _words(text: str) -> list[str]:
    """As cmrc2018_evaluate.py has nltk's word_tokenize do it, but for its split into sentences, which needs data."""
    try:
        from nltk.tokenize import NLTKWordTokenizer
    except ImportError as error:
        raise InputError("task.language=zh: needs the package nltk; `pip install 'hf_llm[chinese]'`") from error
    return NLTKWordTokenizer().tokenize(text)


SCORES: dict[str, tuple[Score, Score]] = {
    "en": (english_exact, english_f1),
    "zh": (chinese_exact, chinese_f1),
}


def answer_scores(answer: str, references: Sequence[str], language: Language = "en") -> tuple[float, float]:
    """Exact match and F1 of an answer, each the best over the references; no reference is the answer "", none."""
    exact, f1 = SCORES[language]
    references = [text for text in references if language != "en" or normalized(text)] or [""]
    if references == [""]:
        right = float(not (normalized(answer) if language == "en" else _bare(answer)))
        return right, right
    return max(exact(answer, text) for text in references), max(f1(answer, text) for text in references)


def question_answering_report(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    language: Language = "en",
    no_answer_scores: Sequence[float] | None = None,
) -> dict[str, float]:
    """`exact_match` and `f1` in per cent; where some questions have no answer also `HasAns_…` and `NoAns_…`.

    Args:
        answers: one for each question; "" is none.
        references: all that are right, for each question; an empty list where it has no answer.
        no_answer_scores: how much more likely no answer is than the best one. `answers` are then those of questions
            that are answered in any case, and `best_f1`, `best_f1_thresh`, `best_exact` and `best_exact_thresh`
            say how well the best threshold of these scores would do.
    """
    scores = [answer_scores(answer, right, language) for answer, right in zip(answers, references, strict=True)]
    report = _means(scores)
    answerable = [bool(right) for right in references]
    if all(answerable) or not scores:
        return report
    for name, wanted in (("HasAns", True), ("NoAns", False)):
        part = [score for score, has in zip(scores, answerable, strict=True) if has == wanted]
        if part:
            report |= {f"{name}_{key.removesuffix('_match')}": value for key, value in _means(part).items()}
    if no_answer_scores is not None:
        for index, name in enumerate(("exact", "f1")):
            value, threshold = best_threshold([score[index] for score in scores], no_answer_scores, answerable)
            report |= {f"best_{name}": value, f"best_{name}_thresh": threshold}
    return report


def _means(scores: Sequence[tuple[float, float]]) -> dict[str, float]:
    exact, f1 = (100 * sum(score) / len(scores) for score in zip(*scores, strict=True))
    return {"exact_match": exact, "f1": f1}


def best_threshold(
    scores: Sequence[float], no_answer_scores: Sequence[float], answerable: Sequence[bool]
) -> tuple[float, float]:
    """The best mean score, in per cent, that leaving unanswered all questions above a threshold gives, and that one.

    Args:
        scores: of each question, if it is answered; of one without an answer they do not count.
        no_answer_scores: what the threshold is of.
    """
    current = best = float(sum(not has for has in answerable))  # nothing is answered
    threshold = min(no_answer_scores, default=0.0) - 1
    order = sorted(range(len(scores)), key=no_answer_scores.__getitem__)
    for place, index in enumerate(order):
        current += scores[index] if answerable[index] else -1
        following = order[place + 1] if place + 1 < len(order) else None
        if following is not None and no_answer_scores[following] - no_answer_scores[index] <= SAME:
            continue  # no threshold parts them
        if current > best:
            best, threshold = current, no_answer_scores[index]
    return 100 * best / len(scores), threshold


def amid(threshold: float, no_answer_scores: Sequence[float]) -> float:
    """Half-way from a threshold to the least score that is above it: no rounding of a score carries it over."""
    above = min((score for score in no_answer_scores if score > threshold + SAME), default=threshold + 2)
    return (threshold + above) / 2
