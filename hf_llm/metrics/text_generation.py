"""BLEU and chrF by sacrebleu, ROUGE by rouge_score: texts that a model wrote against those that people wrote.

All are per cent, as papers have them. With several references BLEU and chrF count what is in any of them, as sacrebleu
does, and ROUGE takes the best for each text, as in SciTLDR (Cachola et al. 2020). A text may have more references than
another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_llm.config import InputError

BLEU = ("bleu", "chrf")
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
NAMES = (*BLEU, *ROUGE)
UNSPACED = {"zh": "zh", "ja": "char", "th": "char", "lo": "char", "km": "char", "my": "char"}  # by sacrebleu's names


def bleu_tokenizer(language: str | None) -> str:
    """sacrebleu's tokenizer for a target language ("zh", "zh-CN"): by characters where no spaces stand between words.

    Its ja-mecab and ko-mecab cut words, with packages of their own; 13a is WMT's for all others.
    """
    return UNSPACED.get(_code(language), "13a")


def _code(language: str | None) -> str:
    return re.split("[-_]", language or "")[0].lower()


def available(metrics: Sequence[str]) -> None:
    """Raises InputError where a metric is unknown or its package is missing."""
    from importlib.util import find_spec

    from hf_llm.config import nearest

    for name in metrics:
        if name not in NAMES:
            hint = f"; did you mean {near}?" if (near := nearest(name, NAMES)) else ""
            raise InputError(f"task.metrics: {name} is not one of {', '.join(NAMES)}{hint}")
        package = "sacrebleu" if name in BLEU else "rouge_score"
        if find_spec(package) is None:
            raise InputError(f"task.metrics: {name} needs the package {package}: pip install 'hf_llm[seq2seq]'")


def generation_report(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = NAMES,
    *,
    language: str | None = None,
    tokenize: str | None = None,
    stemmer: bool = True,
) -> dict[str, Any]:
    """`metrics` of a corpus, name -> per cent; for BLEU and chrF also sacrebleu's signature, `bleu_signature`.

    Args:
        predictions: (N,) texts.
        references: (N,) one or more texts each.
        language: of the targets, an ISO 639 code: how BLEU and ROUGE cut them. null: by spaces and punctuation.
        tokenize: sacrebleu's tokenizer, in place of the language's.
        stemmer: ROUGE compares words by their Porter stems, as ROUGE-1.5.5 does with -m; English only.

    Raises:
        InputError: an unknown metric, or its package is missing.
    """
    available(metrics)
    report: dict[str, Any] = {}
    if set(metrics) & {*BLEU}:
        report |= _sacrebleu(predictions, references, metrics, tokenize or bleu_tokenizer(language))
    if wanted := [name for name in ROUGE if name in metrics]:
        report |= _rouge(predictions, references, wanted, language, stemmer)
    return {name: report[name] for name in (*metrics, *report)}


def _sacrebleu(
    predictions: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str], tokenize: str
) -> dict[str, Any]:
    from sacrebleu.metrics import BLEU as Bleu
    from sacrebleu.metrics import CHRF as Chrf

    # sacrebleu wants a list per reference, with None where a text has fewer
    most = max(map(len, references), default=1)
    columns = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
    report: dict[str, Any] = {}
    for name in metrics:
        if name not in BLEU:
            continue
        try:
            metric: Any = Bleu(tokenize=tokenize) if name == "bleu" else Chrf()
        except RuntimeError as error:  # MeCab is a package of its own
            raise InputError(f"task.bleu_tokenize={tokenize}: {' '.join(str(error).split())}") from error
        report[name] = metric.corpus_score(list(predictions), columns).score if predictions else math.nan
        report[f"{name}_signature"] = str(metric.get_signature())
    return report


class CharacterTokenizer:
    """For rouge_score: letters by themselves, but ASCII words whole; punctuation is left out, as its own leaves it."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[a-z0-9]+|[^\W_]", text.lower())


def _rouge(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: list[str],
    language: str | None,
    stemmer: bool,
) -> dict[str, float]:
    """Mean F1. rougeLsum takes lines for sentences, as rouge_score does; without line ends it is rougeL."""
    scores = rouge_of_rows(predictions, references, metrics, language, stemmer)
    return {
        name: 100 * math.fsum(column) / len(column) if len(column) else math.nan
        for name, column in zip(metrics, scores.T, strict=True)
    }


def rouge_of_rows(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str],
    language: str | None,
    stemmer: bool,
) -> np.ndarray:
    """The F1 of each text, from 0 to 1, (N, metrics)."""
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = CharacterTokenizer() if _code(language) in UNSPACED else None
    scorer = RougeScorer(list(metrics), use_stemmer=stemmer and _code(language) in ("", "en"), tokenizer=tokenizer)
    scores = [scorer.score_multi(list(row), text) for row, text in zip(references, predictions, strict=True)]
    return np.array([[score[name].fmeasure for name in metrics] for score in scores]).reshape(-1, len(metrics))
