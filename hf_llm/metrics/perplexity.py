"""`language_modeling` as a metric: add a batch of texts at a time, with the nll and the counts of each."""

from __future__ import annotations

import math

import datasets

from hf_llm.metrics.base import InMemoryMetric
from hf_llm.metrics.language_modeling import language_modeling


class Perplexity(InMemoryMetric, name="perplexity"):
    inputs = datasets.Features(
        nll=datasets.Value("float64"),
        tokens=datasets.Value("int64"),
        words=datasets.Value("int64"),
        num_bytes=datasets.Value("int64"),
    )

    def _compute(self, nll, tokens, words, num_bytes) -> dict[str, float]:
        """Loss, perplexity, word_perplexity and bits_per_byte of all texts together; nll in nats."""
        # fsum is exact, so the sum does not depend on the order or on how the texts were batched.
        return language_modeling(math.fsum(nll), tokens=sum(tokens), words=sum(words), num_bytes=sum(num_bytes))
