"""TF-IDF and logistic regression: what a classifier should beat before anyone pays for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def tfidf_predictions(
    train_texts: Sequence[str], train_labels: Sequence[int], texts: Sequence[str], analyzer: Literal["word", "char"]
) -> np.ndarray:
    """Class ids (len(texts),), by scikit-learn: 1-2-grams of words or characters, sublinear tf, C=100."""
    model = make_pipeline(
        TfidfVectorizer(analyzer=analyzer, ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=100, max_iter=1000),
    )
    return model.fit(train_texts, train_labels).predict(texts)
