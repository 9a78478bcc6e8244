"""Baselines of numbers without pretraining: is the encoder worth its cost?

They give what the model gives, a column of numbers, so that they are scored as it is.
"""

import time
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from finetune.data.corpus import Corpus
from finetune.evaluation.baselines import CHUNK, Baseline, build_vectorizer, choose_rows

PENALTY = 1.0  # scikit-learn's default


def mean_baseline(corpus: Corpus) -> Baseline:
    """Always predicts the mean of train's numbers, which no other constant beats by R²."""
    assert corpus.number is not None
    logits = np.full((len(corpus.test), 1), corpus.number.mean, dtype=np.float32)
    return Baseline(logits, len(corpus.train), 0.0)


def tfidf_ridge_baseline(corpus: Corpus) -> Baseline:
    """Words and word pairs, weighted by TF-IDF, under a ridge regression; nothing in it is tuned.

    It reads whole documents, as many of train as `baselines.tfidf_baseline` does.
    """
    began = time.perf_counter()
    assert corpus.train.labels is not None
    assert corpus.number is not None
    (order, weights), texts = choose_rows(corpus), corpus.train.whole()
    scale, test = corpus.number, corpus.test.whole()
    model: Any = make_pipeline(build_vectorizer(), Ridge(alpha=PENALTY, solver="lsqr"))
    try:
        model.fit(
            [texts[i] for i in order],
            ((corpus.train.labels[order] - scale.mean) / scale.deviation).astype(np.float32),
            ridge__sample_weight=weights,
        )
    except ValueError:  # not a word in all of train
        return mean_baseline(corpus)
    logits = np.zeros((len(test), 1), dtype=np.float32)
    for start in range(0, len(test), CHUNK):
        found = model.predict(test[start : start + CHUNK])
        logits[start : start + CHUNK, 0] = found * scale.deviation + scale.mean
    return Baseline(logits, len(order), time.perf_counter() - began)
