"""Loss, perplexity per token and per word, and bits per byte, from a text's total negative log-likelihood.

Perplexity per token depends on how long the tokens are: only bits per byte, and perplexity per word, compare models
with different tokenizers. Per word means little for Chinese and Japanese, which write no spaces between words.
"""

from __future__ import annotations

import math


def language_modeling(nll: float, *, tokens: int, words: int, num_bytes: int) -> dict[str, float]:
    """The four metrics of a text.

    Args:
        nll: the summed negative log-likelihood of the predicted tokens, in nats, float64.
        tokens: how many tokens were predicted.
        words: how many white-space separated words the text has.
        num_bytes: its length in UTF-8.

    Returns:
        `loss` = nll / tokens, `perplexity` = exp(loss), `word_perplexity` = exp(nll / words), `bits_per_byte` =
        nll / (num_bytes · ln 2). A perplexity beyond float64 is inf; a mean over nothing is nan.
    """
    loss = _mean(nll, tokens)
    return {
        "loss": loss,
        "perplexity": _exp(loss),
        "word_perplexity": _exp(_mean(nll, words)),
        "bits_per_byte": _mean(nll, num_bytes) / math.log(2),
    }


def _mean(total: float, count: int) -> float:
    return float(total) / int(count) if count else math.nan


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
