"""What a model should beat before anyone pays for it: TF-IDF with logistic regression or the nearest row."""

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


def nearest_rows(train_texts: Sequence[str], texts: Sequence[str], analyzer: Literal["word", "char"]) -> np.ndarray:
    """The row of train whose text is most like each of `texts`, (len(texts),): by the cosine of TF-IDF vectors of
    1-2-grams of words or 1-4-grams of characters; the first of equals."""
    grams = (1, 2) if analyzer == "word" else (1, 4)
    vectorizer = TfidfVectorizer(analyzer=analyzer, ngram_range=grams, sublinear_tf=True)
    known = vectorizer.fit_transform(train_texts)
    rows = 500  # at once, of (rows x train) likenesses
    parts = (vectorizer.transform(texts[start : start + rows]) @ known.T for start in range(0, len(texts), rows))
    return np.concatenate([np.asarray(part.todense()).argmax(axis=1) for part in parts])
